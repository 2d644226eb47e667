"""The originals' published weights through our whole evaluation: COCO's metrics on 80 images of val2017.

What they should be was measured with OpenCV's reader of the same files (its batch-norm epsilon set right), the same
protocol and pycocotools. With 80 images a single object can move AP50 by more than 0.01, so the bounds are narrow only
because every pixel is OpenCV's.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from tasks import jobs
from tasks.yolo.darknet_files import evaluation_experiment
from tests.conftest import EXPERIMENTS

PROTOCOL = {
    "resize": "stretch",
    "interpolation": "opencv",
    "score_floor": 0.001,
    "nms": "per_class_iou",  # not the cfg's
    "nms_threshold": 0.45,
    "detections_per_image": 100,
}
OVERRIDES = [f"task.evaluation.{key}={value}" for key, value in PROTOCOL.items()] + ["runtime.device=cpu"]


class Model(NamedTuple):
    folder: str
    ap: float
    ap50: float


MODELS = {
    "yolov4-tiny": Model("yolov4-tiny", 0.2289, 0.4012),
    "yolov3-tiny": Model("yolov3-tiny", 0.2025, 0.4149),
    "yolo-fastest-1.1": Model("yolo-fastest-1.1", 0.1533, 0.3075),
    "yolo-fastest-1.1-xl": Model("yolo-fastest-1.1", 0.2048, 0.3907),
}

pytestmark = pytest.mark.slow


def files(shared: Path, name: str) -> tuple[str, str, str, str]:
    """cfg, weights, annotations, folder of images."""
    model, images = shared / "assets" / "darknet" / MODELS[name].folder / name, shared / "assets" / "coco_val"
    return f"{model}.cfg", f"{model}.weights", str(images / "instances_val2017_80.json"), str(images / "images")


def check(metrics: dict, name: str) -> None:
    assert metrics["images"] == 80
    assert PROTOCOL.items() <= metrics["protocol"].items()
    assert (metrics["AP"], metrics["AP50"]) == pytest.approx(MODELS[name][1:], abs=0.0005)


@pytest.mark.parametrize("name", MODELS)
def test_ap_of_networks_built_from_their_cfg(shared, tmp_path, name):
    cfg, weights, annotations, images = files(shared, name)
    experiment = evaluation_experiment(cfg, annotations, images, None, None, OVERRIDES)
    path = tmp_path / "metrics.json"
    jobs.evaluate_to_file(experiment, weights, str(path))
    metrics = json.loads(path.read_text())
    check(metrics, name)
    assert metrics["darknet_mAP50"] == pytest.approx(metrics["darknet_mAP50_101"], abs=0.01)
    found = json.loads((tmp_path / "metrics.json.detections.json").read_text())
    assert 0 < len(found) <= 80 * 100 and set(found[0]) == {"image_id", "category_id", "bbox", "score"}


@pytest.mark.parametrize("name", ["yolov4-tiny", "yolov3-tiny"])
def test_ap_of_networks_built_from_parts(shared, tmp_path, name):
    _, weights, annotations, images = files(shared, name)
    source = f"source={{type: coco, annotations: {annotations}, images: {images}}}"
    overrides = [f"task.data.train.{source}", f"task.data.validation.{source}", *OVERRIDES]
    config = load_config(str(EXPERIMENTS / f"{name.replace('-', '_')}_coco.yaml"), Experiment, overrides)
    metrics = jobs.evaluate(config, weights, str(tmp_path))
    check(metrics, name)
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == metrics["AP"]


def test_our_default_pixels_are_near(shared, tmp_path):
    """Pixels that differ by one level move AP by 0.005."""
    cfg, weights, annotations, images = files(shared, "yolo-fastest-1.1")
    overrides = [*OVERRIDES, "task.evaluation.interpolation=bilinear"]
    experiment = evaluation_experiment(cfg, annotations, images, None, None, overrides)
    metrics = jobs.evaluate_to_file(experiment, weights, str(tmp_path / "metrics.json"))
    assert (metrics["AP"], metrics["AP50"]) == pytest.approx(MODELS["yolo-fastest-1.1"][1:], abs=0.008)
