"""Gate 9: the trainer itself runs a few steps of the experiment, and goes on from its own checkpoint.

The task is the experiment's, but for its input stream: the batches are seeded bytes. The other side computes the same
steps by the stated formulas: pixels, labels, the loss's gradient, the mean over micro-batches, clipping, update and
average are restated; only the network, forward and backward, is the same one, called by hand and in training mode.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float64

from configs.experiment import Experiment
from official.core.config_io import check_config, override
from official.core.distribution import place_locally
from official.core.task import Shard, Task
from official.core.trainer import Run
from reproduction.compare import Absolute, Exact, Relative
from reproduction.golden.case import Case, Row
from reproduction.hints import Clue
from reproduction.own import EPOCH, Own
from reproduction.restated import optimisers, training
from reproduction.seeded.families import family_of
from reproduction.seeded.family import Family
from reproduction.subject import Subject

STEPS = 1
BOUND = 2e-3  # of a quantity's largest number: the network's backward pass in float32, compiled otherwise
ROUNDING = 2.0**-22  # of a weight: a change that is small beside it is rounded
LOSS = Relative(bound=1e-4)
Array = Float64[np.ndarray, "..."]


class _Enough(Exception):
    """The steps that are compared are done."""


class Values(NamedTuple):
    """What a run holds, in float64: of each variable, in the model's order."""

    step: int
    weights: list[Array]
    statistics: list[Array]
    slots: dict[str, list[Array]]
    average: list[Array]


def steps(case: Case, subject: Subject) -> Iterator[Row]:
    """Loss, weights, statistics, slots and average after the run's steps; then what a second run resumes with."""
    own = _prepared(subject.own.small)
    family = family_of(own)
    start = _start(own)
    batches = {start + number: _batch(family, number) for number in range(STEPS)}
    with tempfile.TemporaryDirectory() as folder:
        run = _run(own, batches, folder)
        run.variables.step.assign(start)
        before = values_of(run)
        losses = _train(run)
        after, names = values_of(run), [variable.path for variable in run.model.trainable_variables]
        again = _run(own, batches, folder)
        report = again.resume_or_initialise()
        resumed = values_of(again)
    stated = Stated(own, family, run, names, batches)
    right, expected = stated.steps(before)
    made = stated.mistakes(before)
    for number, (ours, theirs) in enumerate(zip(losses, expected, strict=True)):
        yield case.compare(f"step {number + 1} loss", ours, LOSS, theirs, Clue("loss"))
    yield from _compared(case, before, after, right, names, made)
    yield from _resumed(case, after, resumed, report)
    own.note("training step", "resume", "task.loss", "label assignment", "pixels", "task.model.head")
    if own.experiment.task.data.train.multi_scale:
        own.note("task.data.train.multi_scale")


def _prepared(small: Own) -> Own:
    """The small copy, for a run that saves after every step and says nothing on the way."""
    sets = ["trainer.steps_per_loop=1", "trainer.checkpoint.every={steps: 1}", "trainer.summary_every={steps: 1000000}"]
    data = small.experiment.model_dump(mode="json", exclude_none=True)
    data["trainer"].pop("initialise", None)
    data["trainer"].pop("evaluate_every", None)
    changed = check_config(override(data, sets), Experiment, "the experiment, for a few steps")
    return Own(changed, small.called)


def _start(own: Own) -> int:
    """Steps that count as done: beyond the warm-up, where the rate is large enough to move a weight."""
    trainer = own.experiment.trainer
    total = own.to_steps(trainer.duration)
    average = trainer.moving_average
    begins = own.to_steps(average.start) if average and average.start else 0
    return max(total // 3, min(begins + 2, total - STEPS))


def _batch(family: Family, number: int) -> Any:
    """As many examples as a step has: the images of several draws of labels, one after the other."""
    task = family.own.experiment.task
    wanted, size = task.data.train.batch_size, tuple(task.model.input_size)
    parts = []
    while sum(part.boxes.shape[0] for part in parts) < wanted:
        rng = np.random.default_rng((family.own.experiment.runtime.seed, number, len(parts)))
        parts.append(family.plain(family.batch(family.labels(rng), size, rng)))
    joined = tf.nest.map_structure(lambda *each: tf.concat(each, axis=0), *parts)
    # The last ones: of the images of one draw those with truths come last.
    return tf.nest.map_structure(lambda each: each[-wanted:], joined)


def _run(own: Own, batches: Mapping[int, Any], folder: str) -> Run:
    """The trainer's run of the experiment's task, which reads these batches."""
    task, experiment = own.task, own.experiment

    class Fed(type(task)):
        """The experiment's task, but for its input stream."""

        def examples_per_epoch(self) -> int:
            return EPOCH

        def input_size_at(self, step: int) -> tuple[int, int]:
            return tuple(experiment.task.model.input_size)

        def train_inputs(self, start_step: int, shard: Shard, input_size: tuple[int, int]) -> tf.data.Dataset:
            following = [batch for step, batch in sorted(batches.items()) if step >= start_step]
            whole = tf.nest.map_structure(lambda *each: tf.stack(each), *following)
            return tf.data.Dataset.from_tensor_slices(whole).repeat()

        def facts(self) -> dict[str, Any]:
            return {"model": self.config.model.model_dump(mode="json")}

        def leave_out(self, unreadable: dict[str, str]) -> None:
            pass

        def unreadable(self) -> dict[str, str]:
            return {}

    fed: Task = Fed(task.config, task.seed, experiment.trainer.duration)
    return Run(fed, experiment.trainer, experiment.runtime, place_locally(experiment.runtime), folder)


def _train(run: Run) -> list[float]:
    """The losses of STEPS steps."""
    losses: list[float] = []

    def observe(step: int, loss: float) -> None:
        losses.append(loss)
        if len(losses) == STEPS:
            raise _Enough

    try:
        run.train(observe=observe)
    except _Enough:
        return losses
    raise AssertionError("the run ended by itself")


def values_of(run: Run) -> Values:
    """Everything that the run's variables hold."""
    return Values(*tf.nest.map_structure(lambda one: np.asarray(one, np.float64), tuple(run.variables)))


class Stated:
    """The same steps by the stated formulas."""

    def __init__(self, own: Own, family: Family, run: Run, names: list[str], batches: Mapping[int, Any]) -> None:
        self.own, self.family, self.model, self.batches = own, family, run.model, batches
        self.trainer = own.experiment.trainer
        ranks = [len(variable.shape) for variable in run.model.trainable_variables]
        self.groups = optimisers.groups(names, ranks, self.trainer.layers, own.to_steps)

    def steps(
        self,
        before: Values,
        prepared: Callable[[Any, Any], tuple[Any, Any]] = lambda images, labels: (images, labels),
        is_training: bool = True,
        factor: float = 1.0,
    ) -> tuple[Values, list[float]]:
        """(what is left after them, their losses); a mistake changes what it says on the way."""
        now, losses = before, []
        for batch in self.batches.values():
            parts, statistics = [], now.statistics
            values = []
            for part in self._parts(batch):
                images, labels = prepared(*self.family.prepare(part))
                gradients, statistics, value = self._backward(now, statistics, images, labels, is_training)
                parts.append([factor * one for one in gradients])
                values.append(value)
            former = now.weights, statistics, now.slots, now.average
            done = training.train_step(self.trainer, parts, *former, self.groups, now.step + 1, self.own.to_steps)
            now = Values(now.step + 1, done.weights, statistics, done.slots, done.average)
            losses.append(float(np.mean(values)))
        return now, losses

    def _parts(self, batch: Any) -> Iterator[Any]:
        count = self.trainer.micro_batches
        size = batch.boxes.shape[0] // count
        for number in range(count):
            yield tf.nest.map_structure(lambda one, at=number * size: one[at : at + size], batch)

    def _backward(
        self, now: Values, statistics: list[Array], images: Any, labels: Any, is_training: bool
    ) -> tuple[list[Array], list[Array], float]:
        """(gradients by the weights, the statistics that the pass leaves, the loss) of one micro-batch."""
        kinds = [variable.dtype for variable in self.model.non_trainable_variables]
        weights = [tf.constant(one, tf.float32) for one in now.weights]
        former = [tf.cast(tf.constant(one), kind) for one, kind in zip(statistics, kinds, strict=True)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            image = tf.constant(images, tf.float32)
            outputs, moved = self.model.stateless_call(weights, former, image, training=is_training)
            outputs = tf.nest.flatten(outputs)
        raw = [output.numpy() for output in outputs]
        found = self.family.loss(raw, labels, tuple(image.shape[1:3]), now.step + 1)
        upstream = [tf.constant(one, tf.float32) for one in found.gradients]
        gradients = tape.gradient(outputs, weights, upstream, unconnected_gradients="zero")
        return [one.numpy().astype(float) for one in gradients], [np.asarray(one, float) for one in moved], found.value

    def mistakes(self, before: Values) -> dict[str, Callable[[], Values]]:
        """What would be left with a known mistake, by cause."""
        classes, count = len(self.own.experiment.task.data.classes), self.trainer.micro_batches

        def labelled(change: Callable[[Any], Any]) -> Callable[[], Values]:
            return lambda: self.steps(before, lambda images, labels: (images, change(labels)))[0]

        found = {
            "image_range": lambda: self.steps(before, lambda images, labels: (255 * images, labels))[0],
            "channels_reversed": lambda: self.steps(before, lambda images, labels: (images[..., ::-1], labels))[0],
            "batch_norm_training_mode": lambda: self.steps(before, is_training=False)[0],
            "class_ids_shifted": labelled(lambda truth: truth._replace(classes=(truth.classes + 1) % classes)),
            "class_ids_permuted": labelled(lambda truth: truth._replace(classes=classes - 1 - truth.classes)),
            "resume_state": lambda: self.steps(before._replace(slots=_zeros(before.slots)))[0],
        }
        if count > 1:
            found["loss_scale"] = lambda: self.steps(before, factor=count)[0]
        if self.trainer.moving_average:
            found["moving_average_missing"] = lambda: self.steps(before)[0]._replace(average=before.average)
        return _kept(found)


def _zeros(slots: Mapping[str, list[Array]]) -> dict[str, list[Array]]:
    return {name: [np.zeros_like(one) for one in slot] for name, slot in slots.items()}


def _kept(made: Mapping[str, Callable[[], Values]]) -> dict[str, Callable[[], Values]]:
    """Each is computed once, where something asks for it."""
    done: dict[str, Values] = {}

    def ask(cause: str) -> Values:
        if cause not in done:
            done[cause] = made[cause]()
        return done[cause]

    return {cause: lambda cause=cause: ask(cause) for cause in made}


def _compared(
    case: Case, before: Values, after: Values, right: Values, names: list[str], made: Mapping[str, Callable[[], Values]]
) -> Iterator[Row]:
    """A row for each kind of quantity: the change of all of them, the first layer's first."""
    for name, (ours, theirs, start) in _quantities(names, after, right, before).items():
        others = {cause: lambda one=one, name=name: _quantities(names, one())[name][0] - start for cause, one in made.items()}
        change = theirs - start
        # Of a weight that moves little, rounding to float32 is what is left of the difference.
        bound = BOUND * float(np.abs(change).max(initial=0)) + ROUNDING * float(np.abs(start).max(initial=0))
        yield case.compare(f"step {STEPS} {name}", ours - start, Absolute(bound=bound), change, Clue("steps", "", others))


def _quantities(names: list[str], *values: Values) -> dict[str, tuple[Array, ...]]:
    """Slots, which hold the gradient, then statistics, weights and average; each kind of variable in one row."""
    kinds = [name.rpartition("/")[2] for name in names]

    def of(each: Values) -> dict[str, Array]:
        found = {
            f"slot {slot} of {kind}": _row(one for one, own in zip(arrays, kinds, strict=True) if own == kind)
            for slot, arrays in each.slots.items()
            for kind in dict.fromkeys(kinds)
        }
        found["statistics"] = _row(each.statistics)
        for kind in dict.fromkeys(kinds):
            found[f"weights {kind}"] = _row(one for one, own in zip(each.weights, kinds, strict=True) if own == kind)
        if each.average:
            found["average of weights"] = _row(each.average[: len(names)])
            found["average of statistics"] = _row(each.average[len(names) :])
        return found

    found = [of(each) for each in values]
    return {name: tuple(one[name] for one in found) for name in found[0] if found[0][name].size}


def _row(arrays: Any) -> Array:
    return np.concatenate([np.ravel(one) for one in arrays] or [np.zeros(0)])


def _resumed(case: Case, after: Values, resumed: Values, report: str) -> Iterator[Row]:
    """The second run has, bit for bit, what the first one had when it ended."""
    names = [str(number) for number in range(len(after.weights))]
    clue = Clue("steps", "", {"resume_state": lambda: np.zeros(1)})
    yield case.compare("resumed step", resumed.step, Exact(), after.step, clue)
    for name, (ours, theirs) in _whole(resumed, after).items():
        nothing = {"resume_state": lambda theirs=theirs: np.zeros_like(theirs)}
        yield case.compare(f"resumed {name}", ours, Exact(), theirs, Clue("steps", "", nothing))
    if "resumed from" not in report:
        yield case.fail("resumed", f"the second run did not go on from the checkpoint: {report}")
    del names


def _whole(*values: Values) -> dict[str, tuple[Array, ...]]:
    found = [
        {"weights": _row(each.weights), "statistics": _row(each.statistics), "average": _row(each.average)}
        | {f"slot {name}": _row(slot) for name, slot in each.slots.items()}
        for each in values
    ]
    return {name: tuple(one[name] for one in found) for name in found[0]}
