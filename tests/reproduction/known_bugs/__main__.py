"""python -m tests.reproduction.known_bugs [PATTERN ...]: plants the bugs whose names match, and prints what is said.

x-- stands for: detected at the right gate and at none before, at the right quantity, with the right cause.
"""

import fnmatch
import sys
import time
from pathlib import Path

from tests.reproduction.known_bugs import RUN, SUITE
from tests.reproduction.known_bugs.bug import Answer, ask

SHARED = Path(__file__).resolve().parents[4] / "shared"


def main(patterns: list[str]) -> int:
    wanted = [
        bug
        for bug in (*SUITE, *RUN)
        if not patterns or any(fnmatch.fnmatch(f"{bug.plant.__module__}: {bug.name}", f"*{one}*") for one in patterns)
    ]
    answers, cpu = [], time.process_time()
    for bug in wanted:
        answers.append(ask(bug, SHARED))
        print(_line(answers[-1]), flush=True)
    counts = [sum(getattr(one, name) for one in answers) for name in ("is_detected", "is_located", "is_explained")]
    print(
        f"{len(answers)} bugs: {counts[0]} detected at the right gate, {counts[1]} at the right quantity, "
        f"{counts[2]} with the right cause among the first two hints; {time.process_time() - cpu:.0f} s CPU"
    )
    return 0 if counts == [len(answers)] * 3 else 1


def _line(answer: Answer) -> str:
    bug, row = answer.bug, answer.row
    marks = "".join("x" if ok else "-" for ok in (answer.is_detected, answer.is_located, answer.is_explained))
    numbers = ",".join(map(str, bug.entries))
    early = f" (and gates {answer.too_early} before)" if answer.too_early else ""
    note = f" [{row.note}]" if row and not row.hints and row.note else ""
    found = ", ".join(answer.causes[:4]) or "no hint"
    return (
        f"{marks} {bug.name:<44} #{numbers:<6} gate {bug.gate}{early} {answer.result.outcome:<5} {answer.where}: "
        f"{found}{note}  {answer.seconds:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
