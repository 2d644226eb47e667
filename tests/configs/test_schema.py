"""The JSON Schema that editors read is what the code says."""

import json
from pathlib import Path

import pytest

from tools.schema import experiment_schema

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_shipped_schema_is_up_to_date():
    shipped = json.loads((CONFIGS / "experiment.schema.json").read_text())
    assert shipped == experiment_schema(), "run: python -m tools.schema > configs/experiment.schema.json"


def test_the_schema_knows_include_and_describes_keys():
    schema = experiment_schema()
    assert "include" in schema["properties"]
    assert "subdivisions" in schema["$defs"]["Trainer"]["properties"]["micro_batches"]["description"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_every_file_points_editors_to_the_schema(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=../experiment.schema.json\n")
