"""Shared by all tests: CPU only, shape checks on every annotated function, and the optional recorded material."""

import os
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from jaxtyping import install_import_hook

CHECKED_PACKAGES = ["official", "configs", "dataloaders", "modeling", "losses", "tasks", "serving"]
install_import_hook(CHECKED_PACKAGES, "beartype.beartype")

import pytest
import tensorflow as tf

# Two logical devices, so that MirroredStrategy can be tested; must happen before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

tf.config.experimental.enable_op_determinism()  # as every run does by default

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of recorded traces and real assets beside the repository; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"recorded traces and assets are not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def two_replicas() -> tf.distribute.Strategy:
    """Two replicas on the two logical CPUs; one strategy a process, since a second one reuses its collectives' keys."""
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
