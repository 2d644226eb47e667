"""The gates of a proof, in order: each is one question about an experiment, with its own verdict.

`run` asks them of a `Subject`, in this process, one after the other. A gate is made of checks, rows of one table: those
of the experiment's original (reproduction/originals.py), and those that every experiment is asked. A gate with one
failing row fails. One that lacks inputs says which, and how to get them, and does not pass.
"""

import contextlib
import ctypes
import gc
import time
from collections.abc import Mapping, Sequence

from official.core.errors import UserError
from official.core.progress import track
from reproduction import originals
from reproduction.experiment.subject import Subject
from reproduction.gates import augmentation, curves, overfit, recipe
from reproduction.seeded import inference, losses, pixels, sizes, steps, updates
from reproduction.traces.case import Row
from reproduction.traces.check import Check, run_check
from reproduction.traces.judge import judge_again
from reproduction.traces.result import Exhibit, GateResult, NoInputsError

KEPT_MAPS = 3  # pictures of failing rows that a result keeps

GATES: Mapping[int, str] = {
    1: "recipe",
    2: "layers",
    3: "decoding and NMS",
    4: "score of the original's weights",
    5: "label assignment",
    6: "loss and gradients",
    7: "optimiser and schedule",
    8: "augmentation",
    9: "training, step by step",
    10: "overfitting eight images",
    11: "short run beside the original's curve",
    12: "full run beside the published number",
}
BEFORE_TRAINING = tuple(range(1, 10))

OF_EVERY_EXPERIMENT = (
    Check("recipe", "every hyper-parameter, beside the original's and the paper's", 1, recipe.check),
    Check("own_inference", "the network for inference, beside the trained one", 3, inference.inference_network),
    Check("own_decoding", "the experiment's decoder, beside the formula", 3, losses.decoding),
    Check("own_detections", "evaluation's detections, beside the formulas", 3, inference.detections),
    Check("own_export", "an export's signatures, beside evaluation's detections", 3, inference.export),
    Check("own_assignment", "what the experiment's loss asks of each prediction", 5, losses.assignment),
    Check("own_loss", "the experiment's loss and its gradient, beside the formulas", 6, losses.loss),
    Check("own_rates", "the run's learning rate, beside the formula", 7, updates.rates),
    Check("own_updates", "the run's update and average, beside the formulas", 7, updates.updates),
    Check("own_sizes", "the run's input sizes, beside the rule", 7, sizes.sizes),
    Check("own_pixels", "pixels and labels on the accelerator, beside the formulas", 8, pixels.prepare),
    Check("draws", "random draws of the augmentation, as distributions", 8, augmentation.check),
    Check("own_steps", "steps of the run itself, and its resumption", 9, steps.steps),
    Check("overfit", "the loss of eight images falls", 10, overfit.check),
    Check("short_run", "a run's loss, beside the original's curve", 11, curves.short_run),
    Check("full_run", "a run's score, beside the published one", 12, curves.full_run),
)


def checks_of(subject: Subject) -> tuple[Check, ...]:
    """All checks that the subject is asked, in order."""
    return originals.checks_of(subject) + (OF_EVERY_EXPERIMENT if subject.experiment else ())


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
    """Asks one gate. What a check raises is its verdict: a lack of inputs, or a failure."""
    start = time.perf_counter()
    rows: list[Row] = []
    exhibits: list[Exhibit] = []
    lacks: list[str] = []
    ran: dict[str, tuple[str, ...]] = {}
    checks = [check for check in checks_of(subject) if check.gate == number]
    for check in checks:
        of_check: list[Row] = []
        subject.own.called.clear()
        try:
            for item in run_check(check, subject):
                if isinstance(item, Row):
                    of_check.append(judge_again(item, subject.claims.tolerances))
                else:
                    exhibits.append(item)
        except NoInputsError as error:
            lacks.append(str(error))
        outcomes = {row.outcome for row in of_check}
        if subject.own.called and "pass" in outcomes and "fail" not in outcomes:
            ran[check.name] = tuple(sorted(subject.own.called))
        rows += of_check
        _release_memory()
    lacks += _missing(checks, rows, subject)
    failed = any(row.outcome == "fail" for row in rows)
    compared = failed or any(row.outcome == "pass" for row in rows)
    outcome = "fail" if failed else "no_inputs" if lacks or not compared else "pass"
    note = "; ".join(lacks) or ("" if compared else "nothing was compared: all of it is skipped, for the reasons given")
    return GateResult(
        number=number, name=GATES[number], outcome=outcome, rows=with_few_maps(rows), note=note, ran=ran,
        seconds=time.perf_counter() - start, exhibits=tuple(exhibits),
    )  # fmt: skip


def _missing(checks: Sequence[Check], rows: Sequence[Row], subject: Subject) -> list[str]:
    """What to say where no recording that the gate needs was compared.

    An experiment that claims no original is compared with the stated formulas alone.
    """
    needed = [check for check in checks if check.needed]
    claims_none = subject.experiment is not None and subject.experiment.reproduces is None
    if not needed or claims_none or (subject.experiment is None and rows):
        return []
    names = {check.name for check in needed}
    of_needed = [row for row in rows if row.check in names]
    if any(row.outcome != "skip" for row in of_needed):
        return []
    reasons = dict.fromkeys(row.note for row in of_needed)
    return list(reasons) or [subject.missing(" or ".join(check.files for check in needed))]


def _release_memory() -> None:
    """Returns to the system what is free: a proof builds many networks, one after the other."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


def with_few_maps(rows: list[Row]) -> tuple[Row, ...]:
    """Pictures are large: the first ones are kept."""
    left, kept = KEPT_MAPS, []
    for row in rows:
        left -= row.maps is not None
        kept.append(row if row.maps is None or left >= 0 else row.model_copy(update={"maps": None}))
    return tuple(kept)
