"""Checkpoints of a run: kept, resumed from after a kill, damaged, foreign."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from official.core.checkpoint import CheckpointError
from official.core.trainer import PreemptedError
from tests.official.core.toy_task import OtherClasses, ToyTask, assert_close, make_run, trained, weights

KILLED = """
import sys, numpy as np, tensorflow as tf
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.official.core.toy_task import SIZES, ToyTask, trained
tf.config.experimental.enable_op_determinism()
task = ToyTask(sizes=SIZES)
every_three = {"checkpoint": {"every": {"steps": 3}}, "steps_per_loop": 3}
run = trained(Path(sys.argv[2]), task=task, duration={"steps": 900}, **every_three)
np.savez(sys.argv[2] + "/final.npz", *[value.numpy() for value in tf.nest.flatten(run.variables)])
"""


def newest(directory: Path) -> str:
    return max((path.name for path in directory.glob("checkpoints/step-*")), default="")


@pytest.mark.slow
def test_kill_9_at_any_moment_and_restart_gives_the_same_weights(tmp_path):
    root = str(Path(__file__).parents[3])
    start = lambda name: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", KILLED, root, str(tmp_path / name)], stderr=subprocess.DEVNULL
    )
    assert start("whole").wait() == 0
    for extra in (0.0, 0.37):  # two kills, at different moments after progress was made
        process, before = start("killed"), newest(tmp_path / "killed")
        while newest(tmp_path / "killed") <= before:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        time.sleep(extra)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start("killed").wait() == 0
    whole, killed = (np.load(tmp_path / name / "final.npz") for name in ("whole", "killed"))
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], killed[name])


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path):
    run = make_run(
        tmp_path, checkpoint={"every": {"steps": 1}, "keep": 2, "best_metric": "AP50"}, evaluate_every={"steps": 1}
    )
    run.resume_or_initialise()
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.4, 0.5])
    run.train(lambda path: {"AP50": next(scores)})
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-00000002", "step-00000005", "step-00000006"]
    assert run.checkpoints.best().endswith("step-00000002")


def test_a_notice_of_preemption_saves_and_ends_with_its_own_exit_code(tmp_path):
    run = make_run(tmp_path / "stopped")
    run.resume_or_initialise()

    def notice_at_step_3(*arguments):
        result = loop(*arguments)
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    loop, run._loop = run._loop, notice_at_step_3
    with pytest.raises(PreemptedError, match=r"asked to end at step 2; saved as .*step-00000002") as stopped:
        run.train()
    assert stopped.value.exit_code == 75
    again = make_run(tmp_path / "stopped")
    assert again.resume_or_initialise().endswith("step 2")
    again.train()
    assert_close(weights(again), weights(trained(tmp_path / "whole")), 0)


def test_what_was_found_unreadable_is_left_out_by_the_run_that_resumes(tmp_path):
    first, second = ToyTask(), ToyTask()
    first.leave_out({"3": "image 7 is damaged"})
    trained(tmp_path, task=first)
    make_run(tmp_path, second).resume_or_initialise()
    assert second.unreadable() == {"3": "image 7 is damaged"}


def test_a_damaged_list_of_what_is_left_out_is_an_error(tmp_path):
    (tmp_path / "unreadable.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"unreadable.json: not valid JSON .* delete it"):
        make_run(tmp_path).resume_or_initialise()


def test_a_checkpoint_that_was_saved_but_not_scored_is_scored_at_the_restart(tmp_path):
    options = {"evaluate_every": {"steps": 2}, "checkpoint": {"every": {"steps": 2}, "best_metric": "AP"}}
    first = make_run(tmp_path, **options)
    first.resume_or_initialise()

    def killed(path: str) -> dict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.train(killed)
    again, scored = make_run(tmp_path, **options), []
    again.resume_or_initialise()
    again.train(lambda path: scored.append(path[-1]) or {"AP": 0.5})
    assert scored == ["2", "4", "6"]


@pytest.mark.slow
def test_what_killed_writes_leave_behind_is_removed_and_a_lost_best_forgotten(tmp_path):
    run = trained(tmp_path, duration={"steps": 2})
    left = tmp_path / "checkpoints" / "step-00000001"
    left.mkdir()
    (left / "state.index").touch()
    run.checkpoints.record_score(run.checkpoints.latest(), "AP", 0.9)
    longer = make_run(tmp_path, duration={"steps": 4})
    longer.resume_or_initialise()
    longer.train()
    assert not left.exists()
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000002")
    assert longer.checkpoints.best() is None
    longer.checkpoints.record_score(longer.checkpoints.latest(), "AP", 0.1)
    assert longer.checkpoints.best().endswith("4")


@pytest.mark.parametrize("text", ["{}", "[1]", "not json"])
def test_a_foreign_manifest_is_a_clear_error(tmp_path, text):
    run = trained(tmp_path)
    (Path(run.checkpoints.latest()) / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        make_run(tmp_path).resume_or_initialise()


def test_another_optimiser_is_said_so(tmp_path):
    trained(tmp_path)
    with pytest.raises(CheckpointError, match="made by another optimiser"):
        make_run(tmp_path, optimizer={"type": "adamw"}).resume_or_initialise()


def test_a_foreign_checkpoint_is_an_error_that_lists_the_differences(tmp_path):
    trained(tmp_path)
    with pytest.raises(CheckpointError, match=r"made by another model .*other shape: head_conv/"):
        make_run(tmp_path, OtherClasses()).resume_or_initialise()


def test_another_seed_or_batch_size_is_an_error(tmp_path):
    trained(tmp_path)
    with pytest.raises(CheckpointError, match="seed was 0, now it is 1"):
        make_run(tmp_path, seed=1).resume_or_initialise()
    with pytest.raises(CheckpointError, match="batch_size was 4, now it is 8"):
        make_run(tmp_path, ToyTask(batch_size=8)).resume_or_initialise()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, damage):
    run = trained(tmp_path)
    data = Path(run.checkpoints.latest()) / "state.data-00000-of-00001"
    content = data.read_bytes()
    if damage == "truncate":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        middle = len(content) // 2
        data.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    else:
        data.unlink()
    with pytest.raises(CheckpointError, match=r"step-00000006: damaged or incomplete data .*delete this folder"):
        make_run(tmp_path).resume_or_initialise()


def test_an_unfinished_checkpoint_is_passed_over(tmp_path):
    run = trained(tmp_path)
    (Path(run.checkpoints.latest()) / "manifest.json").unlink()
    again = make_run(tmp_path)
    assert again.resume_or_initialise().endswith("step 4")
    again.train()
    assert_close(weights(run), weights(again), 0)
