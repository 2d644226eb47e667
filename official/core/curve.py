"""A run's loss beside the original's, while it trains or afterwards: it may not leave a band around it."""

import csv
import io
import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from official.core.claims import Curve
from official.core.errors import UserError, first_line


class CurveError(UserError):
    """A recorded curve that cannot be used."""


class LeftBandError(UserError):
    """The loss is too far from the original's for this to be the same training."""


class Point(NamedTuple):
    """After `step` updates."""

    step: int
    loss: float


class Beside(NamedTuple):
    """Running means of both at one recorded step, and whether ours is within the band there."""

    step: int
    ours: float
    original: float
    within: bool


def read_curve(path: str) -> list[Point]:
    """Steps and losses, by rising step.

    Raises:
        CurveError: there is no such file, or it is neither CSV with step and loss nor a JSON list of pairs.
    """
    if not tf.io.gfile.exists(path):
        raise CurveError(f"{path}: no such file; expected the original's loss as CSV (step, loss) or JSON")
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        if path.endswith(".json"):
            points = [Point(int(step), float(loss)) for step, loss in json.loads(text)]
        else:
            points = [Point(int(row["step"]), float(row["loss"])) for row in csv.DictReader(io.StringIO(text))]
    except (ValueError, TypeError, KeyError) as error:
        expected = "expected CSV with the columns step and loss, or JSON [[step, loss], ...]"
        raise CurveError(f"{path}: {type(error).__name__} {first_line(error)}; {expected}") from None
    if not points:
        raise CurveError(f"{path}: has no point")
    return sorted(points)


class Comparison:
    """Feeds on our losses one by one, by rising step. The original's is interpolated at our steps."""

    def __init__(self, curve: Curve, original: list[Point]) -> None:
        self.curve = curve
        self._steps, self._losses = (np.array(column) for column in zip(*original, strict=True))
        self._ours, self._theirs = math.nan, math.nan

    def add(self, step: int, loss: float) -> Beside | None:
        """Where ours is now; None beyond the ends of the original's curve."""
        if not self._steps[0] <= step <= self._steps[-1]:
            return None
        self._ours = _smoothed(self._ours, loss, self.curve.smoothing)
        self._theirs = _smoothed(self._theirs, float(np.interp(step, self._steps, self._losses)), self.curve.smoothing)
        near = abs(self._ours - self._theirs) <= self.curve.band * abs(self._theirs)
        return Beside(step, self._ours, self._theirs, step < self.curve.from_step or near)


def watch(curve: Curve) -> Callable[[int, float], None]:
    """What a trainer calls with each step and its loss; it raises LeftBandError where the band is left.

    The file is read now, so that a missing one is an error before the training.
    """
    comparison = Comparison(curve, read_curve(curve.file))

    def observe(step: int, loss: float) -> None:
        now = comparison.add(step, loss)
        if now is not None and not now.within:
            raise LeftBandError(
                f"step {now.step}: the mean loss is {now.ours:.4g}, the original's {now.original:.4g} ({curve.file}), "
                f"beyond the band of {curve.band:.0%}. Find the difference by reproduce.py, or widen "
                "reproduces.curve.band; reproduces.curve.abort=false trains on"
            )

    return observe


def _smoothed(mean: float, value: float, share: float) -> float:
    return value if math.isnan(mean) else share * mean + (1 - share) * value
