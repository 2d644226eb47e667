"""How much someone reads to follow one training step below the YAML: at most 3 files and 250 lines.

`python -m benchmarks.walk [--json FILE]`: counts the lines, docstrings and comments included, blank lines not.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from benchmarks.report import arguments, publish
from losses import yolo as loss
from official.core import step
from tasks.yolo import Yolo

WALK: list[ModuleType | Callable] = [step, Yolo.prepare, Yolo.loss, loss]


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    rows = []
    for part in WALK:
        lines = [line for line in inspect.getsource(part).splitlines() if line.strip()]
        file = str(Path(inspect.getsourcefile(part)).relative_to(Path.cwd()))
        rows.append({"what": getattr(part, "__qualname__", part.__name__), "file": file, "lines": len(lines)})
    files = len({row["file"] for row in rows})
    rows.append({"what": "all", "file": f"{files} files", "lines": sum(row["lines"] for row in rows)})
    publish("One training step below the YAML", rows, options.json)


if __name__ == "__main__":
    main()
