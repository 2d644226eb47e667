"""A user arrives with x.cfg, x.weights, x.data: trained, resumed, evaluated, exported, by what the doors call."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.experiment import Experiment
from modeling.darknet.cfg import read_cfg
from modeling.darknet.weights import network_records, read_weights
from modeling.darknet.weights import write_weights as write_weights_file
from official.core.checkpoint import CheckpointError, CheckpointFolder
from official.core.config_io import load_config
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import jobs
from tasks.yolo.darknet_files import evaluation_experiment, export_experiment, training_experiment
from tests.tasks.yolo.darknet_files import NAMES, DarknetFiles, write_project, write_weights

OVERRIDES = ["runtime.device=cpu", "trainer.steps_per_loop=3"]


class Trained(NamedTuple):
    files: DarknetFiles
    experiment: Experiment
    run: Path
    metrics: dict


pytestmark = pytest.mark.slow  # a training and what follows from it


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    root = tmp_path_factory.mktemp("darknet")
    files, run = write_project(root), root / "run"
    experiment = training_experiment(files.cfg, files.data, files.weights, True, OVERRIDES, str(run))
    return Trained(files, experiment, run, jobs.train(experiment, str(run), evaluate=True))


def weights_of(run: Path) -> dict[str, np.ndarray]:
    """All variables of a run's newest checkpoint."""
    path = CheckpointFolder(f"{run}/checkpoints").latest()
    reader = tf.train.load_checkpoint(f"{path}/state")
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map() if "VARIABLE" in name}


def assert_same_weights(one: Path, other: Path) -> None:
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys() and len(mine) > 20
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def coco_of(files: DarknetFiles, folder: Path) -> tuple[str, str]:
    """The validation images and labels as a COCO file, ids with gaps; its path and the folder of images."""
    images, annotations = [], []
    paths = (Path(files.data).parent / "valid.txt").read_text().split()
    for number, path in enumerate(paths, start=1):
        width, height = Image.open(path).size
        images.append({"id": number, "file_name": Path(path).name, "width": width, "height": height})
        for line in Path(path).with_suffix(".txt").read_text().splitlines():
            kind, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 3 + 4 * int(kind), "bbox": box}
            )
    categories = [{"id": 7, "name": "blue box"}, {"id": 3, "name": "red box"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "valid.json").write_text(json.dumps(content))
    return str(folder / "valid.json"), str(Path(paths[0]).parent)


def test_training_leaves_an_experiment_that_says_what_it_is_from(trained):
    text = (trained.run / "experiment.yaml").read_text()
    assert "x.cfg" in text and "x.data" in text and "x.weights --clear" in text
    assert "Darknet takes the last head's" in text and "[data] backup=backup/: checkpoints go into --model_dir" in text
    assert load_config(str(trained.run / "experiment.yaml"), Experiment) == trained.experiment
    assert load_config(str(trained.run / "config.yaml"), Experiment) == trained.experiment
    assert trained.metrics["step"] == 6 and trained.metrics["images"] == 4
    report = json.loads((trained.run / "data_report_train.json").read_text())
    assert report["images"]["found"] == 7 and report["findings"] == []


def test_the_written_experiment_goes_on_with_the_run(trained, capsys):
    jobs.train(load_config(str(trained.run / "experiment.yaml"), Experiment), str(trained.run), evaluate=False)
    assert "step-00000006 at step 6" in capsys.readouterr().err


@pytest.mark.slow
def test_the_written_experiment_gives_the_same_run_also_when_it_is_interrupted(trained, tmp_path):
    path = str(trained.run / "experiment.yaml")
    jobs.train(load_config(path, Experiment, ["trainer.duration.steps=3"]), str(tmp_path / "again"), evaluate=False)
    jobs.train(load_config(path, Experiment), str(tmp_path / "again"), evaluate=False)
    assert_same_weights(trained.run, tmp_path / "again")


@pytest.mark.slow
def test_without_clear_training_goes_on_from_what_the_weights_have_seen(trained, tmp_path):
    """8 images in batches of 4: two steps are done."""
    files = trained.files
    experiment = training_experiment(files.cfg, files.data, files.weights, False, OVERRIDES, str(tmp_path))
    assert experiment.trainer.initialise.start_step == "from_file"
    save = load_config(str(tmp_path / "experiment.yaml"), Experiment, ["trainer.checkpoint.every={steps: 1}"])
    jobs.train(save, str(tmp_path), evaluate=False)
    steps = [Path(path).name for path in CheckpointFolder(str(tmp_path / "checkpoints"), 9).complete()]
    assert steps[-1] == "step-00000006" and "step-00000002" not in steps
    spent = write_weights(files.cfg, tmp_path / "spent.weights", seen=24)
    experiment = training_experiment(files.cfg, files.data, spent, False, OVERRIDES, str(tmp_path / "other"))
    with pytest.raises(Exception, match=r"spent\.weights: its weights count as trained for 6 steps.*start_step=0"):
        jobs.train(experiment, str(tmp_path / "other"), evaluate=False)


def test_evaluating_without_yaml_on_darknets_data_and_on_cocos_gives_the_same(trained, tmp_path, capsys):
    files, target = trained.files, tmp_path / "new" / "result.json"
    on_data = evaluation_experiment(files.cfg, None, None, files.data, None, OVERRIDES)
    metrics = jobs.evaluate_to_file(on_data, str(trained.run), str(target))
    assert json.loads(target.read_text()) == json.loads(json.dumps(metrics))
    assert metrics["protocol"]["nms"] == "greedynms" and metrics["darknet_mAP50"] == trained.metrics["darknet_mAP50"]
    found = json.loads((tmp_path / "new" / "result.json.detections.json").read_text())
    assert found and {row["category_id"] for row in found} <= {0, 1}
    coco = coco_of(files, tmp_path)
    names = ["task.evaluation.nms=per_class_iou"]
    plain = evaluation_experiment(files.cfg, *coco, None, None, [*OVERRIDES, *names])
    assert plain.task.evaluation.nms == "per_class_iou" and plain.task.data.classes == NAMES  # by the order of ids
    on_coco = evaluation_experiment(files.cfg, *coco, None, files.names, OVERRIDES)
    same = jobs.evaluate_to_file(on_coco, str(trained.run), str(tmp_path / "coco.json"))
    assert same["AP"] == pytest.approx(metrics["AP"], abs=1e-6) and same["AP50"] == pytest.approx(
        metrics["AP50"], abs=1e-6
    )
    rows = json.loads((tmp_path / "coco.json.detections.json").read_text())
    assert [row["category_id"] for row in rows] == [3 + 4 * row["category_id"] for row in found]


def test_a_run_evaluates_a_file_of_weights_too(trained, tmp_path):
    metrics = jobs.evaluate(trained.experiment, trained.files.weights, str(tmp_path))
    assert metrics["checkpoint"] == trained.files.weights and metrics["step"] == 2
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "detections.json").exists()


def test_export_of_cfg_and_weights_detects(trained, tmp_path):
    files = trained.files
    experiment = export_experiment(files.cfg, files.data, None, [*OVERRIDES, "task.evaluation.score_floor=0.0"])
    export_checkpoint(experiment, files.weights, str(tmp_path / "saved"))
    described = json.loads((tmp_path / "saved" / "detector.json").read_text())
    assert described["classes"] == list(NAMES) and described["input_size"] == [64, 96]
    assert described["protocol"]["nms"] == "greedynms"
    images = str(Path(files.data).parent / "valid")
    done = detect_files(tmp_path / "saved", [images], tmp_path / "detected", 0.0)
    assert done["images"] == 4 and done["detections"] > 0 and not done["skipped"]


def test_the_classes_of_an_export_have_names_or_numbers(trained):
    files = trained.files
    unnamed = export_experiment(files.cfg, None, None, OVERRIDES)
    assert unnamed.task.data.classes == ("class 0", "class 1")
    assert export_experiment(files.cfg, None, files.names, OVERRIDES).task.data.classes == NAMES


def test_a_backbone_alone_is_a_start_but_nothing_to_evaluate(trained, tmp_path):
    """`.conv.N` holds the first N layers."""
    files = trained.files
    records = network_records(read_cfg(files.cfg))
    path = str(tmp_path / "x.conv.4")
    backbone = [record for record in records if record.index < 4]
    write_weights_file(path, read_weights(files.weights, records), backbone)
    task = build_task(trained.experiment)
    loaded = task.load_weights(task.build_model(), path)
    assert not loaded.complete and "L006_convolutional" in loaded.report and loaded.examples_seen == 8
    with pytest.raises(CheckpointError, match=r"x\.conv\.4: lacks weights of this model"):
        jobs.evaluate(trained.experiment, path, str(tmp_path))


def test_weights_of_another_network_say_where_they_do_not_fit(trained, tmp_path):
    short = tmp_path / "short.weights"
    short.write_bytes(Path(trained.files.weights).read_bytes()[:-40])
    with pytest.raises(Exception, match=r"short\.weights: .*10 floats"):
        jobs.evaluate(trained.experiment, str(short), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"none\.weights"):
        jobs.evaluate(trained.experiment, str(tmp_path / "none.weights"), str(tmp_path))


def test_a_changed_cfg_does_not_go_on_with_the_same_run(trained, tmp_path):
    """The run's checkpoints are of the cfg as it was."""
    cfg = Path(trained.files.cfg)
    text = cfg.read_text()
    try:
        cfg.write_text(text.replace("activation=leaky", "activation=mish", 1))
        with pytest.raises(CheckpointError, match="cfg"):
            jobs.train(trained.experiment, str(trained.run), evaluate=False)
    finally:
        cfg.write_text(text)


@pytest.mark.slow
def test_random_sizes_train_too(trained, tmp_path):
    scales = "task.data.train.multi_scale={coefficient: 1.4, every: {steps: 1}, sizes: 2}"
    experiment = load_config(str(trained.run / "experiment.yaml"), Experiment, [scales, "trainer.duration.steps=3"])
    jobs.train(experiment, str(tmp_path), evaluate=False)
    assert CheckpointFolder(str(tmp_path / "checkpoints")).latest().endswith("3")
