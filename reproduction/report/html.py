"""The proof as one HTML page: no file beside it, no script; it works from disk, on a phone and in the dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from reproduction.report.model import Report
from reproduction.report.style import STYLE
from reproduction.report.svg import boxes_picture, error_chart, lines_chart, map_pictures
from reproduction.traces.case import Row
from reproduction.traces.causes import Hint
from reproduction.traces.result import Boxes, Exhibit, GateResult, Lines, Table

SHOWN = 40  # rows of a gate: all failures up to this, then of each case the one nearest to its bound
WORDS = {"pass": "passed", "fail": "failed", "no_inputs": "lacks inputs", "skip": "skipped"}
_SIGNS = {"pass": "✓", "fail": "✗", "no_inputs": "–", "skip": "–"}  # not by colour alone


def page(report: Report) -> str:
    """The whole page. Everything that came from files is escaped."""
    parts = [_summary(report), _divergence(report), _unproven(report), *(_gate(gate) for gate in report.gates)]
    parts += [_facts("Environment", report.environment), _facts("Provenance", report.provenance)]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}: proof</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _summary(report: Report) -> str:
    rows = [
        (
            str(gate.number),
            f'<a href="#gate{gate.number}">{escape(gate.name)}</a>',
            _verdict(gate.outcome),
            *(str(count) for count in gate.counts().values()),
            f"{gate.seconds:.1f}",
        )
        for gate in report.gates
    ]
    head = ("", "gate", "verdict", "passed", "failed", "skipped", "seconds")
    return (
        f"<h1>{escape(report.title)}</h1><p class='verdict'>{escape(report.verdict)}</p>"
        f"<p class='dim'>{escape(report.made)}</p><div class='summary'>{_table(head, rows)}</div>"
    )


def _divergence(report: Report) -> str:
    found = report.divergence
    if found is None:
        return ""
    gate, row = found
    inside = f"<p>Gate {gate.number}, {escape(gate.name)}: <b>{escape(row.case)}</b>, <b>{escape(row.quantity)}</b>. "
    inside += f"{escape(_figures(row))} {escape(row.note)}</p>{_hints(row.hints)}{_maps(row)}"
    return f"<section class='first'><h2>First divergence</h2>{inside}</section>"


def _unproven(report: Report) -> str:
    """The parts that no check ran, if there are any."""
    rows = [(escape(name), escape(why)) for name, why in (report.unproven or {}).items()]
    return f"<section><h2>Not proven</h2>{_table(('part', 'why'), rows)}</section>" if rows else ""


def _gate(gate: GateResult) -> str:
    shown = shown_rows(gate)
    note = "".join(f"<p>{escape(text)}</p>" for text in (gate.note, noise_of(gate)) if text)
    rows = [(escape(row.case), escape(row.quantity), _verdict(row.outcome), _number(row.error), _number(row.bound),
             _number(row.noise), f"{escape(row.note)}{_hints(row.hints)}") for row in shown]  # fmt: skip
    left = len(gate.rows) - len(shown)
    more = f"<p class='dim'>{left} more rows are in report.json.</p>" if left > 0 else ""
    table = _table(("case", "quantity", "verdict", "error", "bound", "float32's noise", ""), rows) if rows else ""
    is_open = " open" if gate.outcome == "fail" else ""
    pictures = "".join(_maps(row) for row in gate.rows if row.maps)
    return (
        f'<section id="gate{gate.number}"><h2>{gate.number} {escape(gate.name)} {_verdict(gate.outcome)}</h2>{note}'
        f"{error_chart(gate.rows)}{pictures}{''.join(_exhibit(one) for one in gate.exhibits)}"
        f"<details{is_open}><summary>{len(gate.rows)} rows</summary>{table}{more}</details></section>"
    )


def shown_rows(gate: GateResult) -> list[Row]:
    """Failures first; then of each case the row that is nearest to its bound."""
    failed = [row for row in gate.rows if row.outcome == "fail"]
    cases: dict[str, Row] = {}
    for row in gate.rows:
        if row.outcome != "fail" and (row.case not in cases or row.share_of_bound > cases[row.case].share_of_bound):
            cases[row.case] = row
    return [*failed, *cases.values()][:SHOWN]


def noise_of(gate: GateResult) -> str:
    """A sentence on float32's own rounding, where errors came near enough to a bound for it to be measured."""
    shares = [row.noise / row.bound for row in gate.rows if row.noise is not None and row.bound]
    if not shares:
        return ""
    what = f"{len(shares)} quantities near their bounds"
    return f"Rounding of float32 was measured for {what}: it is at most {max(shares):.2g} of a bound."


def _exhibit(exhibit: Exhibit) -> str:
    match exhibit:
        case Table():
            marked = [exhibit.rows[number] for number in exhibit.marks]
            first = f"<h3>{escape(exhibit.title)}: a look at these</h3>{_texts(exhibit.head, marked)}" if marked else ""
            title, every = f"{escape(exhibit.title)}, all {len(exhibit.rows)}", _texts(exhibit.head, exhibit.rows)
            return f"{first}<details><summary>{title}</summary>{every}</details>"
        case Lines():
            return f"<h3>{escape(exhibit.title)}</h3>{lines_chart(exhibit)}"
        case Boxes():
            legend = "<p class='dim'>solid: the original's; dashed: ours</p>"
            return f"<h3>{escape(exhibit.title)}</h3>{boxes_picture(exhibit)}{legend}"


def _texts(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Long words, such as dotted names, may break after each part."""
    cells = [[escape(cell).replace(".", ".<wbr>").replace("_", "_<wbr>") for cell in row] for row in rows]
    return _table([escape(name) for name in head], cells)


def _hints(hints: Sequence[Hint]) -> str:
    """Likely causes with their evidence, best first."""
    if not hints:
        return ""
    items = (
        f"<li><b>{escape(hint.cause)}</b>: {escape(hint.text)} <span class='dim'>{escape(hint.evidence)}</span></li>"
        for hint in hints[:3]
    )
    return f"<ol class='hints'>{''.join(items)}</ol>"


def _maps(row: Row) -> str:
    if row.maps is None:
        return ""
    block = f", of each {row.maps.block} x {row.maps.block} the worst" if row.maps.block > 1 else ""
    title = f"{row.case} {row.quantity} {row.maps.where}{block}"
    return f"<h3>{escape(title)}</h3><div class='maps'>{map_pictures(row.maps)}</div>"


def _facts(title: str, facts: Mapping[str, str]) -> str:
    rows = [(escape(key), escape(value)) for key, value in facts.items()]
    return f"<section><h2>{escape(title)}</h2>{_table(('', ''), rows)}</section>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells are HTML."""
    titles = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def _verdict(outcome: str) -> str:
    return f"<span class='{outcome}'>{_SIGNS[outcome]} {WORDS[outcome]}</span>"


def _figures(row: Row) -> str:
    if row.error is None:
        return ""
    noise = "" if row.noise is None else f", float32's noise {_number(row.noise)}"
    return f"Error {_number(row.error)}, bound {_number(row.bound)}{noise}."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
