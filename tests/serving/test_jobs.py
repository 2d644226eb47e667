"""From training to the exported detector by the functions that the doors call, on a tiny data set."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from official.core.checkpoint import CheckpointFolder
from official.core.config_io import load_config
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import jobs
from tests.conftest import EXPERIMENTS
from tools.demo_data import write_synthetic

DEMO = EXPERIMENTS / "demo.yaml"
VALIDATION_IMAGES = 5


class Finished(NamedTuple):
    """A run that was trained, evaluated and exported."""

    experiment: Experiment
    data: Path
    run: Path
    metrics: dict  # of the training job's own evaluation
    saved_model: Path

    def ground_truth(self) -> dict:
        return json.loads((self.data / "instances_val.json").read_text())


pytestmark = pytest.mark.slow  # a training and what follows from it


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("jobs")
    data, run = folder / "data", folder / "run"
    write_synthetic(data, 10, VALIDATION_IMAGES, workers=1)
    source = "{{type: coco, annotations: {0}/instances_{1}.json, images: {0}/{1}}}"
    overrides = [
        f"task.data.train.source={source.format(data, 'train')}",
        f"task.data.validation.source={source.format(data, 'val')}",
        "task.data.train.batch_size=4",
        "task.data.validation.batch_size=2",
        "task.model.input_size=[64, 96]",
        "task.model.backbone.width=0.25",
        "trainer.duration={steps: 4}",
        "trainer.steps_per_loop=2",
        "trainer.checkpoint.every={steps: 2}",
        "runtime.device=cpu",
    ]
    experiment = load_config(str(DEMO), Experiment, overrides)
    metrics = jobs.train(experiment, str(run), evaluate=True)
    export_checkpoint(experiment, str(run), str(run / "saved_model"))
    return Finished(experiment, data, run, metrics, run / "saved_model")


def read_detections(path: Path) -> dict[int, list[dict]]:
    """By image id, in the file's order."""
    by_image = {}
    for row in json.loads(path.read_text()):
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image


def test_training_leaves_its_config_checkpoints_metrics_and_detections(finished):
    assert load_config(str(finished.run / "config.yaml"), Experiment, []) == finished.experiment
    assert [Path(path).name for path in CheckpointFolder(f"{finished.run}/checkpoints").complete()] == [
        "step-00000002",
        "step-00000004",
    ]
    assert finished.metrics["images"] == VALIDATION_IMAGES
    assert json.loads((finished.run / "metrics.json").read_text()) == json.loads(json.dumps(finished.metrics))
    assert set(read_detections(finished.run / "detections.json")) <= {
        image["id"] for image in finished.ground_truth()["images"]
    }


def test_evaluating_the_run_again_gives_the_same_metrics_and_detections(finished, tmp_path):
    metrics = jobs.evaluate(finished.experiment, str(finished.run), str(tmp_path))
    assert metrics == finished.metrics
    assert (tmp_path / "detections.json").read_text() == (finished.run / "detections.json").read_text()


def test_a_job_beside_the_training_scores_every_checkpoint(finished, tmp_path):
    assert jobs.watch(finished.experiment, str(finished.run), str(tmp_path), timeout=1.0) == 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["step"] == 4 and metrics["images"] == VALIDATION_IMAGES


def test_the_export_detects_in_files_what_evaluation_detected(finished):
    encoded = tf.saved_model.load(str(finished.saved_model)).signatures["encoded"]
    recorded = read_detections(finished.run / "detections.json")
    truth = finished.ground_truth()
    contents = [(finished.data / "val" / image["file_name"]).read_bytes() for image in truth["images"]]
    found = {name: value.numpy() for name, value in encoded(contents=tf.constant(contents)).items()}
    own_ids = json.loads((finished.saved_model / "detector.json").read_text())["category_ids"]
    assert own_ids == sorted(category["id"] for category in truth["categories"])
    assert sum(found["num_detections"]) == sum(map(len, recorded.values())) > 0
    for row, image in enumerate(truth["images"]):
        expected = recorded[image["id"]]
        assert found["num_detections"][row] == len(expected)
        boxes, scores, classes = (
            found[f"detection_{name}"][row, : len(expected)] for name in ("boxes", "scores", "classes")
        )
        bbox = np.concatenate([boxes[:, 1::-1], boxes[:, 3:1:-1] - boxes[:, 1::-1]], axis=-1)  # yxyx to xywh, [n, 4]
        np.testing.assert_array_equal([own_ids[index] for index in classes], [e["category_id"] for e in expected])
        np.testing.assert_allclose(bbox, [e["bbox"] for e in expected], rtol=0, atol=1e-2)
        np.testing.assert_allclose(scores, [e["score"] for e in expected], rtol=0, atol=1e-4)


def test_detecting_in_a_folder_writes_the_data_sets_own_category_ids(finished, tmp_path):
    report = detect_files(finished.saved_model, [str(finished.data / "val")], tmp_path, score_threshold=0.0)
    written = json.loads((tmp_path / "detections.json").read_text())
    truth = finished.ground_truth()
    assert report["images"] == VALIDATION_IMAGES and not report["skipped"]
    as_pairs = lambda categories: sorted((category["id"], category["name"]) for category in categories)  # noqa: E731
    assert as_pairs(written["categories"]) == as_pairs(truth["categories"])
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    names = {image["id"]: Path(image["file_name"]).name for image in written["images"]}
    recorded = read_detections(finished.run / "detections.json")
    found = {image: [] for image in ids.values()}
    for annotation in written["annotations"]:
        found[ids[names[annotation["image_id"]]]].append(annotation["category_id"])
    assert found == {image: [row["category_id"] for row in recorded[image]] for image in ids.values()}
