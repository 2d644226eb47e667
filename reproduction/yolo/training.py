"""Whole networks in training: gradients of all parameters, and steps of the optimiser (`..._cudnn_emulated`)."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pydantic
import tensorflow as tf

from losses.truth import Truth
from losses.yolo.darknet.yolov1 import CellTruth
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.cfg import Network, parse_cfg
from official.core.config import Schedule, Sgd, Trainer
from official.core.step import State, TrainStep
from official.core.task import Moment
from official.optimization import optimizers, schedules
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import OfAbsmax, Relative
from reproduction.traces.steps import in_steps, train_step
from reproduction.traces.trace import relayout
from reproduction.yolo.case import heads_of, network_of
from reproduction.yolo.loss import labels, loss, moment
from reproduction.yolo.loss_options import Options, options_of
from reproduction.yolo.mistakes.training import SgdStep, step_alternatives
from reproduction.yolo.rebuilt import STATISTICS, UPDATES, Arrays, Rebuilt, compare_updates, gradients_of
from reproduction.yolo.walk import recorded_parameters, statistics_clue
from tasks.yolo.recipe import Sources, recipe, schedule

BOUND = OfAbsmax(bound=1e-5)
RATE = Relative(bound=1e-6)
LOSS = Relative(bound=1e-5)
START = "meta/start_iteration"
MOMENTUM = 1e-4  # of its absmax; the sum of the gradients of all steps, each at weights that are ours


def gradients(case: Case, subject: Subject) -> Iterator[Row]:
    """Image to loss and back: every parameter's gradient, the image's, and the moving statistics afterwards."""
    options = options_of(case, subject)
    if options.refused or options.is_automatic:
        automatic = "the automatic gradient of boxes is not Darknet's; own_loss and own_steps compare it"
        yield case.skip("grad", options.refused or automatic)
        return
    rebuilt = Rebuilt.of(case)
    ours = _differentiated(rebuilt)
    exact = functools.cache(lambda: _differentiated(Rebuilt.exact(case)))
    clue = Clue("gradient", "NCHW")
    yield case.compare("train/input_delta", ours.image, BOUND, None, clue, lambda: exact().image)
    yield from compare_updates(rebuilt, "grad", ours.updates, BOUND.bound, lambda: exact().updates)
    for name, array in ours.parameters.items():
        if name.endswith(STATISTICS):
            clue = statistics_clue(case, name, recorded_parameters(case), "train/")
            yield case.compare(f"after/{name}", array, BOUND, None, clue, lambda name=name: exact().parameters[name])


class _Differentiated(NamedTuple):
    """Darknet's deltas of one training forward and back, and the parameters with the statistics that it moved."""

    image: Arrays
    updates: Mapping[str, Arrays]
    parameters: Mapping[str, Arrays]


def _differentiated(rebuilt: Rebuilt) -> _Differentiated:
    """A network of float64 gives the loss its outputs rounded to float32, and takes its gradient from there on back.

    Losses are float32 by definition: so the rounding inside them, 1e-6 of a delta, is on both sides alike.
    """
    case, image = rebuilt.case, rebuilt.image()
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs = rebuilt.graph.model(image, training=True)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        value, _ = loss(Options(*head_and_loss(network_of(case))), outputs, labels(case), moment(case))
    by_all = gradients_of(tape, value, [image, *rebuilt.graph.model.trainable_variables])
    deltas = [-image.shape[0] * gradient for gradient in by_all]
    updates = rebuilt.updates(deltas[1:])
    return _Differentiated(relayout(deltas[0].numpy(), "NHWC", "NCHW"), updates, rebuilt.parameters())


class _Batch(NamedTuple):
    image: tf.Tensor
    truth: Truth | CellTruth


@dataclass(frozen=True)
class _Recorded:
    """The task of a trace: the same batch in every step."""

    network: Network

    def prepare(self, batch: _Batch) -> tuple[tf.Tensor, Truth | CellTruth]:
        return batch.image, batch.truth

    def loss(
        self, outputs: Sequence[tf.Tensor], truth: Truth | CellTruth, moment: Moment
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        return loss(Options(*head_and_loss(self.network)), outputs, truth, moment)[0], {}


def steps(case: Case) -> Iterator[Row]:
    """The trainer's own step, again and again from the recorded start: rate, loss, parameters after each."""
    rebuilt = Rebuilt.of(case)
    again = functools.cache(lambda: list(_stepped(Rebuilt.exact(case))))
    for index, (number, ours) in enumerate(zip(_numbers(case), _stepped(rebuilt), strict=True)):

        def exact(index: int = index) -> _Stepped:
            return again()[index]

        yield case.compare(f"it{number}/lr", ours.rate, RATE, clue=Clue("schedule"))
        yield case.compare(f"it{number}/loss_printed", ours.loss, LOSS, None, Clue("loss"), lambda: exact().loss)
        for name, array in ours.parameters.items():
            clue = Clue("statistics" if name.endswith(STATISTICS) else "steps")
            quantity = f"it{number}/after/{name}"
            yield case.compare(quantity, array, BOUND, None, clue, lambda name=name: exact().parameters[name])
        momentum = f"it{number}/momentum_buffer"
        yield from compare_updates(rebuilt, momentum, ours.buffers, MOMENTUM, lambda: exact().buffers)


class _Stepped(NamedTuple):
    """After a step: its rate and loss, the parameters, and of SGD the momentum."""

    rate: tf.Tensor
    loss: tf.Tensor
    parameters: Mapping[str, Arrays]
    buffers: Mapping[str, Arrays]


def _stepped(rebuilt: Rebuilt) -> Iterator[_Stepped]:
    """All recorded steps, each in Darknet's terms. Rate and loss are float32 in a network of float64 too."""
    case = rebuilt.case
    step, state = _train_step(rebuilt)
    batch = _Batch(rebuilt.image(), labels(case))
    for _ in _numbers(case):
        state, metrics = step(state, batch)
        rebuilt.take(state.weights, state.statistics)
        buffers = {}
        if isinstance(step.config.optimizer, Sgd):
            # Darknet's buffer has the sum of the batch, minus the gradient's sign, and the next step's momentum.
            factor = -network_of(case).net.batch * step.config.optimizer.momentum
            buffers = rebuilt.updates([factor * buffer for buffer in state.slots["momentum"]])
        yield _Stepped(metrics.scalars["learning_rate"], metrics.scalars["loss"], rebuilt.parameters(), buffers)


def updates(case: Case) -> Iterator[Row]:
    """Each update alone: from the recorded parameters, momentum and gradient to the parameters after it.

    What Darknet has added up before an update is the gradient and what momentum left of the update before.
    """
    rebuilt = Rebuilt.of(case)
    if not isinstance(_train_step(rebuilt)[0].config.optimizer, Sgd):
        yield case.skip("it*", "of Adam, Darknet's record does not have the moments")
        return
    exact = functools.cache(lambda: dict(_updated(Rebuilt.exact(case))))
    for number in [number for number in _numbers(case) if not _has_updates(case, number)]:
        yield case.skip(f"it{number}/before_update", "not recorded")
    for number, ours in _updated(rebuilt):
        for name, array in ours.parameters.items():
            if not name.endswith(STATISTICS):
                clue = Clue("parameters", "", step_alternatives(ours.steps[name]) if name in ours.steps else {})
                again = functools.partial(lambda number, name: exact()[number].parameters[name], number, name)
                yield case.compare(f"it{number}/after/{name}", array, BOUND, None, clue, again)


class _Updated(NamedTuple):
    """Parameters after an update, and what Darknet does to each."""

    parameters: Mapping[str, Arrays]
    steps: Mapping[str, SgdStep]


def _updated(rebuilt: Rebuilt) -> Iterator[tuple[int, _Updated]]:
    """By their numbers, the updates that are recorded from their gradients on."""
    case, (step, start) = rebuilt.case, _train_step(rebuilt)
    batch, optimizer = network_of(case).net.batch, step.config.optimizer
    weights_before, left = rebuilt.load("init/"), None
    before = rebuilt.parameters()
    for number in [number for number in _numbers(case) if _has_updates(case, number)]:
        added = rebuilt.load(f"it{number}/before_update/", UPDATES)
        left = [tf.zeros_like(array) for array in added] if left is None else left
        gradients = [(one - other) / -batch for one, other in zip(added, left, strict=True)]
        slots = {"momentum": [other / (-batch * optimizer.momentum) for other in left]}
        at = start.step + number + 1
        decayed, rates = zip(*((r.decays, r.learning_rate * step.learning_rate(at)) for r in step.rules), strict=True)
        steps = _darknets_steps(rebuilt, before, number, gradients, slots["momentum"], optimizer)
        done = optimizers.apply_gradients(optimizer, weights_before, gradients, slots, decayed, rates, at)
        rebuilt.take(done.weights, [tf.identity(one) for one in rebuilt.graph.model.non_trainable_variables])
        yield number, _Updated(rebuilt.parameters(), steps)
        weights_before = rebuilt.load(f"it{number}/after/")
        before = rebuilt.parameters()
        left = rebuilt.load(f"it{number}/momentum_buffer/", UPDATES)


def _has_updates(case: Case, number: int) -> bool:
    return any(name.startswith(f"it{number}/before_update/") for name in case.trace)


def _darknets_steps(
    rebuilt: Rebuilt,
    before: Mapping[str, Arrays],
    number: int,
    gradients: Sequence[tf.Tensor],
    buffers: Sequence[tf.Tensor],
    optimizer: Sgd,
) -> dict[str, SgdStep]:
    """What Darknet does to each parameter in one update, by its name; nothing where its rate is not recorded."""
    case = rebuilt.case
    if f"it{number}/lr" not in case.trace:
        return {}
    rate = float(case.trace.number(f"it{number}/lr"))
    named = rebuilt.updates(gradients), rebuilt.updates(buffers)
    found = {}
    for name, value in before.items():
        update = f"{name[:5]}{UPDATES.get(name[5:])}"
        if update in named[0]:
            own = rate * network_of(case).layers[int(name[1:4])].learning_rate
            parts = (np.asarray(part, float) for part in (value, named[0][update], named[1][update]))
            decays, count = name.endswith("weights"), network_of(case).net.batch
            found[name] = SgdStep(optimizer, *parts, own, decays, count)
    return found


def _numbers(case: Case) -> list[int]:
    """Of the recorded steps."""
    return sorted({int(found[1]) for name in case.trace if (found := re.match(r"it([0-9]+)/", name))})


def _train_step(rebuilt: Rebuilt) -> tuple[TrainStep, State]:
    """The step that training by this cfg runs, and the state it begins with.

    `meta/start_iteration` is the number of updates before the recorded ones: rates and burn-in go on from there.
    """
    network, trace = network_of(rebuilt.case), rebuilt.case.trace
    classes = tuple(map(str, range(heads_of(rebuilt.case)[-1].classes)))  # nothing is read by them
    trainer = Trainer.model_validate(recipe(network, Sources(classes, {}, {})).experiment["trainer"])
    step, state = train_step(_Recorded(network), rebuilt.graph.model, trainer)
    if START in trace:
        state = state._replace(step=tf.constant(trace.array(START, (), np.integer), tf.int64))
    return step, state


def rate_cases(case: Case) -> list[str]:
    """Each recorded policy."""
    return sorted({name.removeprefix("cfg/") for name in case.trace} - {"batch_num"})


def learning_rates(case: Case) -> Iterator[Row]:
    """The learning rate of the updates `batch_num` by the policy of the cfg `cfg/NAME`."""
    numbers = case.trace.array("batch_num", ("updates",), np.integer)
    recorded = case.trace.array(case.part, numbers.shape, np.floating)
    network = parse_cfg(case.trace.text(f"cfg/{case.part}"), f"{case.path}:cfg/{case.part}")
    if network.net.policy == "random":
        yield case.skip(case.part, "policy=random draws every rate")
        return
    policy = pydantic.TypeAdapter(Schedule).validate_python(schedule(network.net))
    rate = schedules.build_schedule(policy, network.net.max_batches, in_steps, seed=0)
    updates = tf.constant(numbers[numbers >= 1], tf.int64)  # Darknet's first one is number 1
    of_all = tf.function(lambda: tf.map_fn(rate, updates, fn_output_signature=tf.float32), autograph=False)
    yield case.compare(case.part, of_all(), RATE, recorded[numbers >= 1], Clue("schedule"))
