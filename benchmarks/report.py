"""What every benchmark shares: interleaved timing, a table on the screen, figures in a JSON file."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each function in each round, called in turn, so that drift of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(warm_up + rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def timing_rows(seconds: dict[str, list[float]], base: str) -> list[dict[str, Any]]:
    """A row per function: median and least milliseconds, and the median over the rounds of its ratio to `base`."""
    return [
        {
            "what": name,
            "median ms": 1000 * statistics.median(values),
            "min ms": 1000 * min(values),
            f"ratio to {base}": statistics.median(a / b for a, b in zip(values, seconds[base], strict=True)),
        }
        for name, values in seconds.items()
    ]


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser that has `--json FILE`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    return parser


def publish(title: str, rows: Sequence[dict[str, Any]], json_file: str | None) -> None:
    """Prints rows (all with the same keys) as a table, and writes them to `json_file`."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if json_file:
        Path(json_file).write_text(json.dumps({"title": title, "rows": list(rows)}, indent=1))
