"""The originals' published weights through our whole evaluation: COCO's metrics on 80 images of val2017.

What they should be was measured with OpenCV's reader of the same files (its batch-norm epsilon set right), the same
protocol and pycocotools.
"""

import json
from pathlib import Path

import pytest

from configs.experiment import Experiment
from official.core.checkpoint import CheckpointFolder
from official.core.config_io import load_config
from official.core.initialise import variables_by_path
from tasks import TASKS, jobs
from tests.darknet_weights import load_darknet

CONFIGS = Path(__file__).parents[2] / "configs" / "experiments"
PROTOCOL = {"resize": "stretch", "score_floor": 0.001, "nms_threshold": 0.45, "detections_per_image": 100}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ap", "ap50"), [("yolov4-tiny", 0.2289, 0.4012), ("yolov3-tiny", 0.2025, 0.4149)])
def test_ap_of_published_weights(shared, tmp_path, name, ap, ap50):
    images = shared / "assets" / "coco_val"
    source = f"source={{type: coco, annotations: {images}/instances_val2017_80.json, images: {images}/images}}"
    config = load_config(
        str(CONFIGS / f"{name.replace('-', '_')}_coco.yaml"),
        Experiment,
        [f"task.data.train.{source}", f"task.data.validation.{source}", "runtime.device=cpu"],
    )
    task = TASKS[config.task.type](config.task, config.runtime.seed)
    model = task.build_model()
    load_darknet(model, shared / "assets" / "darknet" / name / f"{name}.weights")
    groups = {"weights": variables_by_path(model)}
    checkpoint = CheckpointFolder(str(tmp_path / "checkpoints")).save(0, groups, task.facts())

    metrics = jobs.evaluate(config, checkpoint, str(tmp_path / "evaluation"))

    assert metrics["images"] == 80
    assert PROTOCOL.items() <= metrics["protocol"].items()
    assert metrics["AP"] == pytest.approx(ap, abs=0.005)
    assert metrics["AP50"] == pytest.approx(ap50, abs=0.008)
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["AP"] == metrics["AP"]
