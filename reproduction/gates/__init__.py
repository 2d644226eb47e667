"""The gates of a proof, in order: each is one question about an experiment, with its own verdict.

`run` asks them of a `Subject`, in this process, one after the other; each stands alone. Gates made of golden kinds
compare what an original recorded; the others compare recipes, distributions, scores and curves. A gate with one failing
row fails. One that lacks inputs says which, and how to get them, and does not pass.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from official.core.errors import UserError, first_line
from official.core.progress import track
from reproduction.gates import augmentation, curves, layers, overfit, recipe, score
from reproduction.gates.recorded import by_kinds
from reproduction.gates.result import Exhibit, GateResult, NoInputsError
from reproduction.gates.subject import Subject
from reproduction.golden.case import Row
from reproduction.judge import judge_again

_LOG = logging.getLogger(__name__)
KEPT_MAPS = 3  # pictures of failing rows that a result keeps


@dataclass(frozen=True)
class Gate:
    """One question. `check` gives rows and exhibits, or raises NoInputsError, before or after some of them."""

    name: str
    check: Callable[[Subject], Iterator[Row | Exhibit]]


def _of_family(darknet: Callable, centernet: Callable) -> Callable[[Subject], Iterator[Row | Exhibit]]:
    return lambda subject: (centernet if subject.is_centernet else darknet)(subject)


GATES: Mapping[int, Gate] = {
    1: Gate("recipe", recipe.check),
    2: Gate("layers", layers.check),
    3: Gate(
        "decoding and NMS",
        _of_family(by_kinds(["decode"], first=["iou", "nms", "boxes"]), by_kinds(["centernet_decode"])),
    ),
    4: Gate("score of the original's weights", score.check),
    5: Gate(
        "label assignment",
        _of_family(
            by_kinds(["assignment"]),
            by_kinds(["centernet_gaussian", "centernet_targets"], ["centernet_train_targets"]),
        ),
    ),
    6: Gate("loss and gradients", _of_family(by_kinds(["loss"], ["gradients"]), by_kinds(["centernet_loss"]))),
    7: Gate(
        "optimiser and schedule",
        _of_family(by_kinds(["updates"], first=["learning_rate"]), by_kinds(["centernet_updates"])),
    ),
    8: Gate("augmentation", augmentation.check),
    9: Gate(
        "training, step by step",
        _of_family(by_kinds(["optimiser"], ["layers_train"]), by_kinds(["centernet_adam"])),
    ),
    10: Gate("eight images learnt by heart", overfit.check),
    11: Gate("short run beside the original's curve", curves.short_run),
    12: Gate("full run beside the published number", curves.full_run),
}
BEFORE_TRAINING = tuple(range(1, 10))


def numbers_in(text: str) -> list[int]:
    """Gates by number: `1-3,7` -> [1, 2, 3, 7].

    Raises:
        UserError: there are no such gates.
    """
    numbers: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise UserError(f"gates {text!r}: expected numbers, such as 1-9 or 2,4,10-12")
        numbers |= set(range(int(first), int(last) + 1))
    if not numbers or not numbers <= set(GATES):
        before = f"{BEFORE_TRAINING[0]}-{BEFORE_TRAINING[-1]}"
        raise UserError(f"gates {text!r}: expected numbers from 1 to {max(GATES)}; {before} need no training")
    return sorted(numbers)


def run(subject: Subject, numbers: Sequence[int] = BEFORE_TRAINING) -> tuple[GateResult, ...]:
    """Asks these gates, in order."""
    return tuple(pass_through(number, subject) for number in track(list(numbers), "gates"))


def pass_through(number: int, subject: Subject) -> GateResult:
    """Asks one gate. What it raises is its verdict: a lack of inputs, or a failure."""
    gate, start = GATES[number], time.perf_counter()
    rows: list[Row] = []
    exhibits: list[Exhibit] = []
    note, lacks = "", False
    try:
        for item in gate.check(subject):
            if isinstance(item, Row):
                rows.append(judge_again(item, subject.claims.tolerances))
            else:
                exhibits.append(item)
    except NoInputsError as error:
        note, lacks = str(error), True
    except (UserError, OSError) as error:
        rows.append(Row(case="all", quantity="all", outcome="fail", note=str(error)))
    except Exception as error:  # one gate that breaks must not hide the others
        _LOG.debug("gate %d", number, exc_info=True)
        rows.append(
            Row(case="all", quantity="all", outcome="fail", note=f"{type(error).__name__}: {first_line(error)}")
        )
    failed = any(row.outcome == "fail" for row in rows)
    checked = failed or any(row.outcome == "pass" for row in rows)
    outcome = "fail" if failed else "no_inputs" if lacks or not checked else "pass"
    note = note or ("" if checked else "nothing was compared: all of it is skipped, for the reasons given")
    return GateResult(
        number=number, name=gate.name, outcome=outcome, rows=_with_few_maps(rows), note=note,
        seconds=time.perf_counter() - start, exhibits=tuple(exhibits),
    )  # fmt: skip


def _with_few_maps(rows: list[Row]) -> tuple[Row, ...]:
    """Pictures are large: the first ones are kept."""
    left, kept = KEPT_MAPS, []
    for row in rows:
        left -= row.maps is not None
        kept.append(row if row.maps is None or left >= 0 else row.model_copy(update={"maps": None}))
    return tuple(kept)
