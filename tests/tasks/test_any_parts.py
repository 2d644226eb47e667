"""From YAML alone: each family with a backbone and a decoder of another's originals, trained, evaluated, exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs.experiment import Experiment
from official.core.config_io import load_config
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import jobs
from tools.demo_data import write_synthetic

CLASSES = ["target", "flag", "tent", "cross", "star", "moon"]
MODELS = {
    "yolo": """
type: parts
input_size: [64, 96]
backbone: {type: resnet, depth: 50}
decoder: {type: fpn}
initialiser: pytorch
head:
  anchors: [[8, 8], [20, 20], [40, 40]]
  levels: [{mask: [2]}, {mask: [1]}, {mask: [0]}]
""",
    "centernet": """
input_size: [64, 96]
backbone: {type: cspdarknet53, width: 0.25, blocks: [1, 1, 2, 2, 1], activation: swish}
decoder: {type: deconv, filters: [32, 16, 8]}
norm_epsilon: 1.0e-3
norm_momentum: 0.97
head: {head_conv: 16}
""",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "data"
    write_synthetic(folder, 10, 5, workers=1)
    return folder


def experiment(data: Path, family: str, folder: Path) -> Experiment:
    sources = {
        split: {"type": "coco", "annotations": f"{data}/instances_{split}.json", "images": f"{data}/{split}"}
        for split in ("train", "val")
    }
    written = {
        "task": {
            "type": family,
            "model": yaml.safe_load(MODELS[family]),
            "data": {
                "classes": CLASSES,
                "train": {"source": sources["train"], "batch_size": 4, "max_boxes": 12},
                "validation": {"source": sources["val"], "batch_size": 1},
            },
        },
        "trainer": {
            "duration": {"steps": 4},
            "steps_per_loop": 2,
            "optimizer": {"type": "adamw"},
            "schedule": {"type": "constant", "learning_rate": 1e-4},
            "checkpoint": {"every": {"steps": 4}},
        },
        "runtime": {"device": "cpu"},
    }
    (folder / "x.yaml").write_text(yaml.safe_dump(written))
    return load_config(str(folder / "x.yaml"), Experiment)


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_train_evaluate_and_export(data, tmp_path, family):
    """The reloaded export finds what the evaluation found."""
    config = experiment(data, family, tmp_path)
    metrics = jobs.train(config, str(tmp_path / "run"), evaluate=True)
    assert metrics["images"] == 5
    export_checkpoint(config, str(tmp_path / "run"), str(tmp_path / "export"))
    done = detect_files(str(tmp_path / "export"), [str(data / "val")], str(tmp_path / "found"), 0.0)
    assert done["images"] == 5
    evaluated = json.loads((tmp_path / "run" / "detections.json").read_text())
    found = json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"]
    best = [max(one["score"] for one in detections) for detections in (evaluated, found)]
    assert len(found) == len(evaluated) > 0 and np.isfinite(best).all()
    assert abs(best[0] - best[1]) < 0.0051  # rounded to two decimals
