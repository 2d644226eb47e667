"""The COCO recipes on real images: 20 steps and an evaluation on the CPU, at a reduced size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from tasks import jobs

ROOT = Path(__file__).parents[3]
RECIPES = [
    path.stem
    for path in sorted((ROOT / "configs/experiments").glob("*_coco.yaml"))
    if path.stem != "centernet_hourglass_coco"  # 190 million weights
]


def _is_right(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["step"] == 20 and metrics["images"] == 80
    assert 0 <= metrics["AP"] < 0.05  # 20 steps teach nothing; a number beyond that would be a wrong metric
    assert (folder / "checkpoints" / "step-00000020" / "manifest.json").is_file()


@pytest.mark.slow
def test_twenty_steps_and_an_evaluation_of_yolov4_tiny_on_80_coco_images(shared, tmp_path):
    """From the door."""
    command = [sys.executable, "train.py", "--config", "configs/experiments/yolov4_tiny_coco80images.yaml"]
    done = subprocess.run(
        [*command, "--model_dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _is_right(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps_of_every_recipe(shared, tmp_path, name):
    photographs = shared / "assets/coco_val"
    annotations = photographs / "instances_val2017_80.json"
    source = f"{{type: coco, annotations: {annotations}, images: {photographs}/images}}"
    overrides = [
        f"task.data.train.source={source}",
        f"task.data.validation.source={source}",
        "task.data.train.batch_size=2",
        "task.data.validation.batch_size=8",
        "task.model.input_size=[96, 160]",
        "task.evaluation.resize=stretch" if "centernet" not in name else "task.evaluation.resize=affine",
        "trainer.duration={steps: 20}",
        "trainer.micro_batches=1",
        "trainer.steps_per_loop=5",
        "trainer.checkpoint.every={steps: 20}",
        "trainer.evaluate_every={steps: 20}",
        "runtime.device=cpu",
        "runtime.precision=float32",
    ]
    experiment = load_config(str(ROOT / f"configs/experiments/{name}.yaml"), Experiment, overrides)
    jobs.train(experiment, str(tmp_path), evaluate=True)
    _is_right(tmp_path)
