"""The shipped experiments that claim to reproduce something, beside everything recorded: no gate fails."""

from pathlib import Path

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from reproduction.gates import BEFORE_TRAINING, pass_through
from reproduction.subject import Subject
from tests.conftest import SUBSETS

EXPERIMENTS = SUBSETS.parent / "configs" / "experiments"
CLAIMING = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml") if "\nreproduces:" in path.read_text())


def failures(name: str, number: int, shared: Path) -> list[str]:
    experiment = load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, [])
    traces = (shared / "golden", shared / "golden_centernet")
    result = pass_through(number, Subject(experiment, traces, shared / "assets"))
    return [f"{row.case} {row.quantity}: {row.note}" for row in result.rows if row.outcome == "fail"]


@pytest.mark.parametrize("name", CLAIMING)
def test_no_recipe_is_called_another(shared, name):
    assert failures(name, 1, shared) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", BEFORE_TRAINING[1:])
@pytest.mark.parametrize("name", CLAIMING)
def test_no_gate_fails(shared, name, number):
    assert failures(name, number, shared) == []
