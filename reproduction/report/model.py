"""A proof as it is stored: what was asked, how it came out, and where everything came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from official.core.errors import UserError
from reproduction.compare import Stored
from reproduction.gates.result import GateResult, first_divergence
from reproduction.golden.case import Row

PASSED, FAILED, LACKED = 0, 1, 3  # exit codes


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
    version: int = 1

    @property
    def exit_code(self) -> int:
        """0: all gates that were asked passed. 1: one failed. 3: none failed, but one lacked inputs."""
        outcomes = {gate.outcome for gate in self.gates}
        return FAILED if "fail" in outcomes else LACKED if "no_inputs" in outcomes or not outcomes else PASSED

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = [gate.outcome for gate in self.gates]
        passed, failed, lacked = (counts.count(outcome) for outcome in ("pass", "fail", "no_inputs"))
        of_all = f"{passed} of {len(counts)} gates passed"
        if failed:
            return f"Not the original: {failed} failed; {of_all}."
        return f"Not proven: {lacked} lacked inputs; {of_all}." if lacked else f"Proven as far as asked: {of_all}."

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
