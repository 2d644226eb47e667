"""What a proof looks like: one HTML page, the same as JSON and Markdown, a model card, and a table on the terminal.

report.json holds everything; `write` makes the others of it, so that it can be shown again without any gate.
"""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reproduction.experiment.parts import unproven
from reproduction.experiment.subject import Subject
from reproduction.gates import checks_of
from reproduction.report.html import WORDS, page
from reproduction.report.markdown import markdown, model_card
from reproduction.report.model import Report
from reproduction.report.provenance import environment, provenance
from reproduction.traces.result import GateResult, case_counts
from reproduction.traces.result import Table as TableExhibit

_COLOURS = {"pass": "green", "fail": "bold red", "no_inputs": "yellow"}


def report_of(subject: Subject, title: str, results: Sequence[GateResult]) -> Report:
    """The results with all that is known of where they come from."""
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    left = None
    if subject.experiment is not None:
        proven = {part for gate in results for parts in gate.ran.values() for part in parts}
        parts = unproven(subject.experiment, subject.original, proven)
        left = {name: f"{part.what}: {part.unproven}" for name, part in parts.items()}
    return Report(
        title=title, made=made, gates=tuple(results), environment=environment(), provenance=provenance(subject),
        card=_card(subject, results), unproven=left,
    )  # fmt: skip


def write(report: Report, folder: Path) -> None:
    """report.json, report.html, report.md and model_card.md, in a folder that is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        "report.json": lambda: report.model_dump_json(indent=1, exclude_none=True),
        "report.html": lambda: page(report),
        "report.md": lambda: markdown(report),
        "model_card.md": lambda: model_card(report),
    }
    for name, text in writers.items():
        (folder / name).write_text(text(), encoding="utf-8")


def show(report: Report) -> None:
    """A table on the terminal, and the first divergence."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    table = Table("", "gate", "verdict", "passed", "failed", "skipped", "s", title=Text(report.title))
    for gate in report.gates:
        counts = [str(count) for count in gate.counts().values()]
        verdict = Text(WORDS[gate.outcome], _COLOURS[gate.outcome])
        table.add_row(str(gate.number), gate.name, verdict, *counts, f"{gate.seconds:.1f}")
    console.print(table)
    for gate in report.gates:
        if gate.note:
            console.print(Text(f"{gate.number} {gate.name}: {gate.note}", "dim"))
    if report.divergence:
        gate, row = report.divergence
        console.print(Text(f"first divergence: gate {gate.number}, {row.case} {row.quantity}: {row.note}", "bold red"))
        for hint in row.hints[:2]:
            console.print(Text(f"  likely {hint.cause}: {hint.text} ({hint.evidence})"))
    for name, why in (report.unproven or {}).items():
        console.print(Text(f"not proven: {name}, {why}", "dim"))
    console.print(Text(report.verdict, "bold"))


def show_checks(report: Report, subject: Subject) -> None:
    """A table of the checks on the terminal: cases, and how near the nearest quantity came to its bound."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    table = Table("check", "what", "checked", "skipped", "failed", "largest share of a bound", title="Checks")
    for check in checks_of(subject):
        rows = [row for gate in report.gates for row in gate.rows if row.check == check.name]
        nearest = max((row.share_of_bound for row in rows if row.bound), default=None)
        counts = [str(count) for count in case_counts(rows).values()]
        what = Text(check.what if rows else f"no case found: there is no file {check.files}")
        table.add_row(check.name, what, *counts, "" if nearest is None else f"{nearest:.3g}")
    console.print(table)


def _card(subject: Subject, results: Sequence[GateResult]) -> dict[str, Any]:
    """What a model card says beyond the verdicts."""
    experiment, claims = subject.experiment, subject.claims
    if experiment is None:
        return {}
    published = [
        (one.metric, f"{one.value:g} ± {one.tolerance:g}", one.images or "", "published") for one in claims.expected
    ]
    tables = [one for gate in results for one in gate.exhibits if isinstance(one, TableExhibit)]
    measured = [
        (
            name,
            ours,
            table.title.removeprefix("Scores on ").removesuffix(" images"),
            "the original's weights, measured here",
        )
        for table in tables
        if table.title.startswith("Scores on ")
        for name, ours, _ in table.rows
    ]
    model = experiment.task.model
    description = (
        f"{experiment.task.type}, model {model.type if hasattr(model, 'type') else model.backbone.type}, input "
        f"{model.input_size[0]} x {model.input_size[1]} (height x width), {len(experiment.task.data.classes)} classes.",
        f"Reproduces: {claims.paper or 'nothing is claimed'}. Original code: {claims.code or 'not named'}.",
    )
    return {
        "description": description,
        "results": published + measured,
        "protocol": {key: str(value) for key, value in experiment.task.evaluation.model_dump(mode="json").items()},
        "weights": (claims.weights or "None are named.",),
        "authors": (f"Of the method: {claims.paper}" if claims.paper else "",),
        "differences": dict(claims.differences),
    }
