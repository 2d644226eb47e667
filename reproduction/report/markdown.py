"""The proof as Markdown, and the model card that is made of it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from reproduction.report.html import WORDS, noise_of, shown_rows
from reproduction.report.model import Report

_SHOWN = 12  # rows of a failed gate


def markdown(report: Report) -> str:
    """Verdicts, the first divergence and failing rows; the rest is in the JSON."""
    lines = [f"# {_line(report.title)}: proof", "", _line(report.verdict), "", _line(report.made), ""]
    rows = (
        (str(g.number), g.name, WORDS[g.outcome], *map(str, g.counts().values()), f"{g.seconds:.1f}")
        for g in report.gates
    )
    lines += _table(("", "gate", "verdict", "passed", "failed", "skipped", "seconds"), rows)
    lines += _unproven(report)
    if report.divergence:
        gate, row = report.divergence
        lines += [
            "",
            "## First divergence",
            "",
            f"Gate {gate.number}, {_line(gate.name)}: {_line(row.case)}, {_line(row.quantity)}.",
        ]
        lines += [f"{_line(row.note)}", ""]
        lines += [f"- {hint.cause}: {_line(hint.text)} ({_line(hint.evidence)})" for hint in row.hints[:3]]
    noises = [f"- Gate {gate.number}, {_line(gate.name)}: {noise_of(gate)}" for gate in report.gates if noise_of(gate)]
    lines += ["", *noises] if noises else []
    for gate in report.gates:
        if gate.outcome == "pass":
            continue
        lines += ["", f"## {gate.number} {_line(gate.name)}: {WORDS[gate.outcome]}", "", _line(gate.note)]
        failed = [row for row in shown_rows(gate) if row.outcome == "fail"][:_SHOWN]
        cells = (
            (row.case, row.quantity, *(_figure(number) for number in (row.error, row.bound, row.noise)), row.note)
            for row in failed
        )
        lines += ["", *_table(("case", "quantity", "error", "bound", "float32's noise", ""), cells)] if failed else []
    for title, facts in (("Environment", report.environment), ("Provenance", report.provenance)):
        lines += ["", f"## {title}", "", *_table(("", ""), facts.items())]
    return "\n".join(lines) + "\n"


def model_card(report: Report) -> str:
    """After Model Garden's template: description, results, pretrained weights, environment, authors, differences."""
    card: Mapping[str, Any] = report.card
    lines = [f"# {_line(report.title)}", "", "## Description", "", *_sentences(card.get("description", ()))]
    lines += ["", "## Proof", "", _line(report.verdict), ""]
    lines += _table(("gate", "verdict"), ((f"{g.number} {g.name}", WORDS[g.outcome]) for g in report.gates))
    lines += _unproven(report)
    lines += ["", "## Results", ""]
    results = [tuple(map(str, row)) for row in card.get("results", ())]
    lines += _table(("metric", "value", "images", "source"), results) if results else ["None measured yet."]
    lines += ["", "Protocol of our numbers:", "", *_table(("", ""), card.get("protocol", {}).items())]
    lines += ["", "## Pretrained weights", "", *_sentences(card.get("weights", ()))]
    lines += ["", "## Environment", "", *_table(("", ""), report.environment.items())]
    lines += ["", "## Authors", "", *_sentences(card.get("authors", ()))]
    lines += ["", "## Differences from the original", ""]
    differences = card.get("differences", {})
    lines += _table(("key", "why"), differences.items()) if differences else ["None are named for this experiment."]
    lines += ["", "What every experiment computes otherwise on purpose: docs/differences.md.", ""]
    return "\n".join(lines)


def _unproven(report: Report) -> list[str]:
    """The parts that no check ran, if there are any."""
    rows = (report.unproven or {}).items()
    return ["", "## Not proven", "", *_table(("part", "why"), rows)] if rows else []


def _sentences(texts: Iterable[str]) -> list[str]:
    return [_line(text) for text in texts if text] or ["–"]


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    return [_cells(head), _cells(["---"] * len(head)), *(_cells(row) for row in rows)]


def _cells(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(_line(str(cell)) for cell in cells)} |"


def _line(text: str) -> str:
    """On one line, and with nothing that Markdown or HTML would take for its own."""
    flat = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"([\\`*_\[\]|<>])", r"\\\1", flat) if flat != "---" else flat


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
