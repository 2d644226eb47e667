"""Causes from a difference: each hint is a hypothesis that was tested on the arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from numpy.typing import ArrayLike

from reproduction.compare import Stored


class Hint(Stored):
    """A cause that explains a difference, and how well."""

    cause: str
    text: str
    before: float
    after: float
    evidence: str


@dataclass(frozen=True)
class Clue:
    """What is known about a quantity, beside the two arrays."""

    kind: str
    layout: str = ""
    alternatives: Mapping[str, Callable[[], ArrayLike]] = field(default_factory=dict)


def explain(ours: ArrayLike, expected: ArrayLike, clue: Clue) -> tuple[Hint, ...]:
    """The causes that explain the difference, best first."""
    return ()
