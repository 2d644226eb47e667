"""What a gate gives: rows, and exhibits to look at. All of it is stored, and can be shown again without the gate."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from official.core.errors import UserError
from reproduction.traces.case import Row
from reproduction.traces.compare import Stored

Outcome = Literal["pass", "fail", "no_inputs"]


class NoInputsError(UserError):
    """A gate cannot be passed because something is not there: the message says what, and how to get it."""


class Table(Stored):
    """Text in rows. `marks` names the rows that need a look, by number."""

    type: Literal["table"] = "table"
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[int, ...] = ()


class Lines(Stored):
    """Curves over a common axis."""

    type: Literal["lines"] = "lines"
    title: str
    across: str
    up: str
    lines: dict[str, tuple[tuple[float, float], ...]]


class Boxes(Stored):
    """A picture and boxes on it, from both sides. Boxes are yxyx, 0..1, and score."""

    type: Literal["boxes"] = "boxes"
    title: str
    jpeg: str = Field(description="Base64.")
    ours: tuple[tuple[float, ...], ...]
    expected: tuple[tuple[float, ...], ...]


Exhibit = Annotated[Table | Lines | Boxes, Field(discriminator="type")]


class GateResult(Stored):
    """How one gate came out."""

    number: int
    name: str
    outcome: Outcome
    rows: tuple[Row, ...] = ()
    note: str = ""
    seconds: float = 0.0
    exhibits: tuple[Exhibit, ...] = ()
    ran: dict[str, tuple[str, ...]] = Field({}, description="By check that passed: the parts it ran.")

    @property
    def first_divergence(self) -> Row | None:
        """The first failing row: rows of a network are in its own order."""
        return next((row for row in self.rows if row.outcome == "fail"), None)

    def counts(self) -> dict[str, int]:
        """Rows by outcome."""
        outcomes = [row.outcome for row in self.rows]
        return {name: outcomes.count(name) for name in ("pass", "fail", "skip")}


def first_divergence(results: tuple[GateResult, ...]) -> tuple[GateResult, Row] | None:
    """The first failing row of the first failing gate."""
    return next(((result, row) for result in results if (row := result.first_divergence)), None)


def case_counts(rows: Iterable[Row]) -> dict[str, int]:
    """Cases `checked`; those `skipped`, since none of their quantities was compared; those that `failed`."""
    worst: dict[str, str] = {}
    for row in rows:
        found = {worst.get(row.case, "skip"), row.outcome}
        worst[row.case] = next(outcome for outcome in ("fail", "pass", "skip") if outcome in found)
    outcomes = list(worst.values())
    skipped = outcomes.count("skip")
    return {"checked": len(outcomes) - skipped, "skipped": skipped, "failed": outcomes.count("fail")}
