"""How much of a difference is left once a suspected mistake is taken into account."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

Array = Shaped[np.ndarray, "..."]  # of any type and shape
Alternatives = Mapping[str, Callable[[], Array]]  # what a number would be with a known mistake, by its cause

_SAME_ROW = 1e-3  # of the largest number: two rows nearer than this are the same detection


class Suspect(NamedTuple):
    """One tested hypothesis. `expected`: what the original would give had it the mistake that ours is suspected of."""

    cause: str
    expected: Array
    tried: str  # in words, with numbers


def error_of(ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"], absmax: float) -> float:
    """max |ours - expected| / absmax; infinite where only one is finite, or the shapes differ."""
    if ours.shape != expected.shape:
        return math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(ours - expected)
    error = np.where((ours == expected) | (np.isnan(ours) & np.isnan(expected)), 0.0, error)
    largest = float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))
    return largest / absmax if absmax else largest


def row_error(ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"]) -> float:
    """Share of the rows [n, columns], [m, columns] without a partner, plus the error of those that have one."""
    if ours.ndim != 2 or expected.ndim != 2 or ours.shape[1] != expected.shape[1]:
        return math.inf
    pairs = partners(ours, expected)
    absmax = size_of(expected)
    error = max((error_of(ours[mine], expected[theirs], absmax) for theirs, mine in pairs.items()), default=0.0)
    alone = len(ours) + len(expected) - 2 * len(pairs)
    return alone / max(1, len(ours) + len(expected)) + error


def partners(
    ours: Shaped[np.ndarray, "ours columns"], expected: Shaped[np.ndarray, "expected columns"]
) -> dict[int, int]:
    """Row of `expected` -> the row of `ours` that is the same detection; each row once, the nearest first."""
    if not (len(ours) and len(expected)):
        return {}
    scale = np.maximum(np.abs(np.nan_to_num(expected)).max(axis=0), 1e-12)
    distance = (np.abs(ours[:, np.newaxis] - expected) / scale).max(axis=-1)  # [ours, expected]
    distance = np.nan_to_num(distance, nan=np.inf)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for flat in np.argsort(distance, axis=None, kind="stable"):
        mine, theirs = divmod(int(flat), len(expected))
        if distance[mine, theirs] > _SAME_ROW:
            break
        if mine not in taken and theirs not in pairs:
            pairs[theirs] = mine
            taken.add(mine)
    return pairs


def size_of(array: Array) -> float:
    """The largest finite |element|."""
    finite = np.isfinite(array)
    return float(np.abs(array[finite]).max(initial=0.0))
