"""Gate 7: the run's own step from given gradients to new weights, at the steps where its rules change.

The network is left out: what it would give as gradients is drawn. Micro-batches, their mean, the wait of single layers,
clipping, schedule, warm-up, the optimiser with its groups and the moving average are those of the run's `TrainStep`, in
float64, of a few elements of every weight (an update looks at no other element, but for the norm of the gradient).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float64, Int64

from official.core.build_step import build_step
from official.core.config import Config, Constant, Duration, Random, Trainer
from official.core.layer_rules import freeze
from official.core.step import Gradients, State, TrainStep
from official.optimization.optimizers import slot_names
from reproduction.experiment.own import Own
from reproduction.experiment.subject import Subject
from reproduction.restated import optimisers, training
from reproduction.restated.schedules import learning_rate
from reproduction.seeded.update_mistakes import Array, Before, Situation, mistakes, rate_mistakes
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, AbsoluteAndRelative

# Rates are float32: what has fallen below its smallest number, as `step` and `sigmoid` do late in a run, is 0 there.
RATE = AbsoluteAndRelative(absolute=float(np.finfo(np.float32).tiny), relative=1e-6)
CHANGE = 2e-6  # of the largest change of a kind
ELEMENTS = 48  # of each weight
MOST_STEPS = 12
DRAWN = "policy random draws every rate: there is no formula to compare it with"


class Drawn(NamedTuple):
    """A batch of the gradients' factors; one number for each micro-batch."""

    factor: Float64[tf.Tensor, " parts"]
    example_id: Int64[tf.Tensor, " parts"]


@dataclasses.dataclass(frozen=True)
class GivenGradients(TrainStep):
    """The run's step, but for forward and backward: their result is drawn."""

    gradients: Sequence[Float64[tf.Tensor, "..."]]

    def _differentiate(self, state: State, batch: Drawn) -> Gradients:
        factor = tf.reduce_mean(batch.factor)
        scalars = {"loss": tf.cast(factor, tf.float32)}
        return Gradients(
            [factor * one for one in self.gradients], state.statistics, scalars, {"loss": tf.constant(True)}
        )


def updates(case: Case, subject: Subject) -> Iterator[Row]:
    """Learning rate, norm, weights, slots and average after single steps all over the run."""
    own = subject.own.small
    trainer = without_draws(subject.experiment.trainer)
    if trainer != subject.experiment.trainer:
        yield case.skip("learning_rate", DRAWN)
    freeze(own.model, trainer.freeze)
    step = build_step(own.task, own.model, trainer, own.to_steps, subject.experiment.runtime.seed)
    names = [variable.path for variable in own.model.trainable_variables]
    groups = optimisers.groups(
        names, [len(v.shape) for v in own.model.trainable_variables], trainer.layers, own.to_steps
    )
    long = _drawn(own, trainer, np.random.default_rng(subject.experiment.runtime.seed))
    short = _within_clip(long, trainer)
    for place, number in enumerate(_numbers(trainer, own.to_steps)):
        before = short if place % 2 else long
        ours, metrics = _after(step, before, number)

        def stated(config: Trainer = trainer, given: Before = before, at: int = number, rules=groups) -> training.Step:
            parts = [[factor * one for one in given.gradients] for factor in given.factors]
            former = given.weights, given.statistics, given.slots, given.average
            return training.train_step(config, parts, *former, rules, at, own.to_steps)

        right = stated()
        made = mistakes(Situation(trainer, before, groups, number, stated, own.to_steps))
        for name, kind in (("learning_rate", "schedule"), ("gradient_norm", "loss")):
            others = {cause: lambda one=one, name=name: np.array(getattr(one(), name)) for cause, one in made.items()}
            expected, clue = getattr(right, name), Clue(kind, "", others)
            yield case.compare(f"step {number} {name}", metrics[name], RATE, expected, clue)
        for name, mine, theirs, start in _quantities(ours, right, before, names):
            others = {
                cause: lambda one=one, name=name, start=start, before=before: _named(one(), before, names)[name] - start
                for cause, one in made.items()
            }
            clue = Clue("parameters", "", others)
            # A change that is nothing beside the number itself is float64's own rounding.
            floor = 8 * np.finfo(float).eps * float(np.abs(start).max(initial=0))
            bound = CHANGE * float(np.abs(theirs - start).max(initial=0)) + floor
            yield case.compare(f"step {number} {name}", mine - start, Absolute(bound=bound), theirs - start, clue)
    _note(subject.own, subject.experiment.trainer)


def without_draws(trainer: Trainer) -> Trainer:
    """The trainer, at a constant rate where its own is drawn: what else an update does can be compared all the same."""
    schedule = trainer.schedule
    if not isinstance(schedule, Random):
        return trainer
    constant = Constant(learning_rate=schedule.learning_rate, burn_in=schedule.burn_in)
    return trainer.model_copy(update={"schedule": constant})


def _after(step: TrainStep, before: Before, number: int) -> tuple[State, Mapping[str, tf.Tensor]]:
    """The run's step number `number`, from there on."""
    tensors = tf.nest.map_structure(lambda one: tf.constant(one, tf.float64), before)
    fields = {field.name: getattr(step, field.name) for field in dataclasses.fields(TrainStep)}
    given = GivenGradients(**fields, gradients=tensors.gradients)
    state = State(
        tf.constant(number - 1, tf.int64), tensors.weights, tensors.statistics, tensors.slots, tensors.average
    )
    parts = len(before.factors)
    new, metrics = given(state, Drawn(tensors.factors, tf.range(parts, dtype=tf.int64)))
    return new, metrics.scalars


def _drawn(own: Own, trainer: Trainer, rng: np.random.Generator) -> Before:
    def some(count: int, scale: float) -> list[Array]:
        return [scale * rng.standard_normal(size) for size in sizes[:count]]

    variables = [*own.model.trainable_variables, *own.model.non_trainable_variables]
    sizes = [min(ELEMENTS, int(np.prod(variable.shape))) for variable in variables]
    trained = len(own.model.trainable_variables)
    values = [np.asarray(variable, np.float64).ravel()[:size] for variable, size in zip(variables, sizes, strict=True)]
    slots = {name: some(trained, 0.02) for name in slot_names(trainer.optimizer)}
    if "second_moment" in slots:
        slots["second_moment"] = [np.square(one) for one in slots["second_moment"]]
    average = [value + one for value, one in zip(values, some(len(values), 0.01), strict=True)]
    return Before(
        values[:trained], values[trained:], slots, average if trainer.moving_average else [],
        some(trained, 1.0), rng.uniform(0.5, 1.5, trainer.micro_batches),
    )  # fmt: skip


def _within_clip(before: Before, trainer: Trainer) -> Before:
    """The same with gradients half as long as clipping allows, which it has to leave alone."""
    if trainer.clip_global_norm is None:
        return before
    norm = np.sqrt(sum(float(np.vdot(one, one)) for one in before.gradients)) * before.factors.mean()
    factor = trainer.clip_global_norm / (2 * norm)
    return before._replace(gradients=[factor * one for one in before.gradients])


def _numbers(trainer: Trainer, to_steps: Callable[[Duration], int]) -> list[int]:
    """The first and the last update, and those about which a rule begins or ends; thinned out where they are many."""
    total = to_steps(trainer.duration)
    edges = {1, 2, total // 3, total}
    for length in _durations(trainer):
        edges |= {to_steps(length) + one for one in (-1, 0, 1, 40)}
    wanted = sorted(number for number in edges if 1 <= number <= total)
    places = np.unique(np.linspace(0, len(wanted) - 1, MOST_STEPS).round().astype(int))
    return [wanted[place] for place in places]


def _durations(config: Config) -> Iterator[Duration]:
    """All durations in a trainer's rules, in any depth; but not what concerns checkpoints and summaries."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in ("duration", "checkpoint", "summary_every", "evaluate_every", "initialise"):
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Duration):
                yield one
            elif isinstance(one, Config):
                yield from _durations(one)


def _quantities(
    ours: State, right: training.Step, before: Before, names: Sequence[str]
) -> Iterator[tuple[str, Array, Array, Array]]:
    """(name, ours, the formulas', before) of all weights of a kind, one after the other; likewise slots and average."""
    mine = training.Step(
        [one.numpy() for one in ours.weights],
        {name: [one.numpy() for one in slot] for name, slot in ours.slots.items()},
        [one.numpy() for one in ours.average], 0.0, 0.0,
    )  # fmt: skip
    start = training.Step(before.weights, before.slots, before.average, 0.0, 0.0)
    found = [_named(each, before, names) for each in (mine, right, start)]
    for name in found[0]:
        yield name, *(each[name] for each in found)


def _named(step: training.Step, before: Before, names: Sequence[str]) -> dict[str, Array]:
    kinds = [name.rpartition("/")[2] for name in names]
    found = {
        f"weights: {kind}": np.concatenate([one for one, own in zip(step.weights, kinds, strict=True) if own == kind])
        for kind in dict.fromkeys(kinds)
    }
    found |= {f"slot {name}": np.concatenate(slot) for name, slot in step.slots.items()}
    if step.average:
        count = len(before.weights)
        found["average of weights"] = np.concatenate(step.average[:count])
        if step.average[count:]:
            found["average of statistics"] = np.concatenate(step.average[count:])
    return found


def _note(own: Own, trainer: Trainer) -> None:
    own.note("trainer.optimizer")
    if not isinstance(trainer.schedule, Random):
        own.note("trainer.schedule")
    for name in ("clip_global_norm", "moving_average", "freeze", "layers"):
        if getattr(trainer, name):
            own.note(f"trainer.{name}")
    if trainer.micro_batches > 1:
        own.note("trainer.micro_batches")


def rates(case: Case, subject: Subject) -> Iterator[Row]:
    """The run's learning rate, all along the run."""
    own, trainer = subject.own.small, subject.experiment.trainer
    if isinstance(trainer.schedule, Random):
        yield case.skip("learning_rate", DRAWN)
        return
    step = build_step(own.task, own.model, trainer, own.to_steps, subject.experiment.runtime.seed)
    total = own.to_steps(trainer.duration)
    numbers = np.unique(np.geomspace(1, total, 200).round().astype(np.int64))
    steps = tf.constant(numbers)
    of_all = tf.function(lambda: tf.map_fn(step.learning_rate, steps, fn_output_signature=tf.float32), autograph=False)
    stated = [learning_rate(trainer.schedule, int(number), total, own.to_steps) for number in numbers]
    clue = Clue("schedule", "", rate_mistakes(trainer, numbers, own.to_steps))
    yield case.compare("learning_rate", of_all(), RATE, np.array(stated), clue)
    subject.own.note("trainer.schedule")
