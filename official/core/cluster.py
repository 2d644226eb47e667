"""Several machines as one: who the workers are, by TF_CONFIG or Slurm, and whether all of them are there.

Worker 0 is the chief: it alone writes checkpoints, summaries and reports. All must see the same --model_dir.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import tensorflow as tf

from official.core.errors import TryAgainError, UserError, first_line

EXPECTED = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


class ClusterError(UserError):
    """The workers' addresses cannot be used, or a worker is not there."""


class WorkerLostError(TryAgainError):
    """A worker ended or is cut off while the others were computing with it."""


class Cluster(NamedTuple):
    """The workers' addresses (host:port), the same list on each, and which of them this process is."""

    workers: tuple[str, ...]
    index: int
    source: str  # what says so

    def resolver(self, gpus: int) -> tf.distribute.cluster_resolver.ClusterResolver:
        """For MultiWorkerMirroredStrategy; `gpus` are those that this worker uses."""
        spec = tf.train.ClusterSpec({"worker": list(self.workers)})
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            spec,
            task_type="worker",
            task_id=self.index,
            num_accelerators={"GPU": gpus} if gpus else {},
            rpc_layer="grpc",
        )


def find_cluster() -> Cluster | None:
    """From TF_CONFIG, else from Slurm's variables of a job step with several tasks; none: this process is alone.

    Raises:
        ClusterError: they are there and cannot be used.
    """
    if os.environ.get("TF_CONFIG"):
        cluster = _from_tf_config(os.environ["TF_CONFIG"])
    elif "SLURM_PROCID" in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        cluster = _from_slurm()
    else:
        return None
    for address in cluster.workers:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ClusterError(f"{cluster.source}: worker address {address!r}; expected host:port")
    if len(set(cluster.workers)) < len(cluster.workers):
        raise ClusterError(f"{cluster.source}: a worker address is there twice; expected one for each worker")
    return cluster if len(cluster.workers) > 1 else None


def _from_tf_config(text: str) -> Cluster:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ClusterError(
            f"TF_CONFIG is not JSON ({first_line(error)}): {text[:80]!r}; expected {EXPECTED}, or unset it to train on "
            "this machine alone"
        ) from None
    match content:
        case {"cluster": {"worker": [*workers], **others}, "task": {"type": "worker", "index": int(index)}} if (
            workers and not others and all(isinstance(worker, str) for worker in workers)
        ):
            pass
        case _:
            raise ClusterError(f"TF_CONFIG: expected {EXPECTED}, workers alone; got {text[:200]}")
    if not 0 <= index < len(workers):
        raise ClusterError(
            f"TF_CONFIG: task.index is {index}, expected 0 to {len(workers) - 1} ({len(workers)} workers)"
        )
    spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    return Cluster(tuple(spec.job_tasks("worker")), index, "TF_CONFIG")


def _from_slurm() -> Cluster:
    """Each task uses the GPUs that Slurm lets it see; the resolver's own way of sharing them out fails without any."""
    try:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        spec = resolver.cluster_spec()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        names = ("PROCID", "STEP_NUM_TASKS", "STEP_NODELIST", "STEP_TASKS_PER_NODE")
        given = ", ".join(f"SLURM_{name}={os.environ.get(f'SLURM_{name}', '(unset)')}" for name in names)
        raise ClusterError(
            f"Slurm's variables do not say who the workers are ({first_line(error)}): {given}. Start the step with "
            "srun, or set TF_CONFIG"
        ) from None
    return Cluster(tuple(spec.job_tasks("worker")), resolver.task_id, "Slurm")


def meet(cluster: Cluster, seconds: float) -> None:
    """Returns when every worker's address has answered; meanwhile this one's answers, too.

    TensorFlow itself waits for an hour, and does not say for whom.

    Raises:
        ClusterError: some did not answer for `seconds`, or this worker's own port cannot be opened.
    """
    missing = [address for number, address in enumerate(cluster.workers) if number != cluster.index]
    end = time.monotonic() + seconds
    with _listen(cluster.workers[cluster.index]):
        while missing:
            missing = [address for address in missing if not _answers(address)]
            if missing and time.monotonic() > end:
                raise ClusterError(
                    f"worker {cluster.index} of {len(cluster.workers)}: nobody answers at {', '.join(missing)} for "
                    f"{seconds:g} s ({cluster.source}). Start the same command on every machine, check addresses and "
                    "firewall, or wait longer (runtime.wait_for_workers)"
                )
            time.sleep(0.2 if missing else 0)


def mean_over_workers(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """The mean of a number that each worker has; returns on each when all have called it."""

    def mean(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.identity, args=(value,)), axis=None)

    compiled = tf.function(mean, autograph=False)
    return lambda number: float(compiled(tf.constant(number, tf.float64)))


@contextmanager
def saying_that_a_worker_is_lost(cluster: Cluster | None, go_on: str) -> Iterator[None]:
    """What TensorFlow raises on all the others when a worker has ended becomes one clear error.

    Args:
        cluster: none: nothing is changed.
        go_on: what to do, for the message.

    Raises:
        WorkerLostError: in place of TensorFlow's error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        text = error.message or ""
        if cluster is None or not ("ollective" in text or "/job:worker" in text):
            raise
        lost = sorted({int(number) for number in re.findall(r"/job:worker(?:/replica:0)?/task:(\d+)", text)})
        others = [f"{number} ({cluster.workers[number]})" for number in lost if number != cluster.index]
        raise WorkerLostError(
            f"worker {cluster.index} of {len(cluster.workers)}: lost the connection to worker "
            f"{', '.join(others) or '(which, TensorFlow does not say)'}: it has ended, or the network is cut. Its own "
            f"messages say why. {go_on}"
        ) from None


def _listen(address: str) -> socket.socket:
    port = int(address.rpartition(":")[2])
    try:
        return socket.create_server(("", port), backlog=64)
    except OSError as error:
        raise ClusterError(
            f"port {port} of this worker ({address}) cannot be opened: {error.strerror}. Is another job using it?"
        ) from None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True
