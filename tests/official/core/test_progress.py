"""Progress in a log file: plain lines, with counts, rate and time left."""

import re

from official.core import progress as module
from official.core.progress import progress, track


def test_lines_in_a_log_tell_count_rate_and_note(capsys, monkeypatch):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.0)
    with progress("training", total=10, start=4) as advance:
        advance(3, "loss 1.5")
        advance(3, "loss 1.2")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"training: 7/10 \([\d.]+/s, \d+ s left\) loss 1\.5", lines[0])
    assert re.fullmatch(r"training: 10/10 \([\d.]+/s\) loss 1\.2", lines[1])


def test_a_quiet_interval_prints_nothing_but_the_end(capsys):
    assert list(track(range(5), "counting")) == [0, 1, 2, 3, 4]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("counting: 5/5")
