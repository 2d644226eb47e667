"""Comparisons that leave out what rounding alone moves near their bound, and say how much that is."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool

from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Numbers, Tolerance

NOISES = 2  # drawn to see what rounding moves
MOST_OPEN = 0.5  # of a quantity: with more of it left out, the rest says too little


def compare_decided(
    case: Case,
    name: str,
    ours: Numbers,
    tolerance: Tolerance,
    expected: Numbers,
    clue: Clue,
    is_open: Bool[np.ndarray, "*open"],
    what: Literal["numbers", "boxes"],
) -> Row:
    """The row of a quantity without what is open; skipped where that is most of it.

    is_open: as the arrays are, or with a last axis of 1. what: is counted by its elements.
    """
    left_out = f"{is_open.sum()} of {is_open.size} {what} left out: rounding moves them near the bound"
    if is_open.mean() > MOST_OPEN:
        return case.skip(name, left_out)
    causes = {cause: lambda one=one: np.where(is_open, 0, one()) for cause, one in clue.alternatives.items()}
    ours, expected = (np.where(is_open, 0, each) for each in (ours, expected))
    row = case.compare(name, ours, tolerance, expected, dataclasses.replace(clue, alternatives=causes))
    notes = [row.note, left_out if is_open.any() else ""]
    return row.model_copy(update={"note": "; ".join(filter(None, notes))})
