"""The doors as a user meets them: exit codes and messages without a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors import run_each
from tests.tasks.yolo.darknet_files import write_project

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_doors_are_short():
    for door in ("train.py", "evaluate.py", "export.py", "detect.py", "reproduce.py"):
        assert len((ROOT / door).read_text().splitlines()) < 60, door


def test_wrong_configuration_and_data_end_with_their_message_alone(tmp_path):
    """As a user starts it: nothing but the message is on standard error."""
    done = run("train.py", "--config", "configs/experiments/demo.yml", "--model_dir", "/tmp/none")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("no such configuration file; did you mean 'demo.yaml'?")
    assert "Traceback" not in done.stderr
    common = ("--config", "configs/experiments/demo.yaml", "--model_dir", str(tmp_path))
    nowhere, extra = run_each(
        "train.py", (*common, "--set", "task.data.train.source.annotations=nowhere.json"), (*common, "more.yaml")
    )
    assert nowhere.returncode == extra.returncode == 1
    assert "\nerror: cannot read the COCO annotation file nowhere.json" in nowhere.stderr
    assert extra.stderr.startswith("error: unexpected argument 'more.yaml'")


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


NOT_THERE = {
    "train.py": [
        (("--darknet", "none.cfg", "--data", "none.data", "--model_dir", "{}"), "none.cfg: cannot read the cfg"),
        (("--darknet", "none.cfg", "--model_dir", "{}"), "--darknet and --data go together"),
    ],
    "evaluate.py": [
        (("--darknet", "none.cfg", "--weights", "x.weights"), "--darknet needs --weights and --json"),
        (("--darknet", "none.cfg", "--output", "{}"), "--output does not go with --darknet"),
        (("--config", "none.yaml", "--json", "{}"), "--json does not go with --config"),
    ],
    "export.py": [
        (("--darknet", "none.cfg", "--weights", "x.weights", "--output", "{}"), "none.cfg: cannot read the cfg"),
    ],
}


@pytest.mark.parametrize("door", NOT_THERE)
def test_darknets_files_that_are_not_there_end_with_a_message_alone(tmp_path, door):
    cases = [tuple(word.format(tmp_path / "new") for word in arguments) for arguments, _ in NOT_THERE[door]]
    for done, (_, message) in zip(run_each(door, *cases), NOT_THERE[door], strict=True):
        assert done.returncode == 1 and done.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_darknets_files_are_evaluated_and_exported_without_yaml(tmp_path):
    """The commands as a user types them; what they compute is tested elsewhere."""
    files = write_project(tmp_path)
    device = ("--set", "runtime.device=cpu")
    common = ("--darknet", files.cfg, "--weights", files.weights, *device)
    scored = run("evaluate.py", *common, "--data", files.data, "--json", str(tmp_path / "scored.json"))
    assert scored.returncode == 0, scored.stderr
    metrics = json.loads((tmp_path / "scored.json").read_text())
    assert metrics["images"] == 4 and metrics["protocol"]["nms"] == "greedynms" and 0 <= metrics["AP"] <= 1
    assert isinstance(json.loads((tmp_path / "scored.json.detections.json").read_text()), list)
    exported = run("export.py", *common, "--names", files.names, "--output", str(tmp_path / "saved"))
    assert exported.returncode == 0, exported.stderr
    seen = run(
        "detect.py",
        "--model",
        str(tmp_path / "saved"),
        "--input",
        str(tmp_path / "valid"),
        "--output",
        str(tmp_path / "seen"),
    )
    assert seen.returncode == 0, seen.stderr
    assert len(list((tmp_path / "seen" / "pictures").iterdir())) == 4


@pytest.mark.parametrize("module", ["preflight; preflight.check()", "reproduction", "benchmarks"])
def test_tensorflow_starts_with_its_fast_kernels(module):
    """Without AVX-512 it does so only where asked before its import; inference took 1.4 times as long."""
    code = f"import {module}; import os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    environment = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "1", result.stderr
