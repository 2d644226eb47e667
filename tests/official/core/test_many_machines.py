"""Two workers over loopback: the losses of one device, who writes, and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from official.core.checkpoint import CheckpointFolder
from official.core.summaries import read_history
from official.core.trainer import PreemptedError
from tests.official.core.toy_task import assert_close, make_run, trained, weights

EVERY_STEP = {"summary_every": {"steps": 1}, "moving_average": {"decay": 0.9}}
Workers = list[subprocess.Popen]


def start(directory: Path, trainer: dict, pause: float = 0, broken: int = -1) -> Workers:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [start_one(addresses, index, directory, trainer, pause, broken) for index in range(2)]


def start_one(
    addresses: list[str], index: int, directory: Path, trainer: dict, pause: float = 0, broken: int = -1
) -> subprocess.Popen:
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    environment = os.environ | {"TF_CONFIG": json.dumps(config), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = [str(directory), json.dumps(trainer), str(pause), str(broken)]
    command = [sys.executable, "-m", "tests.official.core.worker", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def ends(worker: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, what it printed, and its messages."""
    try:
        printed, messages = worker.communicate(timeout=180)
    finally:
        worker.kill()
    return worker.returncode, printed, messages


def wait_for_step(directory: Path, step: int, workers: Workers) -> None:
    folder, end = CheckpointFolder(f"{directory}/checkpoints"), time.monotonic() + 120
    while not any(path >= folder.path(step) for path in folder.complete()):
        assert all(worker.poll() is None for worker in workers), [ends(worker) for worker in workers]
        assert time.monotonic() < end
        time.sleep(0.1)


def newest_weights(directory: Path, trainer: dict) -> dict[str, np.ndarray]:
    run = make_run(directory, **trainer)
    run.resume_or_initialise()
    return weights(run)


@pytest.mark.slow
def test_two_workers_have_the_losses_of_one_device_with_their_micro_batches(tmp_path):
    trainer = {**EVERY_STEP, "evaluate_every": {"steps": 3}}
    both = [ends(worker) for worker in start(tmp_path / "two", trainer)]
    for number, (code, printed, messages) in enumerate(both):
        assert code == 0, messages
        assert f"CPU, 2 replicas, worker {number} of 2 by TF_CONFIG" in printed
    one = trained(tmp_path / "one", micro_batches=2, **EVERY_STEP)
    alone, together = (read_history(f"{tmp_path}/{name}/tensorboard/train") for name in ("one", "two"))
    assert alone["loss"][0] == together["loss"][0] == list(range(1, 7))
    for name in ("loss", "learning_rate", "gradient_norm"):
        np.testing.assert_allclose(together[name][1], alone[name][1], rtol=1e-5, err_msg=name)
    assert_close(newest_weights(tmp_path / "two", EVERY_STEP), weights(one), 1e-6)
    assert len(list((tmp_path / "two/tensorboard/train").iterdir())) == 1  # the chief's
    assert json.loads((tmp_path / "two/metrics.json").read_text())["step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_is_killed_ends_the_run_which_goes_on_from_the_last_checkpoint(tmp_path, victim):
    trainer = {"duration": {"steps": 400}, "steps_per_loop": 1, "checkpoint": {"every": {"steps": 20}}}
    workers = start(tmp_path / "two", trainer, pause=0.05)
    wait_for_step(tmp_path / "two", 40, workers)
    workers[victim].kill()
    code, _, messages = ends(workers[1 - victim])
    ends(workers[victim])
    assert code == 75 and "Traceback" not in messages, messages
    last = messages.strip().splitlines()[-1]
    assert last.startswith(f"error: worker {1 - victim} of 2: lost the connection to worker {victim} (127.0.0.1:"), last
    assert "it has ended, or the network is cut" in last

    before = CheckpointFolder(f"{tmp_path}/two/checkpoints").latest()
    for code, printed, messages in [ends(worker) for worker in start(tmp_path / "two", trainer)]:
        assert code == 0, messages
        assert f"resumed from {before}" in printed
    one = trained(tmp_path / "one", micro_batches=2, **trainer)
    assert_close(newest_weights(tmp_path / "two", trainer), weights(one), 1e-4)  # rounding, over 400 steps


@pytest.mark.slow
def test_what_one_worker_cannot_read_is_left_out_by_both_when_they_start_again(tmp_path):
    trainer = {"steps_per_loop": 1, "checkpoint": {"every": {"steps": 1}}}
    first = [ends(worker) for worker in start(tmp_path, trainer, broken=3)]
    assert all(code == 75 and "Traceback" not in messages for code, _, messages in first), first
    assert any("picture 7 is damaged. Several machines cannot go on past it at once" in each[2] for each in first)
    again = [ends(worker) for worker in start(tmp_path, trainer, broken=3)]
    assert all(code == 0 and "at step 3" in printed for code, printed, _ in again), again


@pytest.mark.slow
def test_a_notice_to_one_worker_saves_and_ends_both(tmp_path):
    trainer = {"duration": {"steps": 4000}, "steps_per_loop": 1, "checkpoint": {"every": {"steps": 20}}}
    workers = start(tmp_path, trainer, pause=0.02)
    wait_for_step(tmp_path, 20, workers)
    workers[1].send_signal(signal.SIGTERM)
    for code, _, messages in [ends(worker) for worker in workers]:
        assert code == PreemptedError.exit_code
        assert f"saved as {CheckpointFolder(f'{tmp_path}/checkpoints').latest()}" in messages


@pytest.mark.slow
def test_workers_that_see_other_folders_are_told_so(tmp_path):
    trained(tmp_path / "here", duration={"steps": 2})
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    workers = [start_one(addresses, index, tmp_path / name, {}) for index, name in enumerate(("here", "there"))]
    for code, _, messages in [ends(worker) for worker in workers]:
        assert code == 1
        assert "expected the same checkpoints on all" in messages and "a file system that every worker sees" in messages
    assert not tf.io.gfile.exists(f"{tmp_path}/there/checkpoints")
