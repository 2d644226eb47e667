"""Likely causes of a difference. A hint is a hypothesis that was tested: its evidence is what is left of the error.

Hypotheses are general, from the two arrays alone (channels reversed, a shift by one place, one factor for all, ...), or
particular: `Clue.alternatives` say what the original would have given with a known mistake in it, and ours may equal
that. What leaves the error as it was is dropped.
"""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import get_args

import numpy as np

from official.core.tolerance import QuantityType
from reproduction.traces.causes.axes import letters
from reproduction.traces.causes.causes import CAUSES, PLACES
from reproduction.traces.causes.heads import of_head
from reproduction.traces.causes.maps import of_maps, of_places, of_values
from reproduction.traces.causes.numbers import of_numbers
from reproduction.traces.causes.residual import Array, Suspect, error_of, row_error, size_of
from reproduction.traces.causes.rows import of_boxes, of_detections
from reproduction.traces.compare import CompareError, Numbers, Stored

QUANTITY_TYPES = get_args(QuantityType)
EXPLAINS = 0.1  # of the error may be left once the cause is taken into account
_ROUNDING = 1e-6  # of the largest number
_FLAT = (
    "layer",
    "parameters",
    "statistics",
    "steps",
    "gradient",
)  # what may be recorded flat, or with axes of length 1


class Hint(Stored):
    """A likely cause. `before` and `after` are the largest error in units of the largest expected number."""

    cause: str  # key of CAUSES
    text: str  # what it looks like, and what to do
    before: float
    after: float  # once the suspected mistake is made in the original's number
    evidence: str  # what was tried, in words with numbers


@dataclass(frozen=True)
class Clue:
    """What is known about a quantity beside its two arrays.

    kind: one of QUANTITY_TYPES.
    layout: a letter for each axis: N image, H row, W column, C channel, A anchor, E entry (x, y, w, h, objectness,
        classes); of boxes and detections the columns, as `cxcywh` or `cxcywh objectness class score`. Empty: guessed.
    alternatives: cause -> what the original would give had it this mistake. After the cause may stand a space and a
        variant: `batch_norm_epsilon 1e-3`. Files of this folder make them, and those of a family's mistakes.
    """

    kind: str
    layout: str = ""
    alternatives: Mapping[str, Callable[[], Numbers]] = field(default_factory=lambda: MappingProxyType({}))


def explain(ours: Numbers, expected: Numbers, clue: Clue) -> tuple[Hint, ...]:
    """The causes that explain a difference, best first; none where the arrays are equal, or nothing explains it.

    Causes proper come before those that only say where the difference is (`causes.PLACES`); among them what leaves the
    least, and of those alike the simpler.

    Raises:
        CompareError: a kind or an alternative that is unknown, or a layout that does not fit.
    """
    _check(clue)
    mine, theirs = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    absmax = size_of(theirs)

    def error(other: Array) -> float:
        return row_error(mine, other) if clue.kind == "detections" else error_of(mine, other, absmax)

    before = error(theirs)
    if not before:
        return ()
    found: dict[str, tuple[tuple, Hint]] = {}
    for rank, suspect in enumerate(_suspects(mine, theirs, clue)):
        cause = suspect.cause.partition(" ")[0]
        after = error(np.asarray(suspect.expected))
        if not after <= EXPLAINS * before or math.isinf(after):
            continue
        key = cause in PLACES, _grade(before, after), rank
        if cause not in found or key < found[cause][0]:
            found[cause] = (
                key,
                Hint(cause=cause, text=CAUSES[cause], before=before, after=after, evidence=suspect.tried),
            )
    return tuple(_told(hint) for _, hint in sorted(found.values(), key=lambda one: one[0]))


def _told(hint: Hint) -> Hint:
    what = f"{hint.evidence}: the error becomes {hint.after:.2g} of the largest number, from {hint.before:.2g}"
    return hint.model_copy(update={"evidence": what})


def _check(clue: Clue) -> None:
    if clue.kind not in QUANTITY_TYPES:
        raise CompareError(f"no kind of quantity {clue.kind!r}; there are {', '.join(QUANTITY_TYPES)}")
    for name in clue.alternatives:
        cause = name.partition(" ")[0]
        if cause not in CAUSES:
            near = difflib.get_close_matches(cause, CAUSES, n=3)
            raise CompareError(f"alternative {name!r}: no cause {cause!r} in the table CAUSES; the nearest: {near}")


def _grade(before: float, after: float) -> int:
    """How well a cause explains, coarsely: what is left by rounding makes no difference. Smaller is better."""
    return round(2 * math.log10(max(after, _ROUNDING) / min(before, 1.0)))


def _suspects(ours: Array, expected: Array, clue: Clue) -> Iterator[Suspect]:
    """What is tried, the simpler first: particular alternatives, then what the arrays alone suggest."""
    for name, compute in clue.alternatives.items():
        given = np.asarray(compute(), np.float64)
        if given.size == expected.size and given.shape != expected.shape and clue.kind in _FLAT:
            given = given.reshape(expected.shape)
        yield Suspect(name, given, f"the original's number computed anew with this mistake ({name})")
    if clue.kind == "detections":
        yield from of_detections(ours, expected, clue.layout)
    if clue.kind in ("boxes", "detections"):
        yield from of_boxes(ours, expected)
        return
    layout = letters(expected, clue.kind, clue.layout)
    if clue.kind in ("loss", "gradient", "statistics", "steps", "schedule", "score"):
        yield from of_numbers(ours, expected, clue.kind)
    if ours.shape == expected.shape and clue.kind in ("head", "gradient"):
        yield from of_head(ours, expected, layout, clue.kind)
    yield from of_maps(ours, expected, layout)
    if ours.shape == expected.shape:
        yield from of_values(ours, expected, clue.kind)
        yield from of_places(ours, expected, layout)
