"""An original of one's own: its recipe, and its recordings, through the gates."""

import numpy as np
import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from reproduction.centernet.mine.original import MINE
from reproduction.centernet.restated import centernet
from reproduction.experiment.subject import subject_of
from reproduction.gates import pass_through
from reproduction.originals import with_original
from reproduction.traces.trace import Source, write_trace
from tests.conftest import ROOT


@pytest.fixture
def trace(tmp_path):
    """What mine recorded, as its own program would write it."""
    rng = np.random.default_rng(0)
    hm, wh, reg = (rng.uniform(0, 1, (1, 48, 56, channels)).astype(np.float32) for channels in (6, 2, 2))
    boxes, scores = centernet.decode(hm, 9 * wh, reg, 100)
    arrays = {"hm": hm, "wh": 9 * wh, "reg": reg, "boxes": boxes, "scores": scores}
    write_trace(tmp_path / "mine_one.npz", arrays, Source(program="mine"))
    return arrays


def subject(folder, original="mine", cases=("mine_*",)):
    claims = f"{{paper: none, original: {original}, traces: ['{folder}']}}"
    path = str(ROOT / "configs" / "experiments" / "demo_centernet.yaml")
    experiment = load_config(path, Experiment, [f"reproduces={claims}"])
    return with_original(subject_of(experiment, [], None, None, list(cases)))


def test_it_is_chosen_by_its_name_alone(tmp_path):
    assert subject(tmp_path).original is MINE
    assert subject(tmp_path, "ctdet").original.name == "centernet"


def test_its_recording_is_compared(trace, tmp_path):
    result = pass_through(3, subject(tmp_path))
    assert (result.outcome, [row.quantity for row in result.rows]) == ("pass", ["boxes", "scores"])
    assert result.ran == {"mine_decode": ("task.model.head",)}


def test_another_number_fails(trace, tmp_path):
    write_trace(tmp_path / "mine_one.npz", {**trace, "scores": trace["scores"] + 0.01})
    assert [row.quantity for row in pass_through(3, subject(tmp_path)).rows if row.outcome == "fail"] == ["scores"]


def test_without_a_recording_the_gate_says_what_it_lacks(tmp_path):
    result = pass_through(3, subject(tmp_path))
    assert result.outcome == "no_inputs" and "no recorded case mine_*.npz" in result.note


def test_its_recipe_is_compared(tmp_path):
    rows = pass_through(1, subject(tmp_path, cases=())).rows
    assert [row.quantity for row in rows if row.outcome == "fail"] == ["trainer.schedule.learning_rate"]
