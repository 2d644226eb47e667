"""Progress of long work: a bar with rate and time left on a terminal, plain lines every few seconds in a log file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
LOG_SECONDS = 10.0
Advance = Callable[[int, str], None]


def say(line: str) -> None:
    """A line for who started the program: on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int | None, start: int = 0) -> Iterator[Advance]:
    """Shows how far work of `total` units is; yields `advance(units, note)`.

    Args:
        description: what is being done.
        total: number of units, or None when unknown.
        start: units that an earlier run already did; they do not count into the rate.
    """
    if sys.stderr.isatty():
        with _terminal_bar(description, total, start) as advance:
            yield advance
    else:
        yield _log_lines(description, total, start)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterates over `items`, showing progress."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance(1, "")


_shown: list[Progress] = []  # the bars on the terminal; work inside other work gets a line below it


@contextmanager
def _bars() -> Iterator[Progress]:
    if _shown:
        yield _shown[0]
        return
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    ]  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        _shown.append(bars)
        try:
            yield bars
        finally:
            _shown.clear()


@contextmanager
def _terminal_bar(description: str, total: int | None, start: int) -> Iterator[Advance]:
    inside_other_work = bool(_shown)
    with _bars() as bar:
        task = bar.add_task(description, total=total, completed=start, rate="", note="")
        began, done = time.monotonic(), 0

        def advance(units: int, note: str) -> None:
            nonlocal done
            done += units
            bar.update(task, advance=units, note=note, rate=f"{done / (time.monotonic() - began + 1e-9):.1f}/s")

        yield advance
        if inside_other_work:
            bar.remove_task(task)


def _log_lines(description: str, total: int | None, start: int) -> Advance:
    began = last = time.monotonic()
    done = 0

    def advance(units: int, note: str) -> None:
        nonlocal last, done
        done += units
        now = time.monotonic()
        finished = total is not None and start + done >= total
        if now - last < LOG_SECONDS and not finished:
            return
        last, rate = now, done / (now - began + 1e-9)
        left = f", {(total - start - done) / rate:.0f} s left" if total is not None and not finished else ""
        of_total = f"/{total}" if total is not None else ""
        print(
            f"{description}: {start + done}{of_total} ({rate:.1f}/s{left}) {note}".rstrip(), file=sys.stderr, flush=True
        )

    return advance
