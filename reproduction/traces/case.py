"""Cases and rows: what a check finds in files, and how each quantity of it came out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from official.core.errors import UserError
from reproduction.traces.causes import Clue, Hint, explain
from reproduction.traces.compare import (
    Metrics,
    Numbers,
    SameSet,
    Stored,
    Tolerance,
    Verdict,
    judge,
    measure,
    measure_rows,
)
from reproduction.traces.trace import Trace, read_trace
from reproduction.traces.worst_map import Maps, worst_map

HINTED = 6  # failing quantities of a case that are explained: hypotheses cost time, and the first ones matter
NEAR = 1 / 3  # of a bound: rounding above this share of it could turn a verdict
ALONE = "alone/"  # before the names of what was computed from what the original recorded before it


class Row(Stored):
    """One quantity of one case. With `metrics` it can be judged again by another tolerance."""

    case: str
    quantity: str
    outcome: Literal["pass", "fail", "skip"]
    error: float | None = Field(None, description="In the tolerance's own measure.")
    bound: float | None = None
    noise: float | None = Field(
        None,
        description="How far ours in float32 is from ours in float64, in the tolerance's own measure.",
    )
    note: str = ""
    check: str = Field("", description="The check that compared it.")
    kind: str = Field("", description="Of the quantity, as hints call it: layer, gradient, ...; empty: not said.")
    precision: str = Field("", description="The coarser of the two arrays' floating types; empty for whole numbers.")
    tolerance: Tolerance | None = None
    metrics: Metrics | None = None
    hints: tuple[Hint, ...] = Field((), description="Likely causes of a failure, best first.")
    maps: Maps | None = Field(None, description="Of a failure: where it is largest, both arrays side by side.")

    @property
    def share_of_bound(self) -> float:
        """How near the error is to the bound, for finding the worst row; failures without a number come first."""
        if self.error is None:
            return float("inf") if self.outcome == "fail" else -1.0
        return self.error / self.bound if self.bound else self.error


@dataclass(frozen=True)
class Case:
    """One case: a file, or a part of one."""

    path: Path
    part: str = ""
    assets: Path | None = None
    about: str = ""  # what its arrays are unless said otherwise: a kind of clue
    explained: list[str] = field(default_factory=list, compare=False)  # quantities that hints were looked for
    computed: dict[Callable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"{self.path.stem}/{self.part}" if self.part else self.path.stem

    @functools.cached_property
    def trace(self) -> Trace:
        return read_trace(self.path)

    def once(self, compute: Callable[["Case"], Any]) -> Any:
        """What `compute` makes of this case, computed the first time."""
        if compute not in self.computed:
            self.computed[compute] = compute(self)
        return self.computed[compute]

    def compare(
        self,
        quantity: str,
        ours: Numbers,
        tolerance: Tolerance,
        expected: Numbers | None = None,
        clue: Clue | None = None,
        exact: Callable[[], Numbers] | None = None,
    ) -> Row:
        """Judges ours beside `expected`, which is by default the recorded array named `quantity`.

        clue: what the arrays are; a failure is explained by it.
        exact: ours, computed once more in float64. It is asked where float32's error comes near the bound, and decides
            where float32's rounding does, or the verdict is another: it must not depend on how a processor adds up.
        """
        try:
            if expected is None:
                expected = self.trace.array(quantity, dtype=np.number)
            metrics = _measure(quantity, ours, expected, tolerance)
            precision, noise, rounding = _precision(ours, expected), None, ""
            if exact is not None and _is_near(metrics, judge(metrics, tolerance)):
                ours, metrics, noise, rounding = _decided(quantity, (ours, exact()), expected, metrics, tolerance)
        except UserError as error:
            hints = () if expected is None else self._explain(quantity, ours, expected, clue)
            return self.fail(quantity, str(error)).model_copy(update={"hints": hints})
        verdict = judge(metrics, tolerance)
        row = Row(
            case=self.name, quantity=quantity, outcome="pass" if verdict.passed else "fail", error=verdict.error,
            bound=verdict.bound, noise=noise, note="; ".join(filter(None, (verdict.note, rounding))),
            kind=clue.kind if clue else self.about, precision=precision, tolerance=tolerance, metrics=metrics,
        )  # fmt: skip
        if verdict.passed:
            return row
        maps = None if isinstance(tolerance, SameSet) else worst_map(ours, expected, clue.layout if clue else "")
        return row.model_copy(update={"hints": self._explain(quantity, ours, expected, clue), "maps": maps})

    def _explain(self, quantity: str, ours: Numbers, expected: Numbers, clue: Clue | None) -> tuple[Hint, ...]:
        """The causes of a failure, of the first few of a case, and of the first few computed alone."""
        clue = clue or (Clue(self.about) if self.about else None)
        alike = [other for other in self.explained if other.startswith(ALONE) == quantity.startswith(ALONE)]
        if clue is None or len(alike) >= HINTED:
            return ()
        self.explained.append(quantity)
        return explain(ours, expected, clue)

    def skip(self, quantity: str, reason: str) -> Row:
        """A quantity that is not compared, and why."""
        return Row(case=self.name, quantity=quantity, outcome="skip", note=reason)

    def fail(self, quantity: str, reason: str) -> Row:
        """A quantity that cannot be compared, though it should be."""
        return Row(case=self.name, quantity=quantity, outcome="fail", note=reason)


def _measure(quantity: str, ours: Numbers, expected: Numbers, tolerance: Tolerance) -> Metrics:
    return (measure_rows if isinstance(tolerance, SameSet) else measure)(quantity, ours, expected)


def _is_near(metrics: Metrics, verdict: Verdict) -> bool:
    """Whether rounding may have made the verdict: the error is large enough, or a row more or less is kept by a
    threshold. It makes no NaN."""
    return not metrics.one_not_finite and (verdict.error > NEAR * verdict.bound or _has_lone_rows(metrics))


def _has_lone_rows(metrics: Metrics) -> bool:
    return bool(metrics.only_ours or metrics.only_expected)


def _decided(
    quantity: str, ours: tuple[Numbers, Numbers], expected: Numbers, metrics: Metrics, tolerance: Tolerance
) -> tuple[Numbers, Metrics, float, str]:
    """(what decides of ours in float32 and in float64, its metrics, float32's noise, a note where float64 decides)."""
    single, double = ours
    # The noise is measured as the error is: in units of the largest expected number, where the bound is of that.
    apart = _measure(quantity, single, double, tolerance).model_copy(update={"absmax": metrics.absmax})
    noise, verdict = judge(apart, tolerance), judge(metrics, tolerance)
    exact = _measure(quantity, double, expected, tolerance)
    is_small = noise.error <= NEAR * noise.bound and not _has_lone_rows(apart)
    if is_small and judge(exact, tolerance).passed == verdict.passed:
        return single, metrics, noise.error, ""
    note = f"decided in float64: float32 is {verdict.error:.2g} off, and its own rounding is {noise.error:.2g}"
    return double, exact, noise.error, note


def _precision(*arrays: Numbers) -> str:
    types = [np.asarray(array).dtype for array in arrays]
    # Of another library's types (bfloat16) NumPy knows the name alone.
    floating = [one for one in types if one.kind == "f" or one.name == "bfloat16"]
    return min(floating, key=lambda one: one.itemsize).name if floating else ""
