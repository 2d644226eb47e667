"""A proof as it is stored: what was asked, how it came out, and where everything came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from pydantic import Field

from official.core.errors import UserError
from reproduction.traces.case import Row
from reproduction.traces.compare import Stored
from reproduction.traces.result import GateResult, first_divergence

PASSED, FAILED, LACKED, UNPROVEN = 0, 1, 3, 4  # exit codes


class ReportError(UserError):
    """A stored report that cannot be read."""


class Report(Stored):
    """All of a proof. Everything that is shown is made from this alone."""

    title: str
    made: str
    gates: tuple[GateResult, ...]
    environment: Mapping[str, str]
    provenance: Mapping[str, str]
    card: Mapping[str, Any] = {}
    unproven: Mapping[str, str] | None = Field(
        None, description="Parts of the experiment that no check ran, and why; none for traces without an experiment."
    )
    version: int = 1

    @property
    def exit_code(self) -> int:
        """0: proven. 1: a gate failed. 3: none failed, one lacked inputs. 4: all passed, but a part was run by none."""
        outcomes = {gate.outcome for gate in self.gates}
        if "fail" in outcomes:
            return FAILED
        if "no_inputs" in outcomes or not outcomes:
            return LACKED
        return UNPROVEN if self.unproven else PASSED

    @property
    def verdict(self) -> str:
        """One sentence; it says "proven" only where no part is left that no check ran."""
        counts = [gate.outcome for gate in self.gates]
        passed, failed, lacked = (counts.count(outcome) for outcome in ("pass", "fail", "no_inputs"))
        of_all = f"{passed} of {len(counts)} gates passed"
        if failed:
            return f"Not the original: {failed} failed; {of_all}."
        left = f" Not proven: {', '.join(self.unproven)}." if self.unproven else ""
        if lacked or not counts:
            return f"Not proven: {lacked} lacked inputs; {of_all}.{left}"
        if left:
            return f"{of_all}.{left}"
        return f"As recorded: {of_all}." if self.unproven is None else f"Proven: {of_all}."

    @property
    def divergence(self) -> tuple[GateResult, Row] | None:
        """Where it departs first."""
        return first_divergence(self.gates)


def read_report(path: Path) -> Report:
    """A report.json.

    Raises:
        ReportError: it is not one.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ReportError(f"{path}: not a stored report: {where}: {first['msg']}") from None
