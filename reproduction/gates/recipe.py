"""The recipe: every hyper-parameter as the original, as the paper and as the experiment has it.

A difference passes if it is named: in `reproduces.differences`, or in docs/differences.md. A silent one fails.
"""

import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reproduction.experiment.original import RecipeRules
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import CAUSES, Hint
from reproduction.traces.result import Exhibit, NoInputsError, Table

Flat = Mapping[str, Any]
LISTED = Path(__file__).parents[2] / "docs" / "differences.md"
# Key of the configuration -> the row of docs/differences.md that names the difference.
NAMED = {
    "task.evaluation.interpolation": "resize for evaluation",
    "task.evaluation.nms": "NMS",
    "task.evaluation.resize": "test images",
}
# What the original has no word for, or what concerns the machine and the run alone.
_OURS_ALONE = (
    *("runtime.", "task.type", "task.data.classes", "task.data.validation.", "task.data.train.source."),
    *("task.data.train.on_bad", "task.model.type", "task.model.norm"),
    *("trainer.checkpoint.", "trainer.evaluate_every", "trainer.summary"),
    *("trainer.steps_per_loop", "trainer.initialise", "trainer.freeze", "reproduces", "schema_version"),
    *("task.loss.type", "task.data.train.augmentation.precise", "task.data.train.window", "trainer.layers"),
)


def check(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """A row for each parameter; of those that agree with the original, one row for each section."""
    experiment = subject.need_experiment()
    ours = _flat(experiment.model_dump(mode="json"))
    rules = subject.original.recipe
    made = rules.read(subject)
    original = None if made.experiment is None else _flat(made.experiment)
    said, reasons = subject.claims.paper_says, subject.claims.differences
    unknown = [key for key in (*said, *reasons) if key not in ours and key not in (original or {})]
    for key in unknown:
        yield _row(key, "fail", "reproduces names this key, and there is none such in the configuration")
    alone = (*_OURS_ALONE, *rules.unstated)
    keys = [key for key in sorted({*ours, *(original or {})}) if not key.startswith(alone)]
    shown, marks = [], []
    for key in keys:
        here, there = _value(ours, key), _value(original, key) if original is not None else "?"
        paper = str(said.get(key, ""))
        # A paper's number may differ from the recipe's: without the recipe that is named, nothing follows from it.
        is_judged = original is not None or not subject.claims.original
        row = _judged(key, here, there, paper if is_judged else "", reasons, rules)
        yield row
        if row.outcome != "pass":
            marks.append(len(shown))
        shown.append((key, here, there, paper, row.note))
    head = ("parameter", "ours", "original", "paper", "")
    yield Table(title="Hyper-parameters", head=head, rows=tuple(shown), marks=tuple(marks))
    for section, option, message in made.notes:
        yield _row(f"[{section}] {option}", "skip", f"named by the recipe: {message}")
    if original is None:
        raise NoInputsError(_no_recipe(subject))


def _judged(key: str, here: str, there: str, paper: str, reasons: Mapping[str, str], rules: RecipeRules) -> Row:
    listed = NAMED | rules.listed
    if there != "?" and not _equal(here, there):
        if key in reasons:
            return _row(key, "skip", f"on purpose: {reasons[key]} (original {there}, ours {here})")
        if key in listed and f"| {listed[key]} |" in _listed():
            return _row(key, "skip", f"docs/differences.md, {listed[key]}: original {there}, ours {here}")
        note = f"original {there}, ours {here}, and no reason is named (reproduces.differences)"
        return _row(key, "fail", note).model_copy(update={"hints": (_hint(key, here, there, rules),)})
    if paper and not _equal(here, paper):
        what = f"the paper says {paper}, ours is {here}"
        if _equal(here, there):
            return _row(key, "pass", f"{what}, as the original's own recipe")
        return _row(key, "skip" if key in reasons else "fail", f"{what}: {reasons.get(key, 'no reason is named')}")
    return _row(key, "pass" if there != "?" or paper else "skip", "" if there != "?" else "not known of the original")


# End of a key of the configuration -> what it does to a reproduction where its value is another.
_CAUSES = {
    "batch_size": "batch_size",
    "micro_batches": "batch_size",
    "moving_average*": "moving_average_decay",
    "burn_in.power": "warmup_power",
    "weight_decay": "weight_decay_scale",
    "schedule.learning_rate": "learning_rate_scale",
    "score_floor": "score_floor",
    "evaluation.nms": "nms_kind",
    "nms_threshold": "nms_threshold",
    "evaluation.resize": "letterbox_or_stretch",
    "padding_value": "letterbox_value",
}


def _hint(key: str, here: str, there: str, rules: RecipeRules) -> Hint:
    """Two recipes say it themselves: with the original's value nothing is left of the difference."""
    causes = (_CAUSES | rules.causes).items()
    cause = next((cause for end, cause in causes if fnmatch.fnmatch(key, f"*{end}")), "recipe_value")
    evidence = f"{key} is {here or 'not set'} here and {there or 'not set'} there"
    return Hint(cause=cause, text=CAUSES[cause], before=1.0, after=0.0, evidence=evidence)


def _row(key: str, outcome: str, note: str) -> Row:
    return Row(case="recipe", quantity=key, outcome=outcome, note=note)


def _no_recipe(subject: Subject) -> str:
    named = subject.claims.original
    if named:
        return f"the original's recipe {named!r} is neither a file nor below --assets or --traces"
    return f"needs the original's recipe: name {subject.original.recipe.named_by} in reproduces.original"


def _flat(data: Any, where: str = "") -> dict[str, Any]:
    """Leaves by their dotted keys; lists of numbers are leaves, and so are durations."""
    if isinstance(data, dict) and data.keys() == {"steps", "epochs", "examples"}:
        return {where: next((f"{value:g} {unit}" for unit, value in data.items() if value is not None), "")}
    if isinstance(data, dict) and data:
        parts = [_flat(value, f"{where}.{key}" if where else key) for key, value in data.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(data, list) and any(isinstance(item, dict) for item in data):
        parts = [_flat(value, f"{where}[{number}]") for number, value in enumerate(data)]
        return {key: value for part in parts for key, value in part.items()}
    return {where: data}


def _value(flat: Flat, key: str) -> str:
    """As text; nothing for what is absent or None."""
    value = flat.get(key)
    return "" if value in (None, [], {}) else str(value)


def _equal(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) <= 1e-9 * max(abs(float(one)), abs(float(other)))
    except ValueError:
        return one == other


def _listed() -> str:
    return LISTED.read_text() if LISTED.is_file() else ""
