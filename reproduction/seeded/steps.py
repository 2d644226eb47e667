"""Gate 9: the trainer itself runs a few steps of the experiment, and goes on from its own checkpoint.

The task is the experiment's, but for its input stream: the batches are seeded bytes. The other side computes each step
from what the run held before it, by the stated formulas: pixels, labels, the loss's gradient, the mean over
micro-batches, clipping, update and average are restated; only the network, forward and backward, is the same one,
called by hand and in training mode. The network is built in float64: in float32, rounding turns leaky ReLUs over.
"""

import contextlib
import functools
import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from configs.experiment import Experiment
from official.core.checkpoint import find_checkpoint
from official.core.config_io import check_config, override
from official.core.distribution import place_locally
from official.core.initialise import load_trained
from official.core.task import HostShare, Task
from official.core.trainer import Run
from reproduction.experiment.own import EPOCH, Own
from reproduction.experiment.subject import Subject
from reproduction.seeded.family import Family
from reproduction.seeded.stated_step import Array, Before, Stated, Values, some_of
from reproduction.seeded.updates import without_draws
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Exact, OfAbsmax, Relative
from reproduction.traces.precision import graphs_as_written, precision

STEPS = 2  # the second one sees what the first has left in the optimiser
CHANGE = OfAbsmax(bound=1e-5)  # losses are float32 in every run
LEAST_GRADIENT = 0.1  # of the largest of a variable: below it Adam's weights are not compared, its moments are
LOSS = Relative(bound=1e-5)


class _EnoughError(Exception):
    """The steps that are compared are done."""


def steps(case: Case, subject: Subject) -> Iterator[Row]:
    """Loss, weights, statistics, slots and average after the run's steps; then what a second run resumes with."""
    own = _prepared(subject.own.small)
    family = own.family
    start = _start(own)
    batches = {start + number: _batch(family, number) for number in range(STEPS + 1)}  # one more for who goes on
    with precision("float64"), graphs_as_written(), tempfile.TemporaryDirectory() as folder:
        run = _run(own, batches, folder)
        run.variables.step.assign(start)
        held, rows = [before_next(run)], []
        stated = Stated(own, family, run.model)

        def observe(step: int, loss: float) -> None:
            before, after = held.pop(), values_of(run)
            rows.extend(_of_step(case, stated, before, after, batches[before.values.step], loss, step - start))
            del before  # large
            if step == start + STEPS:
                raise _EnoughError
            held.append(before_next(run))

        with contextlib.suppress(_EnoughError):
            run.train(observe=observe)
        yield from rows
        left = fingerprints(run)
        evaluated = run.variables.average or [*run.variables.weights, *run.variables.statistics]
        paths = [one.path for one in (*run.model.trainable_variables, *run.model.non_trainable_variables)]
        yield from _evaluated(case, own, folder, dict(zip(paths, evaluated, strict=True)))
        del run, stated, evaluated
        gc.collect()  # a run refers to itself; with the second one it would be held twice
        again = _run(own, batches, folder)
        fresh = fingerprints(again)
        report = again.resume_or_initialise()
        yield from _resumed(case, left, fingerprints(again), fresh, report)
        following = next(again.inputs())
        expected = batches[start + STEPS].image
        others = {"resume_state": lambda: batches[start].image.numpy()}
        yield case.compare("resumed data", following.image, Exact(), expected, Clue("image", "", others))
    own.note("training step", "resume", "task.loss", "label assignment", "pixels", "task.model.head")


def _prepared(small: Own) -> Own:
    """The small copy, for a run that stops after every step, saves after the last one and is silent on the way."""
    last = f"{{steps: {_start(small) + STEPS}}}"
    sets = ["trainer.steps_per_loop=1", f"trainer.checkpoint.every={last}", "trainer.summary_every={steps: 1000000}"]
    data = small.experiment.model_dump(mode="json", exclude_none=True)
    data["trainer"].pop("initialise", None)
    data["trainer"].pop("evaluate_every", None)
    schedule = without_draws(small.experiment.trainer).schedule
    data["trainer"]["schedule"] = schedule.model_dump(mode="json", exclude_none=True)
    changed = check_config(override(data, sets), Experiment, "the experiment, for a few steps")
    return Own(changed, small.original, small.called)


def _start(own: Own) -> int:
    """Steps that count as done: beyond the warm-up, where the rate is large enough to move a weight."""
    trainer = own.experiment.trainer
    total = own.to_steps(trainer.duration)
    average = trainer.moving_average
    begins = own.to_steps(average.start) if average and average.start else 0
    return max(total // 3, min(begins + 2, total - STEPS))


def _size(own: Own, number: int) -> tuple[int, int]:
    """The input of step `number` from the first compared one on: with multi-scale training the second has another."""
    task = own.experiment.task
    height, width = task.model.input_size
    return (height + 32, width + 64) if task.data.train.multi_scale and number == 1 else (height, width)


def _batch(family: Family, number: int) -> Any:
    """As many examples as a step has: the images of several draws of labels, one after the other."""
    wanted, size = family.own.experiment.task.data.train.batch_size, _size(family.own, number)
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
            return tuple(batches[min(step, max(batches))].image.shape[1:3])

        def train_inputs(self, start_step: int, shard: HostShare, input_size: tuple[int, int]) -> tf.data.Dataset:
            sized = [(step, one) for step, one in sorted(batches.items()) if tuple(one.image.shape[1:3]) == input_size]
            following = [batch for step, batch in sized if step >= start_step]
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


def before_next(run: Run) -> Before:
    """What the run's next step starts from."""
    weights = [tf.identity(one) for one in run.variables.weights]
    return Before(values_of(run), weights, [np.array(one, np.float64) for one in run.variables.statistics])


def values_of(run: Run) -> Values:
    """What is compared of the run's variables."""
    _, *held = tf.nest.map_structure(some_of, tuple(run.variables))
    return Values(run.step, *held)


def fingerprints(run: Run) -> dict[str, list[str]]:
    """A digest of each of the run's variables, bit for bit, by what they are."""
    step, weights, statistics, slots, average = run.variables
    groups = {"step": [step], "weights": weights, "statistics": statistics, "average": average, **slots}
    return {
        name: [hashlib.sha256(np.ascontiguousarray(one)).hexdigest() for one in group] for name, group in groups.items()
    }


def _settled(values: Values, right: Values) -> Values:
    """The values, 0 where rounding alone gives Adam's direction: where the gradients so far are next to nothing."""
    if "second_moment" not in right.slots:
        return values
    sizes = [np.sqrt(one) for one in right.slots["second_moment"]]
    clear = [size >= LEAST_GRADIENT * size.max(initial=0) for size in sizes]
    weights = [one * where for one, where in zip(values.weights, clear, strict=True)]
    average = [one * where for one, where in zip(values.average, clear, strict=False)]
    return values._replace(weights=weights, average=[*average, *values.average[len(average) :]])


def _of_step(
    case: Case, stated: Stated, before: Before, after: Values, batch: Any, loss: float, number: int
) -> Iterator[Row]:
    """What step `number` has changed, by the run and by the formulas."""
    right, made, names = stated.step(before, batch), stated.mistakes(before, batch), stated.names
    losses = {cause: lambda one=one: np.array(one().loss) for cause, one in made.items()}
    yield case.compare(f"step {number} loss", loss, LOSS, right.loss, Clue("loss", "", losses))
    after, start, right = (_settled(each, right) for each in (after, before.values, right))
    for name, (ours, theirs, former) in _quantities(names, after, right, start).items():

        def changed(one: Callable[[], Values], name: str = name, former: Array = former) -> Array:
            return _quantities(names, _settled(one(), right))[name][0] - former

        others = {cause: functools.partial(changed, one) for cause, one in made.items()}
        clue = Clue("steps", "", others)
        yield case.compare(f"step {number} {name}", ours - former, CHANGE, theirs - former, clue)


def _quantities(names: list[str], *values: Values) -> dict[str, tuple[Array, ...]]:
    """Slots, which hold the gradient, then statistics, weights and average; all variables of a kind in one row."""
    kinds = [name.rpartition("/")[2] for name in names]

    def of(each: Values) -> dict[str, Array]:
        found = {
            f"slot {slot} of {kind}": _joined(one for one, own in zip(arrays, kinds, strict=True) if own == kind)
            for slot, arrays in each.slots.items()
            for kind in dict.fromkeys(kinds)
        }
        found["statistics"] = _joined(each.statistics)
        for kind in dict.fromkeys(kinds):
            found[f"weights {kind}"] = _joined(one for one, own in zip(each.weights, kinds, strict=True) if own == kind)
        found["average of weights"] = _joined(each.average[: len(names)])
        found["average of statistics"] = _joined(each.average[len(names) :])
        return found

    found = [of(each) for each in values]
    return {name: tuple(one[name] for one in found) for name in found[0] if found[0][name].size}


def _joined(arrays: Iterable[Array]) -> Array:
    """All of them in one row."""
    return np.concatenate([*arrays] or [np.zeros(0)])


def _evaluated(case: Case, own: Own, folder: str, held: Mapping[str, tf.Variable]) -> Iterator[Row]:
    """What evaluation and export load of the run's checkpoint: its average where it keeps one, else its weights."""
    model = own.task.build_model()
    load_trained(model, find_checkpoint(folder), own.task)
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    differing = [float(not np.array_equal(variable, held[variable.path])) for variable in variables]
    yield case.compare("evaluated weights: differs", differing, Exact(), np.zeros(len(differing)), Clue("steps"))


Digests = Mapping[str, list[str]]


def _resumed(case: Case, after: Digests, resumed: Digests, fresh: Digests, report: str) -> Iterator[Row]:
    """The second run has, bit for bit, what the first one had when it ended: which variables differ.

    fresh: what the second run had before it resumed.
    """
    if "resumed from" not in report:
        yield case.fail("resumed", f"the second run did not go on from the checkpoint of the first: {report}")
    for name, former in after.items():
        differing, forgotten = (
            np.array([float(one != other) for one, other in zip(each[name], former, strict=True)])
            for each in (resumed, fresh)
        )
        clue = Clue("steps", "", {"resume_state": lambda forgotten=forgotten: forgotten})
        if differing.size:
            yield case.compare(f"resumed {name}: differs", differing, Exact(), np.zeros(len(differing)), clue)
