"""The YOLO task on shards: the command that makes them, and the same batches, weights and detections as from files."""

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from configs.experiment import Experiment
from official.core.checkpoint import find_checkpoint
from official.core.config_io import dump_config, load_config
from official.core.task import HostShare
from tasks import build_task, jobs
from tests.conftest import EXPERIMENTS
from tools import shards as convert
from tools.demo_data import write_synthetic

DEMO = EXPERIMENTS / "demo.yaml"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """The demo at a small size, from files and from the shards that the command made of them."""
    root = tmp_path_factory.mktemp("shards")
    write_synthetic(root / "data", 10, 5, workers=1)
    source = "{{type: coco, annotations: {0}/data/instances_{1}.json, images: {0}/data/{1}}}"
    common = [
        "task.data.train.batch_size=4",
        "task.data.validation.batch_size=4",
        "task.data.train.max_boxes=12",
        "task.model.input_size=[64, 96]",
        "task.model.backbone.width=0.25",
        "trainer.duration={steps: 4}",
        "trainer.steps_per_loop=2",
        "trainer.checkpoint.every={steps: 4}",
    ]
    sources = [f"task.data.train.source={source.format(root, 'train')}",
               f"task.data.validation.source={source.format(root, 'val')}"]  # fmt: skip
    files = load_config(str(DEMO), Experiment, [*common, *sources])
    (root / "files.yaml").write_text(dump_config(files))
    for split, shards in (("train", 3), ("validation", 2)):
        arguments = ["--config", str(root / "files.yaml"), "--split", split, "--output", str(root / "out")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["convert", *arguments, "--shards", str(shards), "--workers", "2"])
            convert.main()
    sources = [
        f"task.data.{split}.source={{type: tfrecord, manifest: {root}/out/{split}.json}}"
        for split in ("train", "validation")
    ]
    return files, load_config(str(DEMO), Experiment, [*common, *sources]), root


def test_the_command_says_what_to_write_into_the_experiment(experiments, monkeypatch, capsys):
    _, _, root = experiments
    arguments = ["--config", str(root / "files.yaml"), "--split", "train", "--output", str(root / "out")]
    monkeypatch.setattr(sys, "argv", ["convert", *arguments, "--shards", "3"])
    convert.main()
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["source"] == {"type": "tfrecord", "manifest": f"{root}/out/train.json"}
    monkeypatch.setattr(sys, "argv", ["convert", *arguments, "--shards", "4"])
    with pytest.raises(SystemExit):
        convert.main()
    assert "error: " in (said := capsys.readouterr().err) and "shards was 3, now 4" in said


def test_a_task_sees_the_same_batches_facts_and_truth(experiments):
    tasks = [build_task(experiment) for experiment in experiments[:2]]
    assert tasks[0].facts() == tasks[1].facts() and tasks[0].examples_per_epoch() == 10
    streams = [itertools.islice(task.train_inputs(1, HostShare(), (64, 96)), 3) for task in tasks]
    evaluated = [task.eval_inputs() for task in tasks]
    assert [int(dataset.cardinality()) for dataset in evaluated] == [2, 2]
    for ours, other in itertools.chain(zip(*streams, strict=True), zip(*evaluated, strict=True)):
        for one, another in zip(tf.nest.flatten(ours), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(one, another)
    assert tasks[0].validation_data.ground_truth() == tasks[1].validation_data.ground_truth()
    reports = [task.data_reports() for task in tasks]
    assert reports[0]["train"]["images"] == reports[1]["train"]["images"]
    name = tasks[1].example_name(3)
    assert name.startswith(tasks[0].example_name(3)) and "tfrecord, record" in name


def test_a_damaged_record_is_named_by_the_task(experiments, tmp_path):
    task = build_task(experiments[1])
    row = task.train_data.image_ids.tolist().index(6)
    assert task.replace_unreadable(0, 3) == []
    task.check_eval_inputs()
    path = Path(task.train_data.place(row).partition(",")[0])
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(task.train_data.offsets[row]) + 2_000] ^= 1
    path.write_bytes(damaged)
    try:
        (message,) = task.replace_unreadable(0, 3)
        assert re.search(r"train-0000\d-of-00003\.tfrecord, record \d \(image id 6\): cannot be read", message)
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
def test_training_and_evaluation_from_shards_are_those_from_files(experiments, tmp_path):
    weights, detections, scores = [], [], []
    for name, experiment in zip(("files", "shards"), experiments[:2], strict=True):
        metrics = jobs.train(experiment, str(tmp_path / name), evaluate=True)
        reader = tf.train.load_checkpoint(f"{find_checkpoint(str(tmp_path / name))}/state")
        weights.append({key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if "weights" in key})
        detections.append(json.loads((tmp_path / name / "detections.json").read_text()))
        scores.append({key: metrics[key] for key in ("AP", "AP50", "darknet_mAP50", "images")})
    assert len(weights[0]) > 50 and weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][key])
    assert detections[0] and detections[0] == detections[1] and scores[0] == scores[1]
