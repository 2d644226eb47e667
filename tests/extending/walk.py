"""A walk of docs/extending.md: a copy of the house, new files in their places, and a line in each file of a table."""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

HERE = Path(__file__).parent
ROOMS = (
    *("benchmarks", "configs", "dataloaders", "losses", "modeling", "official"),
    *("reproduction", "serving", "tasks", "tools"),
)
FILES = (  # what else the walks' tests read
    *("pyproject.toml", "docs/differences.md"),
    *("tests/__init__.py", "tests/conftest.py", "tests/coco_folder.py", "tests/test_rooms.py"),
)


class Walk(NamedTuple):
    """What is added to the house.

    name: of the folder beside this file that has the new files, laid out as the house is.
    edits: of each existing file that has to be edited: (a text in it, what is put before that).
    """

    name: str
    edits: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def new_files(self) -> list[str]:
        """From the root of the house, without tests and empty files."""
        folder = HERE / self.name
        found = [path for path in sorted(folder.rglob("*.py")) if path.stat().st_size]
        return [str(path.relative_to(folder)) for path in found if path.relative_to(folder).parts[0] != "tests"]


def house_with(walks: Sequence[Walk], folder: Path) -> Path:
    """A copy of the house with what these walks add."""
    house = folder / "house"
    for room in ROOMS:
        shutil.copytree(ROOT / room, house / room)
    for path in [*ROOT.glob("*.py"), *(ROOT / name for name in FILES)]:
        (house / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy2(path, house / path.relative_to(ROOT))
    for walk in walks:
        for name in walk.new_files:
            assert not (house / name).exists(), f"{name} is there already: it would be edited, not new"
        shutil.copytree(HERE / walk.name, house, dirs_exist_ok=True)
        for name, changes in walk.edits.items():
            text = (house / name).read_text()
            for anchor, put in changes:
                assert text.count(anchor) == 1, f"{name} has {anchor!r} {text.count(anchor)} times"
                text = text.replace(anchor, put + anchor)
            (house / name).write_text(text)
    return house


def run_tests(house: Path) -> None:
    """Runs the walks' tests in the copy, and that the house keeps its order."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=house, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
