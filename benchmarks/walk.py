"""How much someone reads to follow one training step of a [yolo] head below the YAML, with either gradient.

The goals: with `gradient: autodiff` at most 3 files and 250 lines, with `gradient: darknet` at most 5 files and 500
lines. `python -m benchmarks.walk [--json FILE]` counts the lines, docstrings and comments included, blank lines not.

Neither walk counts what a step calls as a library, whose docstrings are enough to go on: which prediction answers for
which truth (losses/yolo/assignment.py), what the raw numbers mean (modeling/yolo/heads/yolo.py), and overlaps of boxes
(official/vision/boxes.py, losses/yolo/darknet/iou.py). Darknet's loop over the truths is no library: it is counted.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from benchmarks.report import arguments, publish
from losses.yolo import autodiff
from losses.yolo.darknet import head_loss
from losses.yolo.darknet import yolo as yolo_darknet
from official.core import step
from tasks.yolo.task import Yolo

COMMON: list[ModuleType | Callable] = [step, Yolo.prepare, Yolo.loss]
WALKS: dict[str, list[ModuleType | Callable]] = {
    "autodiff": [*COMMON, autodiff],
    "darknet": [*COMMON, autodiff.yolo_loss, yolo_darknet, head_loss],
}


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    rows = []
    for gradient, walk in WALKS.items():
        parts = [_read(gradient, part) for part in walk]
        files = f"{len({row['file'] for row in parts})} files"
        total = {"gradient": gradient, "what": "all", "file": files, "lines": sum(row["lines"] for row in parts)}
        rows += [*parts, total]
    publish("One training step below the YAML", rows, options.json)


def _read(gradient: str, part: ModuleType | Callable) -> dict[str, str | int]:
    lines = [line for line in inspect.getsource(part).splitlines() if line.strip()]
    file = str(Path(inspect.getsourcefile(part)).relative_to(Path.cwd()))
    what = getattr(part, "__qualname__", part.__name__)
    return {"gradient": gradient, "what": what, "file": file, "lines": len(lines)}


if __name__ == "__main__":
    main()
