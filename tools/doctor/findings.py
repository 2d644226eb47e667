"""Findings of the doctor, each with its severity, place, likely cause and remedy."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Severity = Literal["fault", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")
_SHOWN = 5


class Finding(NamedTuple):
    """One kind of thing that was found in a split, or between splits.

    Attributes:
        severity: fault: training on this is wrong or stops. warning: it works, but costs. note: worth knowing.
        what: was found, with the numbers that show it.
        count: of images or boxes.
        where: all of them, usually image files.
        cause: the likely one; may be empty.
        remedy: what to do; may be empty.
    """

    severity: Severity
    kind: str
    split: str
    what: str
    count: int
    where: tuple[str, ...] = ()
    cause: str = ""
    remedy: str = ""

    @property
    def shown_where(self) -> str:
        """The first few places, and how many more there are."""
        more = len(self.where) - _SHOWN
        return ", ".join(self.where[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "where": list(self.where)}


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Faults first; otherwise the order stays."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def percent(part: int, whole: int) -> str:
    """A share for a message: 73 %, and 0.4 % where whole numbers would say nothing."""
    share = 100 * part / max(whole, 1)
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %"
