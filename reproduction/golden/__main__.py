"""python -m reproduction.golden --root DIR [--json FILE] [--assets DIR] [--kinds a,b]

Exit code 1 where a quantity fails, or nothing at all was compared. docs/traces.md describes the folder.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts

import tensorflow as tf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from official.core.errors import UserError, one_line_errors
from reproduction.golden.case import Kind, Row
from reproduction.golden.kinds import KINDS
from reproduction.golden.run import Result, as_json, run, unknown_files

_WIDTH = 180  # of the tables where no terminal says it
_COLOURS = {"pass": "green", "fail": "bold red", "skip": "yellow"}


@one_line_errors
def main() -> None:
    kinds = "\n".join(f"  {name:<23} {kind.files:<26} {kind.what}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m reproduction.golden", description=f"{__doc__}\n\nkinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--root", required=True, type=Path, help="folder of recorded traces")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every row, with its metrics, here")
    parser.add_argument("--assets", type=Path, metavar="DIR", help="weights and images, for the kinds that need them")
    parser.add_argument("--kinds", default=",".join(KINDS), help="only these, separated by commas")
    asked = parser.parse_args()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's 10 bits prove nothing to 1e-5
    results = run(_chosen(asked.kinds), asked.root, asked.assets)
    unknown = unknown_files(KINDS, asked.root)
    if asked.json:
        asked.json.write_text(as_json(results, asked.root, unknown))
    _publish(results)
    if unknown:
        _console().print(Text(f"Of no kind, and not compared: {', '.join(unknown)}", "yellow"))
    failed = sum(result.counts()["failed"] for result in results.values())
    checked = sum(result.counts()["checked"] for result in results.values())
    if not checked:
        raise UserError(f"nothing below {asked.root} was compared")
    sys.exit(1 if failed else 0)


def _chosen(names: str) -> Mapping[str, Kind]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in KINDS]
    if unknown or not chosen:
        raise UserError(f"--kinds: no kind {unknown[0] if unknown else ''!r}; there are {', '.join(KINDS)}")
    return {name: KINDS[name] for name in chosen}


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _publish(results: Mapping[str, Result]) -> None:
    console = _console()
    cases = Table("kind", "case", "quantity", "error", "bound", "verdict", title="Worst quantity of each case")
    for name, result in results.items():
        for row in _shown(result):
            verdict = Text(row.outcome, _COLOURS[row.outcome])
            cases.add_row(name, Text(row.case), Text(row.quantity), _figure(row.error), _figure(row.bound), verdict)
            if row.note:
                cases.add_row("", "", Text(row.note, "dim"))
    summary = Table("kind", "what", "checked", "skipped", "failed", "largest share of a bound", title="Summary")
    for name, result in results.items():
        counts = [str(count) for count in result.counts().values()]
        nearest = max((row.share_of_bound for row in result.rows if row.bound), default=None)
        summary.add_row(name, Text(result.note or result.kind.what), *counts, _figure(nearest))
    console.print(cases)
    console.print(summary)


def _shown(result: Result) -> list[Row]:
    """Of each case every row that failed, else the one nearest to its bound."""
    shown = []
    for case, outcome in result.outcomes().items():
        rows = [row for row in result.rows if row.case == case]
        worst = max(rows, key=lambda row: row.share_of_bound)
        shown += [row for row in rows if row.outcome == "fail"] if outcome == "fail" else [worst]
    return shown


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
