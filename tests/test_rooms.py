"""The house keeps its order: imports only go down, in no circle, and no file outside a family's folders names it."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tasks import TASKS
from tests.conftest import ROOT

# From the top. An import goes to a lower line or stays in its own; a line is the files below all its folders.
ORDER = (
    ("benchmarks", "train.py", "evaluate.py", "export.py", "detect.py", "reproduce.py"),
    ("tools",),
    ("reproduction/prove.py", "reproduction/recordings.py", "reproduction/foreign.py"),
    ("reproduction/report",),
    ("reproduction/gates",),
    ("reproduction/originals.py",),
    *((f"reproduction/{family}",) for family in TASKS),
    ("reproduction/seeded",),
    ("reproduction/experiment",),
    ("reproduction/traces",),
    ("reproduction/restated", "reproduction/__init__.py"),
    ("serving",),
    ("tasks/jobs.py",),
    ("tasks/__init__.py",),
    *((f"tasks/{family}",) for family in TASKS),
    ("tasks",),
    *((f"losses/{family}",) for family in TASKS),
    ("losses",),
    ("dataloaders/stream.py", "dataloaders/pipeline.py", "dataloaders/pictures.py"),
    *((f"dataloaders/{family}",) for family in TASKS),
    ("dataloaders/compose",),
    ("dataloaders/schedule",),
    ("dataloaders/reading",),
    ("dataloaders",),
    *((f"modeling/{family}",) for family in TASKS),
    ("modeling/darknet",),
    ("modeling/backbones", "modeling/decoders"),
    ("modeling",),
    ("configs/experiment.py",),
    *((f"configs/{family}",) for family in TASKS),
    ("configs",),
    ("official",),
)
TABLES = ("configs/experiment.py", "tasks/__init__.py", "reproduction/originals.py")  # one line for each family
# A family's word: not that of a published model, such as yolov4_tiny, which names a backbone.
WORDS = re.compile("|".join(rf"{family}(?!v\d)" for family in TASKS), re.IGNORECASE)
# "darknet" names a file format and a recipe, here alone.
DARKNET = (
    *("modeling/darknet", "dataloaders/compose", "dataloaders/augment", "dataloaders/reading", "tools"),
    *("official/vision/darknet_map.py", "official/vision/evaluator.py", "configs/data.py", "configs/colour.py"),
    "official/core/config.py",  # a metric of that name
    *("train.py", "evaluate.py", "export.py", "detect.py", "reproduce.py", "reproduction/prove.py", "benchmarks"),
)


def files() -> Iterator[Path]:
    """All files of the product, from the root. Former names of commands, each alone in a folder, are none."""
    rooms = {line.partition("/")[0] for lines in ORDER for line in lines}
    for room in sorted(rooms):
        found = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
        yield from (
            path.relative_to(ROOT) for path in found if path.parent == ROOT or (path.parent / "__init__.py").exists()
        )


FILES = list(files())
MODULES = {str(path.with_suffix("")).replace("/", ".").removesuffix(".__init__"): path for path in FILES}


@functools.cache
def imports(path: Path) -> dict[Path, int]:
    """The files of the product that a file imports when it is loaded or run, with a line that does so."""
    found: dict[Path, int] = {}
    tree = ast.parse((ROOT / path).read_text())
    for_types = {id(node) for test in ast.walk(tree) if _is_type_checking(test) for node in ast.walk(test)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{one.name}" for one in node.names]
            names = [name if name in MODULES else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        found |= {MODULES[name]: node.lineno for name in names if name in MODULES}
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


PLACES = [(Path(place).parts, number) for number, places in enumerate(ORDER) for place in places]


def line_of(path: Path) -> int:
    """The line of ORDER that a file stands in: that of its longest prefix."""
    return max((len(place), number) for place, number in PLACES if path.parts[: len(place)] == place)[1]


def test_imports_only_go_down():
    siblings = [number for number, (first, *_) in enumerate(ORDER) if Path(first).name in TASKS]
    wrong = []
    for path in FILES:
        here = line_of(path)
        for other, number in imports(path).items():
            there = line_of(other)
            is_of_another_family = here != there and {here, there} <= set(siblings) and path.parts[0] == other.parts[0]
            if there < here or is_of_another_family:
                wrong.append(f"{path}:{number} imports {other}")
    assert wrong == []


def test_no_imports_in_a_circle():
    below = {path: set(imports(path)) - {path} for path in FILES}
    while free := {path for path, others in below.items() if not others}:
        below = {path: others - free for path, others in below.items() if path not in free}
    circle = {path: others & set(below) for path, others in below.items()}
    while ends := {path for path in circle if not any(path in others for others in circle.values())}:
        circle = {path: others for path, others in circle.items() if path not in ends}
    assert {str(path): sorted(map(str, others)) for path, others in circle.items()} == {}


def words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of each identifier, imported name and string that is no docstring."""
    tree = ast.parse((ROOT / path).read_text())
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and _has_doc(node)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield line, node.value
        for name in ("id", "attr", "arg", "name", "asname", "module"):
            if isinstance(text := getattr(node, name, None), str):
                yield line, text


def _has_doc(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


def is_in(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.parts[: len(Path(place).parts)] == Path(place).parts for place in places)


def naming(pattern: re.Pattern, places: tuple[str, ...]) -> list[str]:
    """Where else than in these places and in families' folders something is named so."""
    elsewhere = [path for path in FILES if not (set(path.parts) & set(TASKS) or is_in(path, places))]
    return [f"{path}:{line} {text[:60]!r}" for path in elsewhere for line, text in words(path) if pattern.search(text)]


def test_what_lies_outside_a_family_names_none():
    # [yolo] is a section of Darknet's files.
    assert naming(WORDS, (*TABLES, "modeling/darknet", "tools", "benchmarks")) == []


def test_darknet_is_named_where_its_files_and_its_recipe_are():
    """Sentences may say whose rule an option follows; names and values may not. Darknet-53 is a backbone's name."""
    assert naming(re.compile(r"^\S*darknet(?!53)\S*$", re.IGNORECASE), (*TABLES, *DARKNET)) == []
