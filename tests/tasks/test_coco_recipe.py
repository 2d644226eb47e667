"""The COCO recipe on real images, from the door: 20 steps and an evaluation on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_twenty_steps_and_an_evaluation_of_yolov4_tiny_on_80_coco_images(shared, tmp_path):
    command = [sys.executable, "train.py", "--config", "configs/experiments/yolov4_tiny_coco80images.yaml"]
    done = subprocess.run(
        [*command, "--model_dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["step"] == 20 and metrics["images"] == 80
    assert 0 <= metrics["AP"] < 0.05  # 20 steps teach nothing; a number beyond that would be a wrong metric
    assert (tmp_path / "checkpoints" / "step-00000020" / "manifest.json").is_file()
