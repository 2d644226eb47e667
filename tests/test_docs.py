"""What texts name is there: files, commands, links. Texts are the documents, experiments, and what sources say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_rooms import FILES, ORDER

ROOMS = sorted({line.partition("/")[0] for lines in ORDER for line in lines if not line.endswith(".py")} | {"tests"})
# Not what lies in tests/saved_by_version_1, which was made by the commands of then.
DOCUMENTS = ["README.md", "docs/*.md", "tests/golden*/*.md", "Makefile", ".pre-commit-hooks.yaml", "configs/**/*.yaml"]
TEXTS = [path.relative_to(ROOT) for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]
_ROOM = "|".join(ROOMS + ["docs"])
# Behind a folder it is another repository's, or a run's: ../shared/configs/x.yaml.
PATH = re.compile(rf"(?<![\w./-])(?:{_ROOM})/[\w./*{{}},-]*\.[a-z0-9*]+(?![\w/*])")
OWN = re.compile(r"\b(F|NAME)\b")  # stands for a name of the reader's
DOOR = re.compile(r"python3? ([\w/]+\.py)\b")
COMMAND = re.compile(rf"python3? -m ((?:{_ROOM})(?:\.\w+)+)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        yield f"{path}:{number}", line


def is_there(name: str) -> bool:
    """Whether a path, or one of a pattern `a/{b,c}_*.d`, is a file."""
    first, brace, rest = name.partition("{")
    if brace:
        choices, _, last = rest.partition("}")
        return all(is_there(f"{first}{choice}{last}") for choice in choices.split(","))
    return any(path.is_file() for path in ROOT.glob(name))


def is_command(module: str) -> bool:
    """Whether `python -m module` does something."""
    path = ROOT / module.replace(".", "/")
    file = path.with_suffix(".py")
    return (path / "__main__.py").is_file() or (file.is_file() and '__name__ == "__main__"' in file.read_text())


def is_former(module: str) -> bool:
    """Whether a command is only there to say its new name."""
    return (ROOT / module.replace(".", "/") / "__main__.py").is_file() and not is_package(module)


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__init__.py").is_file()


def anchors(path: Path) -> set[str]:
    """Of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("found", [PATH, DOOR])
def test_files_that_are_named_are_there(found):
    told = [told for path in [*TEXTS, *FILES] for told in lines(path)]
    named = [(place, name) for place, line in told for name in found.findall(line) if not OWN.search(name)]
    assert len(named) > 20
    assert [f"{place} {name}" for place, name in named if not is_there(name)] == []


def test_commands_that_are_named_are_there():
    told = [told for path in [*TEXTS, *FILES] for told in lines(path)]
    named = [(place, line, name) for place, line in told for name in COMMAND.findall(line)]
    assert len(named) > 20
    assert [f"{place} {name}" for place, _, name in named if not is_command(name)] == []
    # Those that go with the next release are only named as such.
    assert [f"{place} {name}" for place, line, name in named if is_former(name) and "former" not in line] == []


def test_links_lead_somewhere():
    broken, count = [], 0
    for text in (path for path in TEXTS if path.suffix == ".md"):
        for place, line in lines(text):
            for name, anchor in LINK.findall(line):
                target = (ROOT / text).parent / name if name else ROOT / text
                count += 1
                if not target.exists() or (anchor and anchor not in anchors(target)):
                    broken.append(f"{place} {name}#{anchor}")
    assert count > 20 and broken == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see `tools/convert.py`.", ["tools/convert.py"]),
        (
            "(configs/experiments/{demo,bccd}*.yaml, tests/x.npz)",
            ["configs/experiments/{demo,bccd}*.yaml", "tests/x.npz"],
        ),
        ("../shared/configs/x.yaml runs/demo/config.yaml x/docs/y.md", []),
        ("tools/ and modeling/darknet/", []),
    ],
)
def test_what_counts_as_a_path(text, found):
    assert PATH.findall(text) == found


def test_what_is_not_there_is_found():
    assert is_there("configs/experiments/{demo,bccd}*.yaml") and is_there("tests/test_docs.py")
    assert not is_there("configs/experiments/{demo,none}*.yaml") and not is_there("modeling/darknet/convert.py")
    assert is_command("tools.convert") and is_command("tools.doctor") and is_command("modeling.torch_convert")
    assert not is_command("tools.flops") and not is_command("tools.none")
    assert is_former("modeling.torch_convert") and not is_former("tools.doctor")
