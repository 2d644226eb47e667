"""Evaluation beside a training job: each new checkpoint once, the moving average if there is one, a timeout."""

import json
import threading

import numpy as np
import pytest

from official.core.checkpoint import CheckpointError, find_checkpoint
from official.core.evaluation import Evaluation, new_checkpoints
from tests.official.core.toy_task import ToyTask, make_run, trained


def test_metrics_and_detections_are_written_beside_each_other(tmp_path):
    run = trained(tmp_path / "run")
    metrics = Evaluation(ToyTask(), str(tmp_path / "out"))(run.checkpoints.latest())
    assert metrics["step"] == 6 and metrics["checkpoint"].endswith("step-00000006")
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == metrics
    assert len(json.loads((tmp_path / "out/detections.json").read_text())) == metrics["images"] == 8


def test_the_moving_average_is_what_is_scored(tmp_path):
    run = trained(tmp_path, moving_average={"decay": 0.5, "warm_up": False})
    evaluation = Evaluation(ToyTask(), str(tmp_path))
    evaluation(run.checkpoints.latest())
    scored = [np.array(variable) for variable in evaluation.model.variables]
    names = [variable.path for variable in evaluation.model.variables]
    average = run._groups()["average"]
    for name, value in zip(names, scored, strict=True):
        np.testing.assert_array_equal(value, average[name].numpy())
    assert not np.array_equal(average["body_conv/kernel"].numpy(), run.variables.weights[0].numpy())


def test_watching_yields_every_new_checkpoint_in_order_and_ends_after_the_timeout(tmp_path):
    run = make_run(tmp_path)
    run.resume_or_initialise()
    save = lambda step: run.checkpoints.save(step, run._groups(), run._facts())  # noqa: E731
    save(1)
    seen = []
    for path in new_checkpoints(run.checkpoints, timeout=0.6, poll_seconds=0.05):
        seen.append(path[-8:])
        if len(seen) == 1:  # two appear while the first is evaluated
            save(2)
            save(3)
        if len(seen) == 3:  # one appears later
            threading.Timer(0.3, save, [4]).start()
    assert seen == ["00000001", "00000002", "00000003", "00000004"]


def test_a_run_is_found_by_its_best_checkpoint_and_nothing_is_a_clear_error(tmp_path):
    run = trained(tmp_path / "run")
    assert find_checkpoint(str(tmp_path / "run")).endswith("step-00000006")
    run.checkpoints.record_score(run.checkpoints.directory + "/step-00000004", "AP", 0.5)
    assert find_checkpoint(str(tmp_path / "run") + "/").endswith("step-00000004")
    assert find_checkpoint(run.checkpoints.latest()).endswith("step-00000006")
    with pytest.raises(CheckpointError, match="nowhere: holds no complete checkpoint; expected a run folder"):
        find_checkpoint(str(tmp_path / "nowhere"))
