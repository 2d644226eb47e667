"""Gates made of golden kinds: what an original recorded, case by case, of what the experiment is made of."""

from collections.abc import Callable, Iterator, Sequence

from official.core.errors import UserError
from reproduction.gates.relevant import is_relevant
from reproduction.gates.result import NoInputsError
from reproduction.gates.subject import Subject
from reproduction.golden.case import Row
from reproduction.golden.kinds import KINDS
from reproduction.golden.run import rows_of


def rows_of_kind(kind: str, subject: Subject, keep: Callable[[str], bool] = lambda quantity: True) -> Iterator[Row]:
    """The rows of all cases of a kind that concern the subject; `keep` chooses by a quantity's name."""
    for case in subject.of_kind(kind):
        if not isinstance(case, Row):
            try:
                if not is_relevant(kind, subject, case):
                    continue
            except (UserError, OSError) as error:
                yield case.fail("all", str(error))
                continue
        for row in rows_of(KINDS[kind], case):
            if keep(row.quantity):
                yield row


def by_kinds(
    needed: Sequence[str], also: Sequence[str] = (), first: Sequence[str] = ()
) -> Callable[[Subject], Iterator[Row]]:
    """A gate that compares all cases of some kinds. One of the `needed` has to have a case; the others may.

    first: kinds that come before, since what they find is nearer to the cause; also: kinds that come behind.
    """

    def check(subject: Subject) -> Iterator[Row]:
        found = False
        for kind in (*first, *needed, *also):
            for row in rows_of_kind(kind, subject):
                found = found or (kind in needed and row.outcome != "skip")
                yield row
        if not found:
            raise NoInputsError(subject.missing(" or ".join(KINDS[kind].files for kind in needed)))

    return check
