"""Choosing a device, and asking the cloud about a TPU: each failure is one clear sentence."""

import inspect
from unittest.mock import create_autospec

import cloud_tpu_client
import pytest
import tensorflow as tf

from official.core.config import Runtime
from official.core.distribution import DeviceError, check_cloud_tpu, place


class FakeClient:
    """Makes clients that answer as Google Cloud would, with the methods that the real one has."""

    def __init__(self, state: str = "READY", health: str = "HEALTHY", version: str = tf.__version__) -> None:
        self.client = create_autospec(cloud_tpu_client.Client, instance=True)
        self.client.state.return_value, self.client.health.return_value = state, health
        self.client.runtime_version.return_value = version

    def __call__(self, **named):
        inspect.signature(cloud_tpu_client.Client).bind(**named)
        self.named = named
        return self.client


def absent(**named):
    raise ValueError("Could not lookup TPU metadata from name 'mine'")


def test_cpu_is_chosen_and_says_why():
    placement = place(Runtime(device="auto"))
    assert placement.device == "cpu"
    assert str(placement) == "CPU, 1 replica (runtime.device: auto, no TPU named or attached, no GPU found)"
    assert place(Runtime(device="cpu")).reason == "runtime.device: cpu"


def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError, match=r"TensorFlow sees no GPU; install with `pip install -e \.\[gpu\]`"):
        place(Runtime(device="gpu"))


@pytest.mark.slow
def test_a_tpu_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError, match=r"'local' does not start: .*runtime\.tpu=local; elsewhere set runtime\.tpu"):
        place(Runtime(device="tpu", tpu="local"))


@pytest.mark.parametrize("version", [tf.__version__, f"tpu-vm-tf-{tf.__version__}-pjrt", "tpu-ubuntu2204-base", None])
def test_a_healthy_tpu_of_the_same_or_an_unknown_version_passes(version):
    client = FakeClient(version=version)
    check_cloud_tpu(Runtime(tpu_zone="us-1", tpu_project="p"), "mine", client)
    assert client.named == {"tpu": "mine", "zone": "us-1", "project": "p"}


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (absent, r"TPU 'mine' is not found \(zone 'us-1', .*Check runtime\.tpu, tpu_zone, tpu_project"),
        (FakeClient(state="STOPPED"), r"TPU 'mine' is STOPPED, health HEALTHY; expected READY and HEALTHY"),
        (FakeClient(health="UNHEALTHY_MAINTENANCE"), r"is READY, health UNHEALTHY_MAINTENANCE"),
        (FakeClient(version="tpu-vm-tf-2.8.0"), r"runs TensorFlow tpu-vm-tf-2\.8\.0, this"),
        (FakeClient(version="2.8.0"), r"runs TensorFlow 2\.8\.0, this program .*use the same version on both"),
    ],
)
def test_each_problem_of_a_cloud_tpu_is_one_clear_error(client, message):
    with pytest.raises(DeviceError, match=message):
        check_cloud_tpu(Runtime(tpu_zone="us-1", tpu_project="p"), "mine", client)
