"""How far one quantity is from the original's: measured once, judged by any tolerance, now or later.

`measure` compares two arrays of the same shape element by element; `measure_rows` compares rows whose order means
nothing. Either gives `Metrics`, which keep what every tolerance needs and serialise to JSON, so that a stored
measurement can be judged again, by another bound or another kind of bound, without the arrays.

A tolerance bounds |ours - expected| of each element. It is one line in a plane: beside |expected|, no error may lie
above it. The errors that can be the first to touch such a line, whatever its height and slope, are the corners of the
errors' upper left hull: a dozen of a million. `Metrics.frontier` keeps these with their positions and values.

NaN in one array only is a failure, and so is infinity that the other does not have; NaN in both at the same place is
counted and said. Shapes that differ are an error: nothing is transposed or broadcast.
"""

import math

import numpy as np
import pydantic
from numpy.typing import ArrayLike
from pydantic import Field, NonNegativeInt

from official.core.errors import UserError
from official.core.tolerance import (
    Absolute,
    AbsoluteAndRelative,
    Exact,
    OfAbsmax,
    Relative,
    SameSet,
    Tolerance,
)

QUANTILES = (0.5, 0.9, 0.99)
Numbers = ArrayLike | float | int  # what NumPy makes an array of: also a list, or a tensor


class CompareError(UserError):
    """Two arrays that cannot be compared."""


class Stored(pydantic.BaseModel):
    """Base of what is measured and stored: immutable, and equal after a round trip through JSON, infinity included."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Extreme(Stored):
    """One element: where it is, what it is in both arrays, and |ours - expected| (in float64)."""

    position: tuple[NonNegativeInt, ...]
    ours: float
    expected: float
    error: float


class Metrics(Stored):
    """The difference of two arrays. Errors are of the elements finite in both; in float64, in the arrays' own unit."""

    shape: tuple[NonNegativeInt, ...] = Field(description="Of both arrays; of rows: those that were matched.")
    absmax: float = Field(description="The largest |expected|.")
    different: NonNegativeInt = Field(description="Elements that are not equal.")
    nan_in_both: NonNegativeInt = 0
    one_not_finite: NonNegativeInt = Field(0, description="NaN or infinity that the other array does not have there.")
    first_not_finite: tuple[NonNegativeInt, ...] | None = None
    only_ours: NonNegativeInt = Field(0, description="Rows without a partner.")
    only_expected: NonNegativeInt = 0
    frontier: tuple[Extreme, ...] = Field(description="By rising |expected| and error; empty where all are equal.")
    cosine: float = Field(description="Of the angle between the arrays as vectors; 1 where both are zero.")
    rms: float = Field(description="Root of the mean squared error.")
    quantiles: dict[str, float] = Field(description="Of |ours - expected|.")

    @property
    def max_abs(self) -> float:
        """The largest |ours - expected|."""
        return self.frontier[-1].error if self.frontier else 0.0

    @property
    def max_of_absmax(self) -> float:
        """The largest error, in units of the largest |expected|."""
        return _ratio(self.max_abs, self.absmax)

    @property
    def max_relative(self) -> float:
        """The largest |ours - expected| / |expected|; infinite where a zero is missed."""
        return max((_ratio(point.error, abs(point.expected)) for point in self.frontier), default=0.0)


class Verdict(Stored):
    """Passed or not: the error in the tolerance's own measure, the bound it had to keep, and what to look at."""

    passed: bool
    error: float
    bound: float
    note: str = ""


def measure(name: str, ours: Numbers, expected: Numbers) -> Metrics:
    """Compares two arrays of numbers or truth values, of the same shape, element by element.

    Args:
        name: of the quantity, for the error.

    Raises:
        CompareError: the shapes differ, or an array holds something else than numbers.
    """
    ours, expected = np.asarray(ours), np.asarray(expected)
    for values in (ours, expected):
        if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
            raise CompareError(f"{name}: expected an array of numbers, found {values.dtype}")
    if ours.shape != expected.shape:
        same = " (the same lengths in another order: another layout?)" if _same_lengths(ours, expected) else ""
        raise CompareError(f"{name}: expected shape {expected.shape}, ours is {ours.shape}{same}")
    different = int(np.count_nonzero(~((ours == expected) | _both_nan(ours, expected))))
    a, b = np.atleast_1d(ours).astype(np.float64), np.atleast_1d(expected).astype(np.float64)
    both_nan = _both_nan(a, b)
    finite = np.isfinite(a) & np.isfinite(b)
    broken = ~finite & ~both_nan & (a != b)  # equal infinities are neither broken nor in the errors
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(a - b)
        some = error[finite] if finite.any() else np.zeros(1)
        rms = float(np.sqrt(np.mean(some**2)))
        quantiles = {str(share): float(np.quantile(some, share)) for share in QUANTILES}
    return Metrics(
        shape=ours.shape,
        absmax=float(np.abs(b).max(initial=0.0)),
        different=different,
        nan_in_both=int(both_nan.sum()),
        one_not_finite=int(broken.sum()),
        first_not_finite=_position(int(np.argmax(broken)), ours.shape) if broken.any() else None,
        frontier=_frontier(a, b, error, ours.shape),
        cosine=_cosine(a, b),
        rms=rms,
        quantiles=quantiles,
    )


def measure_rows(name: str, ours: Numbers, expected: Numbers) -> Metrics:
    """Compares rows [n, columns] with rows [m, columns] whose order means nothing: detections after NMS.

    Partners are found from the closest pair on, by the largest difference of a column. Positions in the result count
    the pairs, in the order of `expected`; n and m may differ, and the rows left over are counted.

    Raises:
        CompareError: not two matrices with the same columns.
    """
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    if ours.ndim != 2 or expected.ndim != 2 or ours.shape[1] != expected.shape[1]:
        raise CompareError(f"{name}: expected rows with the same columns, ours {ours.shape} beside {expected.shape}")
    pairs = _pair_rows(ours, expected)
    metrics = measure(name, ours[[pairs[row] for row in sorted(pairs)]], expected[sorted(pairs)])
    only = {"only_ours": len(ours) - len(pairs), "only_expected": len(expected) - len(pairs)}
    return metrics.model_copy(update=only)


def judge(metrics: Metrics, tolerance: Tolerance) -> Verdict:
    """Whether a measurement, fresh or stored, keeps a tolerance. A verdict on nothing at all says so."""
    worst, error, bound = _against(metrics, tolerance)
    notes = []
    if metrics.one_not_finite:
        notes.append(f"{metrics.one_not_finite} NaN or infinite in one only, first at {list(metrics.first_not_finite)}")
    if metrics.only_ours or metrics.only_expected:
        notes.append(f"{metrics.only_ours} rows are ours only, {metrics.only_expected} the original's only")
    passed = error <= bound and not notes
    if error > bound and worst:
        notes.append(f"at {list(worst.position)}: ours {worst.ours:.9g}, expected {worst.expected:.9g}")
    if metrics.nan_in_both:
        notes.append(f"NaN in both at {metrics.nan_in_both} places")
    if not math.prod(metrics.shape):
        notes.append("no element to compare")
    return Verdict(passed=passed, error=error, bound=bound, note="; ".join(notes))


def _against(metrics: Metrics, tolerance: Tolerance) -> tuple[Extreme | None, float, float]:
    """(the element nearest to the bound, or farthest beyond; its error; the bound), in the tolerance's measure."""
    largest = metrics.frontier[-1] if metrics.frontier else None
    match tolerance:
        case Absolute() | SameSet():
            return largest, metrics.max_abs, tolerance.bound
        case OfAbsmax():
            return largest, metrics.max_of_absmax, tolerance.bound
        case Exact():
            return largest, float(metrics.different), 0.0
        case Relative():
            worst = _worst(metrics, 0.0, 1.0)
            return worst, metrics.max_relative, tolerance.bound
        case AbsoluteAndRelative():
            worst = _worst(metrics, tolerance.absolute, tolerance.relative)
            size = abs(worst.expected) if worst else 0.0
            return worst, worst.error if worst else 0.0, tolerance.absolute + tolerance.relative * size


def _worst(metrics: Metrics, absolute: float, relative: float) -> Extreme | None:
    return max(metrics.frontier, key=lambda at: _ratio(at.error, absolute + relative * abs(at.expected)), default=None)


def _frontier(ours: np.ndarray, expected: np.ndarray, error: np.ndarray, shape: tuple[int, ...]) -> tuple[Extreme, ...]:
    """The corners of the upper left hull of the points (|expected|, error), from the left to the largest error."""
    size, height = np.abs(expected).ravel(), error.ravel()
    order = np.lexsort((-height, size))
    best = np.maximum.accumulate(np.concatenate([[0.0], height[order]]))
    rising = order[height[order] > best[:-1]]  # larger than every error at a smaller |expected|
    hull: list[int] = []
    for index in rising.tolist():
        while len(hull) > 1 and _below(size, height, hull[-2], hull[-1], index):
            hull.pop()
        hull.append(index)
    return tuple(
        Extreme(
            position=_position(index, shape),
            ours=float(ours.flat[index]),
            expected=float(expected.flat[index]),
            error=float(height[index]),
        )
        for index in hull
    )


def _below(x: np.ndarray, y: np.ndarray, left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or below the line through the other two."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((y[middle] - y[left]) * (x[right] - x[left]) <= (y[right] - y[left]) * (x[middle] - x[left]))


def _pair_rows(ours: np.ndarray, expected: np.ndarray) -> dict[int, int]:
    """Row of `expected` -> row of `ours`, from the closest pair on."""
    distance = np.zeros((len(ours), len(expected)))
    for mine, theirs in zip(ours.T, expected.T, strict=True):
        with np.errstate(invalid="ignore"):
            column = np.abs(mine[:, np.newaxis] - theirs)
        distance = np.maximum(distance, np.where(np.isnan(column), np.inf, column))
    pairs: dict[int, int] = {}
    taken = set()
    for flat in np.argsort(distance, axis=None, kind="stable").tolist():
        mine, theirs = divmod(flat, len(expected))
        if mine not in taken and theirs not in pairs:
            pairs[theirs] = mine
            taken.add(mine)
    return pairs


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    # Divided by the largest element first: the square of a float64 may not be one.
    a, b = (values.ravel() / max(np.abs(values).max(initial=0.0), np.finfo(np.float64).tiny) for values in (a, b))
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    if lengths == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(a @ b) / lengths


def _ratio(error: float, size: float) -> float:
    return error / size if size else (math.inf if error else 0.0)


def _both_nan(a: np.ndarray, b: np.ndarray) -> np.ndarray | np.bool:
    return (a != a) & (b != b)


def _same_lengths(a: np.ndarray, b: np.ndarray) -> bool:
    return sorted(a.shape) == sorted(b.shape)


def _position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.unravel_index(index, shape)) if shape else ()
