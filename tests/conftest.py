"""Shared by all tests: CPU only, shape checks on every annotated function, and the optional recorded material."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as official/__init__.py

from jaxtyping import install_import_hook

CHECKED_PACKAGES = [
    "official",
    "configs",
    "dataloaders",
    "modeling",
    "losses",
    "tasks",
    "serving",
    "reproduction",
    "tools",
]
install_import_hook(CHECKED_PACKAGES, "beartype.beartype")

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tf_config

# Two logical devices, so that MirroredStrategy can be tested; must happen before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

tf.config.experimental.enable_op_determinism()  # as every run does by default

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "configs" / "experiments"
SHARED = ROOT.parent / "shared"
SUBSETS = Path(__file__).parent  # of what is in SHARED, in the repository


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of recorded traces and real assets beside the repository; tests that need it skip without it."""
    if not ((SHARED / "assets").is_dir() and (SHARED / "golden").is_dir()):
        pytest.skip(f"recorded traces and assets are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden("misc/iou.npz")` -> the path of one file recorded from Darknet; skips where it is not at hand.

    All of them lie in ../shared/golden; without that folder there is the subset in tests/golden.
    """
    return _finder("golden")


@pytest.fixture(scope="session")
def golden_centernet() -> Callable[[str], Path]:
    """The same for what is recorded from CenterNet, in ../shared/golden_centernet or tests/golden_centernet."""
    return _finder("golden_centernet")


def _finder(folder: str) -> Callable[[str], Path]:
    root = (SHARED if (SHARED / folder).is_dir() else SUBSETS) / folder

    def find(name: str) -> Path:
        if not (root / name).is_file():
            pytest.skip(f"{name} is not in {root}")
        return root / name

    return find


@pytest.fixture(scope="session")
def as_recorded(golden_centernet) -> Callable[[str, str], list]:
    """`as_recorded("centernet_loss", "loss_coco80")` -> the rows of that file's cases, of which none fails.

    The cases, quantities and bounds are those of `reproduce.py --traces`.
    """
    from reproduction.centernet.original import CHECKS
    from reproduction.experiment.subject import Subject
    from reproduction.traces.case import Case  # what it imports is not needed for other tests

    def check(name: str, file: str) -> list:
        path = golden_centernet(f"{file}.npz")
        one = next(check for check in CHECKS if check.name == name)
        rows = [row for part in one.parts(Case(path)) for row in one.run(Case(path, part), Subject())]
        assert [f"{row.case} {row.quantity}: {row.note}" for row in rows if row.outcome == "fail"] == []
        assert any(row.outcome == "pass" for row in rows)
        return rows

    return check


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two replicas on the two logical CPUs; one strategy a process, since a second one reuses its collectives' keys."""
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


@pytest.fixture
def not_deterministic():
    """XLA refuses the gradient of max-pooling in deterministic mode, for GPUs' sake but on every device."""
    tf_config.disable_op_determinism()
    yield
    tf.config.experimental.enable_op_determinism()
