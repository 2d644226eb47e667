"""Who the workers are and whether they answer: each fault is one clear error, after a bounded wait."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from official.core.cluster import Cluster, ClusterError, find_cluster, meet
from official.core.config import Runtime
from official.core.distribution import DeviceError, place

ROOT = Path(__file__).parents[3]
WORKERS = ["a.example:2222", "b.example:2222"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def tf_config(workers=WORKERS, index=1, **others) -> str:
    return json.dumps({"cluster": {"worker": workers, **others}, "task": {"type": "worker", "index": index}})


def test_tf_config_says_who_the_workers_are(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config())
    assert find_cluster() == (tuple(WORKERS), 1, "TF_CONFIG")
    resolver = find_cluster().resolver(gpus=2)
    assert (resolver.task_type, resolver.task_id, resolver.num_accelerators()) == ("worker", 1, {"GPU": 2})
    assert resolver.cluster_spec().as_dict() == {"worker": WORKERS}


def test_one_worker_or_nothing_is_this_machine_alone(monkeypatch):
    assert find_cluster() is None
    monkeypatch.setenv("TF_CONFIG", tf_config(WORKERS[:1], 0))
    assert find_cluster() is None
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert find_cluster() is None


def test_slurms_variables_say_who_the_workers_are(monkeypatch):
    values = {"PROCID": "2", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "n[07-08]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find_cluster() == (("n07:8888", "n07:8889", "n08:8888"), 2, "Slurm")
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(ClusterError, match=r"do not say who the workers are .*SLURM_STEP_NODELIST=\(unset\).*srun"):
        find_cluster()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cluster: 3", r"TF_CONFIG is not JSON \(.*line 1 column 2.*'\{cluster: 3'; expected \{\"cluster\""),
        ("[]", r"TF_CONFIG: expected .*; got \[\]"),
        (json.dumps({"cluster": {"worker": WORKERS}}), r"TF_CONFIG: expected .*\"task\""),
        (tf_config(ps=["c:1"]), "workers alone"),
        (tf_config([]), r"TF_CONFIG: expected"),
        (tf_config([1, 2]), r"TF_CONFIG: expected"),
        (tf_config(index=2), r"task\.index is 2, expected 0 to 1 \(2 workers\)"),
        (tf_config(["a", "b:1"]), r"worker address 'a'; expected host:port"),
        (tf_config(["a:99999", "b:1"]), r"worker address 'a:99999'; expected host:port"),
        (tf_config(["a:1", "a:1"]), "a worker address is there twice"),
    ],
)
def test_each_fault_of_tf_config_is_one_clear_error(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match=message):
        place(Runtime(device="cpu"))


def free_addresses(count: int) -> tuple[str, ...]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    found = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return found


def test_an_address_nobody_answers_at_is_named_after_a_bounded_wait():
    addresses = free_addresses(2)
    began = time.monotonic()
    with pytest.raises(
        ClusterError, match=rf"worker 0 of 2: nobody answers at {addresses[1]} for 0\.5 s \(TF_CONFIG\)"
    ):
        meet(Cluster(addresses, 0, "TF_CONFIG"), seconds=0.5)
    assert time.monotonic() - began < 30  # not TensorFlow's hour


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        addresses = (f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1")
        with pytest.raises(
            ClusterError, match=rf"port {taken.getsockname()[1]} of this worker .*Is another job using it"
        ):
            meet(Cluster(addresses, 0, "Slurm"), seconds=5.0)


@pytest.mark.slow
def test_workers_that_come_at_different_times_meet():
    cluster, met = free_addresses(2), []

    def come(index: int, later: float) -> None:
        time.sleep(later)
        meet(Cluster(cluster, index, "Slurm"), seconds=30.0)
        met.append(index)
        with socket.create_server(("", int(cluster[index].rpartition(":")[2]))):  # as TensorFlow does from then on
            time.sleep(2)

    threads = [threading.Thread(target=come, args=(index, 0.6 * index)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1]


def test_a_tpu_is_not_one_of_several_machines(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config())
    with pytest.raises(DeviceError, match="TF_CONFIG names 2 machines, but the device is a TPU"):
        place(Runtime(device="tpu", tpu="local"))


def test_what_a_training_imports_does_not_start_tensorflow():
    """The strategy of several machines must be the first to (it refuses otherwise)."""
    code = "import tasks.yolo.darknet_files, serving.jobs; from tensorflow.python.eager import context as c; "
    code += "assert not c.context()._initialized"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
