"""Likely causes of a difference. A hint is a hypothesis that was tested: its evidence is what is left of the error.

Hypotheses are general, from the two arrays alone (channels reversed, a shift by one place, one factor for all, ...), or
particular: `Clue.alternatives` say what the original would have given with a known mistake in it, and ours may equal
that. What leaves the error as it was is dropped.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from reproduction.compare import Numbers, Stored
from reproduction.hints.causes import CAUSES
from reproduction.hints.residual import Suspect, error_of, size_of

KINDS = (
    *("image", "layer", "head", "boxes", "detections", "loss", "gradient", "targets", "parameters", "statistics"),
    *("schedule", "steps", "score"),
)
EXPLAINS = 0.1  # of the error may be left once the cause is taken into account


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

    kind: one of KINDS.
    layout: a letter for each axis: N image, H row, W column, C channel, A anchor, E entry (x, y, w, h, objectness,
        classes); of boxes and detections the columns, as `cxcywh` or `cxcywh objectness class score`. Empty: guessed.
    alternatives: cause -> what the original would give had it this mistake; called only if asked for.
    """

    kind: str
    layout: str = ""
    alternatives: Mapping[str, Callable[[], Numbers]] = field(default_factory=lambda: MappingProxyType({}))


def explain(ours: Numbers, expected: Numbers, clue: Clue) -> tuple[Hint, ...]:
    """The causes that explain a difference, best first; none where the arrays are equal, or nothing explains it."""
    mine, theirs = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    absmax = size_of(theirs)
    before = error_of(mine, theirs, absmax)
    if not before:
        return ()
    found: dict[str, tuple[tuple[float, int], Hint]] = {}
    for rank, suspect in enumerate(_suspects(mine, theirs, clue)):
        after = error_of(mine, suspect.expected, absmax)
        if not after <= EXPLAINS * before or math.isinf(after):
            continue
        hint = Hint(
            cause=suspect.cause, text=CAUSES[suspect.cause], before=before, after=after,
            evidence=f"{suspect.tried}: error {before:.2g} becomes {after:.2g} of the largest",
        )  # fmt: skip
        key = (_grade(before, after), rank)
        if suspect.cause not in found or key < found[suspect.cause][0]:
            found[suspect.cause] = key, hint
    return tuple(hint for _, hint in sorted(found.values(), key=lambda one: one[0]))


def _grade(before: float, after: float) -> float:
    """How well a cause explains, coarsely: what is left by rounding makes no difference. Smaller is better."""
    left = 0.0 if math.isinf(before) else after / before
    return round(2 * math.log10(max(left, 1e-3)))


def _suspects(ours: np.ndarray, expected: np.ndarray, clue: Clue) -> Iterator[Suspect]:
    """What is tried, the simpler first."""
    for cause, compute in clue.alternatives.items():
        yield Suspect(cause, np.asarray(compute(), np.float64), f"the original computed with {cause}")
    if ours.shape == expected.shape and ours.ndim:
        yield Suspect("gradient_sign", -expected, "the sign turned")
        for axis in range(ours.ndim):
            if expected.shape[axis] > 1:
                yield Suspect("channels_reversed", np.flip(expected, axis), f"axis {axis} reversed")
