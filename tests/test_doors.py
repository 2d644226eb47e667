"""The doors as a user meets them: exit codes and messages without a traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_doors_are_short():
    for door in ("train.py", "evaluate.py", "export.py", "detect.py"):
        assert len((ROOT / door).read_text().splitlines()) < 60, door


def test_a_wrong_configuration_ends_with_its_message_alone():
    done = run("train.py", "--config", "configs/experiments/demo.yml", "--model_dir", "/tmp/none")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("no such configuration file; did you mean 'demo.yaml'?")
    assert "Traceback" not in done.stderr


def test_data_that_is_not_there_ends_with_its_message_alone(tmp_path):
    done = run(
        "train.py", "--config", "configs/experiments/demo.yaml", "--model_dir", str(tmp_path),
        "--set", "task.data.train.source.annotations=nowhere.json",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot read the COCO annotation file nowhere.json" in done.stderr


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("tensorflow", "", "TensorFlow is not installed: run `pip install -e .[cpu]`"),
        ("official", "official", "Run `pip uninstall tf-models-official`"),
    ],
)
def test_a_broken_installation_is_one_line(tmp_path, remove, add, message):
    """TensorFlow missing, or another package that owns the name `official`."""
    for name in ("train.py", "preflight.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    if add:
        (tmp_path / "elsewhere" / add).mkdir(parents=True)
        (tmp_path / "elsewhere" / add / "__init__.py").touch()
        (tmp_path / "elsewhere" / "tensorflow.py").touch()
        done = run("train.py", folder=tmp_path, PYTHONPATH=str(tmp_path / "elsewhere"))
    else:
        done = run("-S", "train.py", folder=tmp_path, PYTHONPATH="")  # -S: without the installed packages
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr
