"""Each checklist of docs/extending.md, followed in a copy of the house."""

import re

import pytest

from tasks.detection import DetectionTask
from tests.conftest import ROOT
from tests.extending.walk import Walk, house_with, run_tests

FAMILY = Walk(
    "family",
    {
        "configs/experiment.py": [
            ("from configs.centernet.task import", "from configs.toy.task import ToyTask\n"),
            ('Annotated[YoloTask, Tag("yolo")]', 'Annotated[ToyTask, Tag("toy")] | '),
        ],
        "tasks/__init__.py": [
            ("from tasks.centernet.task import", "from tasks.toy.task import Toy\n"),
            ('"yolo": Yolo', '"toy": Toy, '),
        ],
        "reproduction/originals.py": [
            ("from reproduction.centernet.original import", "from reproduction.toy.original import TOY\n"),
            ('    "darknet": DARKNET,', '    "toy": TOY,\n'),
        ],
    },
)
BACKBONE = Walk(
    "backbone",
    {
        "configs/backbones.py": [
            (
                "\n\nBackbone = Annotated[\n",
                "\n\nclass PlainBackbone(_Backbone):\n"
                '    type: Literal["plain"] = "plain"\n'
                "    filters: PositiveInt = 16\n",
            ),
            ("    | HourglassBackbone,\n", "    | PlainBackbone\n"),
        ],
        "modeling/backbones/__init__.py": [
            ("from modeling.backbones.resnet import", "from modeling.backbones.plain import plain\n"),
            ('    "hourglass": hourglass,\n', '    "plain": plain,\n'),
        ],
    },
)
COLOUR = Walk(
    "colour",
    {
        "configs/colour.py": [
            ("\n\nColour = Annotated[\n", '\n\nclass Grey(Config):\n    type: Literal["grey"] = "grey"\n'),
            ('    | Annotated[HsvGains, Tag("hsv_gains")],\n', '    | Annotated[Grey, Tag("grey")]\n'),
        ],
        "dataloaders/augment/colour.py": [
            ("from dataloaders.augment.hsv import", "from dataloaders.augment.grey import greyed\n"),
            ('    "hsv_gains": _after_flip(', '    "grey": _after_flip(greyed),\n'),
        ],
    },
)
CUTOUT = Walk(
    "cutout",
    {
        "configs/data.py": [
            ("    plain_last: Duration | None", "    cutout: float = Field(0.0, ge=0, le=1)\n"),
        ],
        "dataloaders/pipeline.py": [
            (
                "from dataloaders.compose.example_maker import",
                "from dataloaders.compose.cutout import with_cutout\n",
            ),
            ("    return batched(elements, make,", "    make = with_cutout(make, split)\n"),
        ],
    },
)
ORIGINAL = Walk(
    "original",
    {
        "reproduction/originals.py": [
            ("from reproduction.centernet.original import", "from reproduction.centernet.mine.original import MINE\n"),
            ("}\nEVERY_CHECK", '    "mine": MINE,\n'),
        ],
    },
)
FORMAT = Walk(
    "format",
    {
        "serving/formats/__init__.py": [
            ("from serving.formats.folder import", "from serving.formats import abacus\n"),
            ('"saved_model":', '"abacus": abacus, '),
        ],
    },
)
TITLES = {
    "A detector family": FAMILY,
    "A backbone": BACKBONE,
    "An augmentation of colour": COLOUR,
    "An augmentation after any recipe": CUTOUT,
    "An original of your own": ORIGINAL,
    "An export format": FORMAT,
}
# The guide's placeholders for the names in the walks.
CHOSEN = {"toy": "F", "plain": "NAME", "grey": "NAME", "cutout": "NAME", "mine": "NAME", "abacus": "NAME"}
GUIDE = (ROOT / "docs" / "extending.md").read_text()


def test_a_family(tmp_path):
    """Edited: configs/experiment.py, tasks/__init__.py, reproduction/originals.py.

    New: configs/toy/task.py, modeling/toy/{network, decode}.py, losses/toy/loss.py, tasks/toy/task.py,
    reproduction/toy/{restated, seeded, original}.py.
    """
    run_tests(house_with([FAMILY], tmp_path))


def test_parts_a_format_and_an_original(tmp_path):
    """All in one house, for one start of TensorFlow.

    Backbone: configs/backbones.py, modeling/backbones/__init__.py; new: modeling/backbones/plain.py.
    Colour: configs/colour.py, dataloaders/augment/colour.py; new: dataloaders/augment/grey.py.
    After any recipe: configs/data.py, dataloaders/pipeline.py; new: dataloaders/compose/cutout.py.
    Format: serving/formats/__init__.py; new: serving/formats/abacus.py.
    Original: reproduction/originals.py; new: reproduction/centernet/mine/original.py.
    """
    run_tests(house_with([BACKBONE, COLOUR, CUTOUT, FORMAT, ORIGINAL], tmp_path))


def section(title: str) -> str:
    """The guide's text below a heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE).group(1)


@pytest.mark.parametrize("title", TITLES)
def test_the_checklist_names_what_the_walk_edits(title):
    walk, text = TITLES[title], section(title)
    (edited,) = re.findall(r"^Edit (\d): (.*)$", text, re.MULTILINE)
    named = re.findall(r"`([\w/.]+)`", edited[1])
    assert (int(edited[0]), sorted(named)) == (len(walk.edits), sorted(walk.edits))
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("title", TITLES)
def test_the_checklist_names_the_new_files(title):
    walk, text = TITLES[title], section(title)
    assert walk.new_files
    for name in walk.new_files:
        for word, placeholder in CHOSEN.items():
            name = re.sub(rf"\b{word}\b", placeholder, name)
        assert f"`{name}`" in text


def test_what_the_guide_names_is_there():
    named = re.findall(r"`([\w.]+/[\w./]+\.(?:py|md|yaml|json))`", GUIDE)
    paths = [path for path in named if not {"F", "NAME", "NAME.py"} & set(path.split("/"))]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_checklist_of_a_family_has_every_abstract_member():
    named = set(re.findall(r"   def (\w+)\(self", section("A detector family")))
    assert named == DetectionTask.__abstractmethods__ and len(named) == 9
