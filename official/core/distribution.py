"""Where a run computes: TPU, GPU or CPU, chosen by `runtime.device`, and the strategy that goes with it."""

import faulthandler
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from jaxtyping import Shaped

from official.core.cluster import Cluster, find_cluster, meet
from official.core.config import Runtime
from official.core.errors import UserError, first_line


class DeviceError(UserError):
    """The device asked for cannot be used; the message says why and what to do."""


class Placement(NamedTuple):
    strategy: tf.distribute.Strategy
    device: str  # tpu, gpu or cpu
    reason: str
    cluster: Cluster | None = None  # of several machines

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.cluster is None or self.cluster.index == 0

    @property
    def own_strategy(self) -> tf.distribute.Strategy:
        """For what this process computes by itself, such as an evaluation inside a training."""
        return self.strategy if self.cluster is None else tf.distribute.get_strategy()

    def __str__(self) -> str:
        replicas, worker = self.strategy.num_replicas_in_sync, ""
        if self.cluster is not None:
            worker = f", worker {self.cluster.index} of {len(self.cluster.workers)} by {self.cluster.source}"
        return f"{self.device.upper()}, {replicas} replica{'s' if replicas > 1 else ''}{worker} ({self.reason})"


def place(runtime: Runtime) -> Placement:
    """Chooses the device of a training job: TPU, else GPU, else CPU for `auto`; what is named otherwise.

    With several machines (TF_CONFIG, Slurm), returns when all are there.

    Raises:
        DeviceError: the named device is not there.
        ClusterError: a machine is not there, or the machines are not told well.
    """
    cluster = find_cluster()
    device, reason = _choose(runtime)
    if device == "tpu":
        if cluster is not None:
            raise DeviceError(
                f"{cluster.source} names {len(cluster.workers)} machines, but the device is a TPU ({reason}); one "
                "process drives all of it: start one without TF_CONFIG, or set runtime.device"
            )
        return Placement(_tpu_strategy(runtime), device, reason)
    gpus = len(tf.config.get_visible_devices("GPU"))
    if cluster is None:
        return Placement(_local_strategy(gpus), device, reason)
    meet(cluster, runtime.wait_for_workers)
    # TensorFlow would wait an hour for a worker that ends just now, and no Python thread runs meanwhile: after that
    # time the process ends with the line that it hangs in.
    faulthandler.dump_traceback_later(runtime.wait_for_workers, exit=True, file=sys.__stderr__)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver(gpus))
    finally:
        faulthandler.cancel_dump_traceback_later()
    return Placement(strategy, device, reason, cluster)


def _choose(runtime: Runtime) -> tuple[str, str]:
    """Which device, and why; without GPUs that are not to be used."""
    gpus = _gpus()
    match runtime.device:
        case "gpu" if not gpus:
            raise DeviceError(
                "runtime.device is gpu, but TensorFlow sees no GPU; install with `pip install -e .[gpu]`, "
                "check nvidia-smi, or set runtime.device=cpu"
            )
        case "tpu" | "gpu" | "cpu":
            device, reason = runtime.device, f"runtime.device: {runtime.device}"
        case _ if runtime.tpu or os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
            device, reason = "tpu", "runtime.device: auto, and a TPU is named or attached"
        case _ if gpus:
            device, reason = "gpu", "runtime.device: auto, no TPU named or attached, GPU found"
        case _:
            device, reason = "cpu", "runtime.device: auto, no TPU named or attached, no GPU found"
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    return device, reason


def place_locally(runtime: Runtime) -> Placement:
    """The device of a job beside a training job (evaluation, export): this machine's GPU or CPU, never its TPU."""
    if runtime.device == "cpu" or not _gpus():
        tf.config.set_visible_devices([], "GPU")
        return Placement(_local_strategy(0), "cpu", "evaluation and export leave the TPU alone; no GPU found or wanted")
    return Placement(_local_strategy(1), "gpu", "evaluation and export leave the TPU alone; GPU found")


def _gpus() -> list[Any]:
    """The GPUs, set to take memory as they need it, so that jobs can share one."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def _local_strategy(gpus: int) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy() if gpus > 1 else tf.distribute.get_strategy()


def _tpu_strategy(runtime: Runtime) -> tf.distribute.Strategy:
    name = runtime.tpu or os.environ.get("TPU_NAME", "")
    if name and name != "local" and not name.startswith("grpc://"):
        check_cloud_tpu(runtime, name)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name or "local", zone=runtime.tpu_zone or None, project=runtime.tpu_project or None
        )
        if name not in ("", "local"):
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise DeviceError(
            f"the TPU {name or 'local'!r} does not start: {first_line(error)}. On a TPU VM install with "
            "`pip install -e .[tpu]` and use runtime.tpu=local; elsewhere set runtime.tpu to the TPU's name"
        ) from None
    return tf.distribute.TPUStrategy(resolver)


def check_cloud_tpu(runtime: Runtime, name: str, make_client: Callable[..., Any] | None = None) -> None:
    """Asks Google Cloud about a TPU before connecting: it exists, is healthy, and runs this TensorFlow version.

    Raises:
        DeviceError: one clear sentence for each of the three.
    """
    if make_client is None:
        from cloud_tpu_client import Client  # here, since it is slow to import and only this needs it

        make_client = Client
    try:
        client = make_client(tpu=name, zone=runtime.tpu_zone or None, project=runtime.tpu_project or None)
        state, health, version = client.state(), client.health(), client.runtime_version()
    except Exception as error:  # the client raises whatever its HTTP stack does
        raise DeviceError(
            f"TPU {name!r} is not found (zone {runtime.tpu_zone or 'of this machine'!r}, project "
            f"{runtime.tpu_project or 'of this machine'!r}): {first_line(error)}. "
            "Check runtime.tpu, tpu_zone, tpu_project and your credentials"
        ) from None
    if state != "READY" or health not in (None, "HEALTHY"):
        raise DeviceError(f"TPU {name!r} is {state}, health {health}; expected READY and HEALTHY: start or recreate it")
    # A runtime's name states TensorFlow's version ("2.20.0", "tpu-vm-tf-2.20.0-pjrt") or none ("tpu-ubuntu2204-base").
    theirs = re.fullmatch(r"(?:tpu-vm-tf-)?(\d+\.\d+)\S*", version or "")
    if theirs and theirs[1] != ".".join(tf.__version__.split(".")[:2]):
        raise DeviceError(
            f"TPU {name!r} runs TensorFlow {version}, this program {tf.__version__}; use the same version on both"
        )


def assign(variables: list[tf.Variable], values: list[Shaped[tf.Tensor, "..."]]) -> None:
    """In replica context: writes this replica's values, which all replicas agree on, to its copy of each variable."""

    def write(strategy: tf.distribute.Strategy, values: list[Any]) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable, lambda v, x: v.assign(x), args=(value,), group=False)

    tf.distribute.get_replica_context().merge_call(write, args=(values,))
