"""A check: one row of the table of comparisons. It finds its cases in files, and says how each quantity came out."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from official.core.errors import UserError, first_line
from reproduction.traces.case import Case, Row
from reproduction.traces.result import Exhibit, NoInputsError

if TYPE_CHECKING:
    from reproduction.experiment.subject import Subject

_LOG = logging.getLogger(__name__)
Rows = Iterator[Row | Exhibit]


def whole_file(case: Case) -> list[str]:
    """The parts of a file that is one case."""
    return [""]


def of_trace(check: Callable[[Case], Iterator[Row]]) -> Callable[[Case, "Subject"], Rows]:
    """The `run` of a check that looks at the recording alone, and at no object of the experiment."""
    return lambda case, subject: check(case)


def any_experiment(subject: "Subject", case: Case) -> bool:
    """The rule of a check that concerns every experiment of its original."""
    return True


class Check(NamedTuple):
    """One kind of comparison.

    name: what `--checks`, the report and the ledger of parts call it.
    what: a line for the summary.
    gate: the number of the gate that asks it.
    run: gives a row for each quantity of a case. It sees the subject, so that it can run the experiment's own objects.
        An error that it raises is a failure of the case.
    files: pattern below a folder of traces. Empty: the check needs no recording, and has a single case.
    concerns: whether a case says something about the experiment. Not asked where there is no experiment.
    parts: the cases in a file; a file that is one case has a single one, without a name.
    needed: a gate that claims to equal an original is not passed without a case of such a check.
    needs_assets: skipped without weights and images.
    beside: patterns of files that are read with those, and are no case.
    about: what its arrays are, for hints: a kind of `Clue`.
    """

    name: str
    what: str
    gate: int
    run: Callable[[Case, "Subject"], Rows]
    files: str = ""
    concerns: Callable[["Subject", Case], bool] = any_experiment
    parts: Callable[[Case], list[str]] = whole_file
    needed: bool = False
    needs_assets: bool = False
    beside: tuple[str, ...] = ()
    about: str = ""


def cases_of(check: Check, root: Path, assets: Path | None) -> Iterator[Case | Row]:
    """The cases of a check below a folder; a row instead for a file whose cases cannot be listed."""
    for path in sorted(root.glob(check.files)):
        try:
            parts = check.parts(Case(path))
        except (UserError, OSError) as error:
            yield Case(path).fail("all", str(error))
            continue
        yield from (Case(path, part, assets, check.about) for part in parts)


def run_check(check: Check, subject: "Subject") -> Rows:
    """Rows and exhibits of all cases that concern the subject. What a case raises is its failure.

    Raises:
        NoInputsError: the check itself lacks something that is not a recording.
    """
    for case in subject.cases_of(check):
        if isinstance(case, Row):
            yield case
        elif _concerns(check, subject, case):
            for item in _of_case(check, subject, case):
                yield item.model_copy(update={"check": check.name}) if isinstance(item, Row) else item


def _concerns(check: Check, subject: "Subject", case: Case) -> bool:
    """A case that cannot be read is asked all the same: then the check says what is wrong with it."""
    try:
        return subject.experiment is None or check.concerns(subject, case)
    except (UserError, OSError):
        return True


def _of_case(check: Check, subject: "Subject", case: Case) -> Rows:
    if check.needs_assets and case.assets is None:
        yield case.skip("all", "needs weights and images: give --assets DIR")
        return
    compared = False
    try:
        for item in check.run(case, subject):
            compared = True
            yield item
        if not compared:
            yield case.fail("all", "nothing was compared")
    except NoInputsError:
        raise
    except (UserError, OSError) as error:
        yield case.fail("all", str(error))
    except Exception as error:  # one case that breaks the product must not hide the others
        _LOG.debug("%s: %s", check.name, case.name, exc_info=True)
        yield case.fail("all", f"{type(error).__name__}: {first_line(error)}")


def unknown_files(checks: tuple[Check, ...], root: Path) -> list[str]:
    """The traces below the root that no check reads, by their paths from there."""
    patterns = [pattern for check in checks for pattern in (check.files, *check.beside) if pattern]
    known = {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.npz") if path not in known)
