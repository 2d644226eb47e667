"""Gates 3, 5 and 6: the experiment's decoder, assignment and loss on seeded outputs, beside the stated formulas."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from official.core.task import Moment, Scalar, Scalars
from reproduction.experiment.subject import Subject
from reproduction.seeded.family import Family, Outputs, Size, Stated
from reproduction.seeded.rounding import NOISES, compare_decided
from reproduction.traces.case import NEAR, Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import AbsoluteAndRelative, Exact, Numbers, OfAbsmax, Relative

VALUE = Relative(bound=1e-5)
GRADIENT = OfAbsmax(bound=1e-5)
BOXES = AbsoluteAndRelative(absolute=2e-6, relative=1e-5)
STEP = 100_000  # number of the update: beyond what a loss does at first
ROUNDING = 2.0**-22  # of an output: about what the float32 steps of a loss add up to


class Inputs(NamedTuple):
    """Seeded inputs of one size."""

    outputs: Outputs
    labels: Any
    size: Size


def inputs_of(family: Family, size: Size) -> Inputs:
    """From the experiment's seed alone."""
    rng = np.random.default_rng(family.own.experiment.runtime.seed)
    labels = family.labels(rng)
    return Inputs(family.outputs(labels, size, rng), labels, size)


def sizes_of(family: Family) -> list[Size]:
    """The experiment's own input size; where it trains at several, another one that is not a multiple of that."""
    task = family.own.experiment.task
    size = tuple(task.model.input_size)
    if task.data.train.multi_scale is None:
        return [size]
    return [size, (size[0] + 32, size[1] + 64)]


def decoding(case: Case, subject: Subject) -> Iterator[Row]:
    """Boxes and scores of the experiment's decoder, at its own input size."""
    family = subject.own.family
    given = inputs_of(family, sizes_of(family)[0])
    maps = family.maps(given.outputs)
    boxes, scores = subject.own.decode([tf.constant(each) for each in maps])
    expected = family.decode(maps, given.size)
    others = family.decoding_mistakes()
    for place, (name, ours) in enumerate((("boxes", boxes), ("scores", scores))):
        made = {cause: lambda one=one, at=place: one(maps, given.size)[at] for cause, one in others.items()}
        yield case.compare(name, ours, BOXES, expected[place], Clue("head", "", made))


def loss(case: Case, subject: Subject) -> Iterator[Row]:
    """Value, parts, and the gradient by every output, of the loss that training minimises."""
    family = subject.own.family
    for size in sizes_of(family):
        given = inputs_of(family, size)
        value, parts, gradients = differentiated(subject, given)
        stated = family.loss(given.outputs, given.labels, size, STEP)
        others = _computed_once(family, given)
        undecided = family.undecided(given.outputs, given.labels, size)
        at = f" at {size[0]} x {size[1]}" if len(sizes_of(family)) > 1 else ""
        moved = functools.cache(functools.partial(_moved_by_rounding, family, given, stated))
        for group in family.groups(given.outputs):
            clue = Clue("gradient", "", _of_group(others, group, undecided))
            kept = functools.partial(_kept, group=group, undecided=undecided)
            yield _of_gradient(case, f"gradient of {group.name}{at}", kept, gradients, stated, clue, moved)
        if not any(each.any() for each in undecided):
            yield case.compare(f"loss{at}", value, VALUE, stated.value, Clue("loss"))
            for name in sorted(set(parts) & set(stated.parts)):
                yield case.compare(f"{name}{at}", parts[name], VALUE, stated.parts[name], Clue("loss"))


def _of_gradient(
    case: Case,
    name: str,
    kept: Callable[[Any], Numbers],
    gradients: Outputs,
    stated: Stated,
    clue: Clue,
    moved: Callable[[], list[Numbers]],
) -> Row:
    """One group's gradient. Near the bound, what rounding alone moves by a third of it is left out, and counted.

    A loss computes in float32. Where truth and prediction nearly cancel, or two thin boxes hardly meet, the formula
    itself makes more of a rounded output than the bound allows.

    kept: the group's numbers of a whole gradient. moved: how far rounding moves each; asked near the bound alone.
    """
    ours, expected = kept(gradients), kept(stated.gradients)
    row = case.compare(name, ours, GRADIENT, expected, clue)
    if row.error is None or row.error <= NEAR * row.bound:
        return row
    is_open = kept(moved()) > NEAR * GRADIENT.bound * np.abs(expected).max(initial=0)
    if not is_open.any():
        return row
    return compare_decided(case, name, ours, GRADIENT, expected, clue, is_open, "numbers")


def _moved_by_rounding(family: Family, given: Inputs, stated: Stated) -> list[Numbers]:
    """How far each number of the formulas' gradient moves where outputs and boxes are rounded otherwise."""
    moved = [np.zeros(one.shape) for one in stated.gradients]
    for seed in range(NOISES):
        rng = np.random.default_rng(seed)
        outputs = [each * (1 + ROUNDING * rng.standard_normal(each.shape)) for each in given.outputs]
        labels = family.nudged(given.labels, ROUNDING, rng)
        found = family.loss(outputs, labels, given.size, STEP).gradients
        apart = [np.abs(one - right) for one, right in zip(found, stated.gradients, strict=True)]
        moved = [np.maximum(most, one) for most, one in zip(moved, apart, strict=True)]
    return moved


def differentiated(subject: Subject, given: Inputs) -> tuple[Scalar, Scalars, list[Float[np.ndarray, "batch ..."]]]:
    """(value, parts, gradients by the outputs) of the experiment's loss."""
    outputs = [tf.constant(each) for each in given.outputs]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        moment = Moment(tf.constant(STEP, tf.int64), given.size)
        value, parts = subject.own.loss(outputs, given.labels, moment)
    return value, parts, [each.numpy() for each in tape.gradient(value, outputs, unconnected_gradients="zero")]


def _computed_once(family: Family, given: Inputs) -> Mapping[str, Callable[[], Stated]]:
    """Each mistake's formulas, computed at the first failure that asks for them."""
    kept: dict[str, Stated] = {}

    def ask(cause: str, make: Callable) -> Stated:
        if cause not in kept:
            kept[cause] = make(*given)
        return kept[cause]

    return {cause: lambda cause=cause, make=make: ask(cause, make) for cause, make in family.mistakes().items()}


def _of_group(others: Mapping[str, Callable[[], Stated]], group: Any, undecided: Any) -> dict[str, Callable]:
    return {cause: lambda one=one: _kept(one().gradients, group, undecided) for cause, one in others.items()}


def _kept(gradients: Any, group: Any, undecided: Any) -> Numbers:
    """One group's gradient, an image's in a row; 0 where a decision is open."""
    gradient = np.asarray(gradients[group.output])[..., group.entries]
    kept = np.where(undecided[group.output][..., np.newaxis], 0, gradient)
    return kept.reshape(len(kept), -1)


def assignment(case: Case, subject: Subject) -> Iterator[Row]:
    """What the loss asks of each prediction, read off its gradient: positives, those that are ignored, classes."""
    family = subject.own.family
    reason = family.hidden()
    if reason:
        yield case.skip("assignment", reason)
        return
    given = inputs_of(family, sizes_of(family)[0])
    *_, gradients = differentiated(subject, given)
    stated = family.loss(given.outputs, given.labels, given.size, STEP)
    others = _computed_once(family, given)
    undecided = family.undecided(given.outputs, given.labels, given.size)

    def read(gradients: Any, number: int) -> Mapping[str, np.ndarray]:
        """Of what is decided."""
        found = family.assigned(gradients[number], given.outputs[number], number)
        open_ = undecided[number]
        return {
            name: one & ~(open_ if one.ndim == open_.ndim else open_[..., np.newaxis]) for name, one in found.items()
        }

    for number in range(len(given.outputs)):
        ours, expected = (read(each, number) for each in (gradients, stated.gradients))
        for name in expected:
            if name not in ours:
                reason = f"the loss asks nothing at all that would tell what is {name}; gate 6 compares it"
                yield case.skip(f"output {number} {name}", reason)
                continue
            made = {
                cause: lambda one=one, n=number, name=name: read(one().gradients, n).get(name, np.zeros(0))
                for cause, one in others.items()
            }
            clue = Clue("targets", "", made)
            yield case.compare(f"output {number} {name}", ours[name], Exact(), expected[name], clue)
    subject.own.note("label assignment")
