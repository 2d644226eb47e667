"""Steps of Adam: by the trainer's own step in float64, and in float32 from the recorded gradients (`*_trace`).

A network's own gradient in float32 is no measure of a step: where a ReLU or a maximum is undecided to the last bit, a
gradient differs visibly, and Adam's first step is the gradient's sign. In float64 nothing is undecided.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from configs.centernet.task import CenterNetHead, CenterNetLoss
from losses.centernet.loss import loss_against
from losses.centernet.targets import DenseSize, Targets
from modeling.centernet.decode import stacks_of
from modeling.weights.torch_names import to_torch, torch_name
from official.core.config import Adam, Trainer
from official.core.task import Moment, Scalar, Scalars
from official.optimization.optimizers import apply_gradients, slot_names
from reproduction.centernet.losses import TERMS, dense_size, loss_options, maps, recorded_targets
from reproduction.centernet.model import Parameters, build
from reproduction.traces.case import Case, Row
from reproduction.traces.compare import Absolute, OfAbsmax, Relative, Tolerance
from reproduction.traces.precision import precision
from reproduction.traces.steps import parameter, train_step
from reproduction.traces.trace import Trace, TraceError

BOUND = 1e-6
RATE = 1.25e-4  # the original's, where the trace does not say
ADAM = Adam(weight_decay=0)  # the original's


Image = Float[tf.Tensor, "batch height width 3"]


class Batch(NamedTuple):
    image: Image
    targets: Targets
    dense: DenseSize | None


@dataclasses.dataclass(frozen=True)
class Recorded:
    """The task of a trace: the same batch in every step, its targets as recorded."""

    head: CenterNetHead
    options: CenterNetLoss

    def prepare(self, batch: Batch) -> tuple[Image, Batch]:
        return batch.image, batch

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], batch: Batch, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        return loss_against(stacks_of(outputs, self.head), batch.targets, batch.dense, self.head, self.options)


def steps(case: Case) -> Iterator[Row]:
    """Losses, gradients and parameters of every step, in float64."""
    yield from _recorded(case, "f64", _whole_steps)


def updates(case: Case) -> Iterator[Row]:
    """Parameters after every step, each from the recorded gradients, in float32."""
    yield from _recorded(case, "f32", _from_recorded_gradients)
    for name in _names(case.trace, "after_adam"):
        if not _is_trained(case.trace, name):
            yield case.skip(f"after_adam/{name}", "the network does not use it: it has no gradient")


def _recorded(case: Case, short: str, check: Callable[[Case, int], Iterator[Row]]) -> Iterator[Row]:
    """A check of all recorded steps of one precision."""
    found = [re.match(rf"{short}/step([0-9]+)/", name) for name in case.trace]
    numbers = sorted({int(match[1]) for match in found if match})
    if not numbers:
        yield case.skip(f"{short}/step*", "not recorded")
    elif numbers != list(range(len(numbers))):
        raise TraceError(f"{case.path}: steps of {short} are {numbers}; expected 0, 1, ...")
    else:
        yield from check(case, len(numbers))


def _whole_steps(case: Case, count: int) -> Iterator[Row]:
    """Forward, loss, backward and update, again and again from the recorded start, in float64."""
    trace, rate = case.trace, _rate(case.trace)
    with precision("float64"):
        model, config = build(case)
        step, state = train_step(Recorded(config.head, loss_options(trace)), model, _trainer(rate, count))
        # float32's 1.25e-4 is 5e-8 away, which the gradients of three steps make 1e-6 of.
        step = dataclasses.replace(step, learning_rate=lambda _: tf.constant(rate, tf.float64))
        batch = Batch(maps(trace, "input"), recorded_targets(trace), dense_size(trace))
        names = [torch_name(variable.path) for variable in model.trainable_variables]
        start = _sampled(trace, names, state.weights)
        for number in range(count):
            before = state.slots["first_moment"]
            state, metrics = step(state, batch)
            for term in TERMS:
                yield case.compare(f"f64/step{number}/{term}", metrics.scalars[term], Relative(bound=BOUND))
            moments = zip(state.slots["first_moment"], before, strict=True)
            gradients = [(new - ADAM.beta1 * old) / (1 - ADAM.beta1) for new, old in moments]
            prefix = f"f64/step{number}"
            yield from _gradients(case, f"{prefix}/grad", _sampled(trace, names, gradients))
            yield from _changes(case, prefix, start, _sampled(trace, names, state.weights), BOUND * rate)


def _trainer(rate: float, count: int) -> Trainer:
    duration = {"steps": count}
    schedule = {"type": "constant", "learning_rate": rate}
    fields = {"duration": duration, "optimizer": ADAM, "schedule": schedule, "checkpoint": {"every": duration}}
    return Trainer.model_validate(fields)


def _gradients(case: Case, prefix: str, gradients: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """Each within the bound of its largest; one that is 0 but for rounding, within that of its layer's largest."""
    for name, ours in gradients.items():
        quantity = f"{prefix}/{name}"
        layer = _of_layer(case.trace, quantity)
        tolerance = Absolute(bound=BOUND * layer) if _is_nothing(case.trace, quantity) else OfAbsmax(bound=BOUND)
        yield _beside(case, quantity, ours, tolerance)


def _changes(
    case: Case, prefix: str, start: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], bound: float
) -> Iterator[Row]:
    """What the steps so far made of each parameter."""
    for name, weight in weights.items():
        quantity = f"{prefix}/after_adam/{name}"
        if _is_nothing(case.trace, f"{prefix}/grad/{name}"):
            yield case.skip(quantity, "its gradient is 0 but for rounding: a bias before a batch-norm")
        else:
            yield _beside(case, quantity, weight - start[name], Absolute(bound=bound), start[name])


def _beside(case: Case, quantity: str, ours: np.ndarray, tolerance: Tolerance, less: np.ndarray | float = 0.0) -> Row:
    """Ours beside the recorded array, of this shape or flat, `less` something."""
    try:
        expected = parameter(case.trace, quantity, ours.shape)
    except TraceError as error:
        return case.fail(quantity, str(error))
    return case.compare(quantity, ours, tolerance, expected - less)


def _of_layer(trace: Trace, quantity: str) -> float:
    """The largest number of what is recorded beside it of the same layer."""
    layer = quantity.rpartition(".")[0]
    names = [f"{layer}.weight", f"{layer}.bias"]
    return max((float(np.abs(trace[name]).max(initial=0)) for name in names if name in trace), default=0.0)


def _is_nothing(trace: Trace, gradient: str) -> bool:
    if gradient not in trace:
        return False
    return float(np.abs(trace[gradient]).max(initial=0)) < BOUND * _of_layer(trace, gradient)


def _from_recorded_gradients(case: Case, count: int) -> Iterator[Row]:
    """The optimiser alone, in float32."""
    trace, parameters = case.trace, Parameters.of(case)
    shapes = parameters.shapes()
    names = [name for name in _names(trace, "after_adam") if _is_trained(trace, name) and name in shapes]
    start = {name: _sample(trace, name, parameters.value(name, shapes[name])) for name in names}
    weights = [tf.constant(value, tf.float32) for value in start.values()]
    slots = {slot: [tf.zeros_like(weight) for weight in weights] for slot in slot_names(ADAM)}
    rates, decayed = [tf.constant(_rate(trace), tf.float32)] * len(names), [True] * len(names)
    for number in range(count):
        gradients = [
            tf.constant(parameter(trace, f"f32/step{number}/grad/{name}", value.shape), tf.float32)
            for name, value in start.items()
        ]
        step = tf.constant(number + 1, tf.int64)
        weights, slots = apply_gradients(ADAM, weights, gradients, slots, decayed, rates, step)
        for name, weight in zip(names, weights, strict=True):
            yield _beside(case, f"f32/step{number}/after_adam/{name}", weight.numpy(), OfAbsmax(bound=BOUND))


def _names(trace: Trace, what: str) -> list[str]:
    """Of the parameters of which this is recorded in any precision and step."""
    found = [re.fullmatch(rf"f(?:32|64)/step[0-9]+/{what}/(.+)", name) for name in trace]
    return sorted({match[1] for match in found if match})


def _is_trained(trace: Trace, name: str) -> bool:
    return any(f"{short}/step0/grad/{name}" in trace for short in ("f32", "f64"))


def _rate(trace: Trace) -> float:
    return float(trace.number("meta/learning_rate")) if "meta/learning_rate" in trace else RATE


def _sampled(trace: Trace, names: Sequence[str], values: Sequence[tf.Tensor]) -> dict[str, np.ndarray]:
    """By name, in PyTorch's axes, what is recorded of each."""
    return {name: _sample(trace, name, to_torch(value.numpy())) for name, value in zip(names, values, strict=True)}


def _sample(trace: Trace, name: str, values: np.ndarray) -> np.ndarray:
    """What is recorded of a large parameter: its elements at some flat positions."""
    if f"sample_idx/{name}" not in trace:
        return values
    at = trace.array(f"sample_idx/{name}", ("positions",), np.integer)
    if at.size and not 0 <= at.min() <= at.max() < values.size:
        raise TraceError(f"{trace.origin}: sample_idx/{name} points beyond the parameter's {values.size} elements")
    return values.ravel()[at]
