"""One planted bug, and what the gates say of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from reproduction.experiment.subject import Subject
from reproduction.gates import pass_through
from reproduction.traces.case import Row
from reproduction.traces.result import GateResult

HINTS = 2  # among the first so many the right cause has to be
# Small recorded cases of the gates that come before a bug's own: none of them may fail for it.
CHEAP = (
    *("activations/leaky", "activations/mish", "act_bn_leaky", "conv_s2_even", "maxpool_2s1", "route_groups2_1"),
    *("iou", "nms/case0", "ciou_plain", "sgd_v4tiny_cudnn_emulated", "learning_rate/steps_burnin"),
    *("image_ops/letterbox_32x24", "image_ops/resize_16x8", "image_ops/flip"),
)


def darknet(shared: Path) -> Subject:
    """Darknet's traces, of no experiment: then all cases are asked that a bug names."""
    return Subject(traces=(shared / "golden",))


@dataclass(frozen=True)
class Bug:
    """A mistake that a port made.

    entries: its numbers in docs/known-port-bugs.md.
    plant: puts it into our implementation, by patching.
    gate: the first that has to fail.
    cases: patterns of the recorded cases that are asked.
    first: pattern of the first failing quantity, as `case: quantity`.
    cause: key of `reproduction.traces.causes.CAUSES`.
    subject: what is proven, of the folder of recorded material.
    sound: the same without the mistake, where that is in the subject itself.
    before: patterns of cases for the gates before it.
    quick: whether the quick suite has it.
    """

    name: str
    entries: tuple[int, ...]
    plant: Callable[[pytest.MonkeyPatch], None]
    gate: int
    cases: tuple[str, ...]
    first: str
    cause: str
    subject: Callable[[Path], Subject] = darknet
    before: tuple[str, ...] = CHEAP
    quick: bool = False
    sound: Callable[[Path], Subject] | None = None


@dataclass(frozen=True)
class Answer:
    """What the gates said while the bug was there."""

    bug: Bug
    result: GateResult
    too_early: tuple[int, ...] = ()  # gates that failed before its own
    seconds: float = field(default=0.0, compare=False)

    @property
    def row(self) -> Row | None:
        return self.result.first_divergence

    @property
    def where(self) -> str:
        return f"{self.row.case}: {self.row.quantity}" if self.row else ""

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(hint.cause for hint in self.row.hints) if self.row else ()

    @property
    def is_detected(self) -> bool:
        """At its own gate, and at none before."""
        return self.result.outcome == "fail" and not self.too_early

    @property
    def is_located(self) -> bool:
        return fnmatchcase(self.where, self.bug.first)

    @property
    def is_explained(self) -> bool:
        return self.bug.cause in self.causes[:HINTS]


def ask(bug: Bug, shared: Path) -> Answer:
    """Plants the bug, asks the gates before its own, then that, and takes the bug out again."""
    start = time.perf_counter()
    subject = bug.subject(shared)
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        others = [pass_through(number, replace(subject, cases=bug.before)) for number in range(1, bug.gate)]
        result = pass_through(bug.gate, replace(subject, cases=bug.cases))
    too_early = tuple(other.number for other in others if other.outcome == "fail")
    return Answer(bug, result, too_early, time.perf_counter() - start)


def ask_unplanted(bug: Bug, shared: Path) -> GateResult:
    """The same gate on the same cases, without the bug."""
    return pass_through(bug.gate, replace((bug.sound or bug.subject)(shared), cases=bug.cases))
