"""One check, asked about a folder of recordings without an experiment."""

from pathlib import Path

from reproduction.experiment.subject import Subject
from reproduction.originals import EVERY_CHECK
from reproduction.traces.case import Row
from reproduction.traces.check import Check, run_check
from reproduction.traces.result import case_counts

NAMED = {check.name: check for check in EVERY_CHECK}


def rows_of(check: str | Check, root: Path, assets: Path | None = None) -> list[Row]:
    """All rows of a check, by its name."""
    check = NAMED[check] if isinstance(check, str) else check
    return [row for row in run_check(check, Subject(traces=(root,), assets=assets)) if isinstance(row, Row)]


def counted(rows: list[Row]) -> tuple[int, ...]:
    """(cases checked, skipped, failed)."""
    return tuple(case_counts(rows).values())
