"""The originals' published weights through our whole evaluation: COCO's metrics on 80 images of val2017.

What they should be was measured with OpenCV's reader of the same files (its batch-norm epsilon set right), the same
protocol and pycocotools. With 80 images a single object can move AP50 by more than 0.01, and pixels that differ by one
level move AP by 0.005: so the numbers are tested on OpenCV's own pixels, narrowly, and on ours, widely.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.experiment import Experiment
from official.core.checkpoint import CheckpointFolder
from official.core.config_io import load_config
from official.core.initialise import variables_by_path
from tasks import TASKS, jobs
from tests.darknet_weights import load_darknet

CONFIGS = Path(__file__).parents[2] / "configs" / "experiments"
SIDE = 416
PROTOCOL = {"resize": "stretch", "score_floor": 0.001, "nms_threshold": 0.45, "detections_per_image": 100}
PUBLISHED = [("yolov4-tiny", 0.2289, 0.4012), ("yolov3-tiny", 0.2025, 0.4149)]  # name, AP, AP50

pytestmark = pytest.mark.slow


def evaluate(shared: Path, name: str, annotations: Path, images: Path, folder: Path) -> dict[str, Any]:
    """Metrics of a model's published weights; `folder` receives the checkpoint made of them, and what is evaluated."""
    source = f"source={{type: coco, annotations: {annotations}, images: {images}}}"
    config = load_config(
        str(CONFIGS / f"{name.replace('-', '_')}_coco.yaml"),
        Experiment,
        [f"task.data.train.{source}", f"task.data.validation.{source}", "runtime.device=cpu"],
    )
    task = TASKS[config.task.type](config.task, config.runtime.seed)
    model = task.build_model()
    load_darknet(model, shared / "assets" / "darknet" / name / f"{name}.weights")
    groups = {"weights": variables_by_path(model)}
    checkpoint = CheckpointFolder(str(folder / "checkpoints")).save(0, groups, task.facts())
    metrics = jobs.evaluate(config, checkpoint, str(folder / "evaluation"))
    assert metrics["images"] == 80
    assert PROTOCOL.items() <= metrics["protocol"].items()
    return metrics


def taps(source: int, target: int) -> tuple[np.ndarray, ...]:
    """Of each of `target` pixels: the two of `source` that it lies between, and their weights in 1/2048."""
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32).clip(0, source - 1)
    first = np.floor(position).astype(int)
    share = position - first
    second = np.minimum(first + 1, source - 1)
    return first, second, np.rint((1 - share) * 2048).astype(int), np.rint(share * 2048).astype(int)


def resize_as_opencv(image: np.ndarray) -> np.ndarray:
    """INTER_LINEAR for uint8 as OpenCV computes it: in integers, cut off twice on the way and rounded at the end."""
    left, right, left_weight, right_weight = taps(image.shape[1], SIDE)
    top, bottom, top_weight, bottom_weight = taps(image.shape[0], SIDE)
    wide = image.astype(int)
    rows = (wide[:, left] * left_weight[:, None] + wide[:, right] * right_weight[:, None]) >> 4  # [h, SIDE, 3]
    above, below = rows[top] * top_weight[:, None, None] >> 16, rows[bottom] * bottom_weight[:, None, None] >> 16
    return ((above + below + 2) >> 2).astype(np.uint8)  # [SIDE, SIDE, 3]


@pytest.fixture(scope="module")
def stretched(shared, tmp_path_factory) -> Path:
    """The 80 images and their annotations, stretched to the network's input: no IoU, hence no AP, changes by that."""
    folder = tmp_path_factory.mktemp("stretched")
    content = json.loads((shared / "assets" / "coco_val" / "instances_val2017_80.json").read_text())
    scales = {}
    for entry in content["images"]:
        with Image.open(shared / "assets" / "coco_val" / "images" / entry["file_name"]) as image:
            pixels = resize_as_opencv(np.asarray(image.convert("RGB")))
        scales[entry["id"]] = SIDE / entry["width"], SIDE / entry["height"]
        entry |= {"file_name": f"{entry['id']}.png", "width": SIDE, "height": SIDE}
        Image.fromarray(pixels).save(folder / entry["file_name"], compress_level=1)
    for annotation in content["annotations"]:
        x_scale, y_scale = scales[annotation["image_id"]]
        annotation["bbox"] = [
            side * scale for side, scale in zip(annotation["bbox"], [x_scale, y_scale] * 2, strict=True)
        ]
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("name", "ap", "ap50"), PUBLISHED)
def test_ap_on_opencvs_pixels_is_opencvs(shared, stretched, tmp_path, name, ap, ap50):
    metrics = evaluate(shared, name, stretched / "instances.json", stretched, tmp_path)
    assert (metrics["AP"], metrics["AP50"]) == pytest.approx((ap, ap50), abs=0.0005)


@pytest.mark.parametrize(("name", "ap", "ap50"), PUBLISHED)
def test_ap_on_our_own_pixels_is_near(shared, tmp_path, name, ap, ap50):
    images = shared / "assets" / "coco_val"
    metrics = evaluate(shared, name, images / "instances_val2017_80.json", images / "images", tmp_path)
    assert metrics["AP"] == pytest.approx(ap, abs=0.008)
    assert metrics["AP50"] == pytest.approx(ap50, abs=0.012)
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["AP"] == metrics["AP"]
