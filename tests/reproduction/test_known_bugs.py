"""Every planted bug is found at its gate, at its quantity, with its cause; without it that gate is passed."""

from pathlib import Path

import pytest

from tests.reproduction.known_bugs import NOT_PLANTED, RUN, SUITE
from tests.reproduction.known_bugs.bug import Bug, ask, ask_unplanted

LEAST = 28  # planted bugs that the suite has at least
DOCUMENTED = 33  # entries of docs/known-port-bugs.md
LEAST_OF_RUN = 24  # mistakes in the code that a run executes
EVERY = (*SUITE, *RUN)
QUICK = [bug for bug in EVERY if bug.quick]


def _name(bug: Bug) -> str:
    return bug.name


def _check(bug: Bug, shared: Path) -> None:
    answer = ask(bug, shared)
    assert answer.too_early == (), "a gate before its own fails"
    assert answer.result.outcome == "fail", f"gate {bug.gate} passes it"
    assert answer.is_located, f"first divergence {answer.where}, expected {bug.first}"
    assert answer.is_explained, f"hints {answer.causes}, expected {bug.cause}"
    unplanted = ask_unplanted(bug, shared)
    assert unplanted.outcome == "pass", unplanted.first_divergence or unplanted.note


@pytest.mark.parametrize("bug", QUICK, ids=_name)
def test_representative_bug(bug: Bug, shared):
    _check(bug, shared)


@pytest.mark.slow
@pytest.mark.parametrize("bug", [bug for bug in EVERY if not bug.quick], ids=_name)
def test_bug(bug: Bug, shared):
    _check(bug, shared)


def test_suite_is_complete():
    """Enough bugs, each by its own name, of entries that exist."""
    assert len(SUITE) >= LEAST
    assert len(RUN) >= LEAST_OF_RUN
    assert len({bug.name for bug in EVERY}) == len(EVERY)
    assert all(1 <= number <= DOCUMENTED for bug in SUITE for number in bug.entries)
    planted = {number for bug in SUITE for number in bug.entries}
    assert planted.isdisjoint(NOT_PLANTED)
    assert planted | set(NOT_PLANTED) == set(range(1, DOCUMENTED + 1))
