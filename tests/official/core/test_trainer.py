"""The trainer around the step: replicas, micro-batches, resuming, NaN, freezing, fine-tuning."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from official.core.checkpoint import CheckpointError
from official.core.config import Runtime
from official.core.config_io import ConfigError
from official.core.distribution import Placement
from official.core.task import Shard
from official.core.trainer import NotFiniteError, PreemptedError, Run
from tests.official.core.toy_task import HEIGHT, WIDTH, ToyTask, toy_trainer

ONE = tf.distribute.get_strategy


def make_run(directory: Path, task: ToyTask | None = None, strategy=None, seed: int = 0, **trainer) -> Run:
    placement = Placement(strategy or ONE(), "cpu", "test")
    return Run(task or ToyTask(), toy_trainer(**trainer), Runtime(seed=seed), placement, str(directory))


def trained(directory: Path, **arguments) -> Run:
    run = make_run(directory, **arguments)
    run.resume_or_initialise()
    run.train()
    return run


def weights(run: Run) -> dict[str, np.ndarray]:
    return {variable.path: np.array(variable) for variable in run.model.trainable_variables}


def assert_close(first: dict[str, np.ndarray], second: dict[str, np.ndarray], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)


def test_two_replicas_with_local_norm_are_one_device_with_two_micro_batches(tmp_path, two_replicas):
    replicas = trained(tmp_path / "replicas", strategy=two_replicas)
    parts = trained(tmp_path / "parts", micro_batches=2)
    assert_close(weights(replicas), weights(parts), 1e-6)
    whole = trained(tmp_path / "whole")
    assert np.abs(weights(whole)["body_conv/kernel"] - weights(parts)["body_conv/kernel"]).max() > 1e-3


@pytest.mark.slow
def test_moving_statistics_are_the_mean_over_replicas_and_follow_micro_batches_in_turn(tmp_path, two_replicas):
    """One step from mean 0 and momentum 0.99: replicas 0.01 * (a + b) / 2; micro-batches 0.99 * 0.01 a + 0.01 b."""
    one_step = {"duration": {"steps": 1}}
    replicas = trained(tmp_path / "replicas", strategy=two_replicas, **one_step)
    parts = trained(tmp_path / "parts", micro_batches=2, **one_step)
    fresh = make_run(tmp_path / "fresh")
    batch = next(iter(ToyTask().train_inputs(0, Shard(), (HEIGHT, WIDTH))))
    features = fresh.model.get_layer("body_conv")(batch.image)
    a, b = (tf.reduce_mean(half, [0, 1, 2]).numpy() for half in tf.split(features, 2))
    moving = lambda run: np.array(run.model.get_layer("body_norm").moving_mean)  # noqa: E731
    np.testing.assert_allclose(moving(replicas), 0.01 * (a + b) / 2, atol=1e-6)
    np.testing.assert_allclose(moving(parts), 0.99 * 0.01 * a + 0.01 * b, atol=1e-6)


def test_two_replicas_with_sync_norm_are_one_device_with_the_whole_batch(tmp_path, two_replicas):
    replicas = trained(tmp_path / "replicas", task=ToyTask(sync=True), strategy=two_replicas)
    whole = trained(tmp_path / "whole", task=ToyTask())
    assert_close(weights(replicas), weights(whole), 1e-5)


def test_loss_and_learning_rate_do_not_depend_on_the_number_of_replicas(tmp_path, two_replicas):
    seen = []
    for name, strategy in (("one", None), ("two", two_replicas)):
        run = make_run(tmp_path / name, task=ToyTask(norm=False), strategy=strategy)
        result = run._loop(run._inputs(), tf.constant(1, tf.int64))
        seen.append({key: float(value) for key, value in result["scalars"].items()})
    assert seen[0]["learning_rate"] == seen[1]["learning_rate"]
    assert seen[0]["loss"] == pytest.approx(seen[1]["loss"], rel=1e-6)
    assert seen[0]["gradient_norm"] == pytest.approx(seen[1]["gradient_norm"], rel=1e-5)


def test_steps_per_loop_changes_nothing(tmp_path):
    first = trained(tmp_path / "a", steps_per_loop=1)
    second = trained(tmp_path / "b", steps_per_loop=5)
    assert_close(weights(first), weights(second), 0)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    options = {"moving_average": {"decay": 0.9}, "schedule": {"type": "cosine", "learning_rate": 0.05}}
    whole = trained(tmp_path / "whole", **options)
    first = make_run(tmp_path / "parts", **options)
    first.resume_or_initialise()
    first._loop(first._inputs(), tf.constant(4, tf.int64))
    first.checkpoints.save(first.step, first._groups(), first._facts())
    second = make_run(tmp_path / "parts", **options)
    assert "resumed" in second.resume_or_initialise()
    second.train()
    for here, there in zip(tf.nest.flatten(second.variables), tf.nest.flatten(whole.variables), strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())


SIZES = ((6, 10), (8, 12), (10, 6))


def sizes_of_loops(run: Run) -> list[tuple[tuple[int, int], int]]:
    """Trains; which size each loop had, and how many steps."""
    seen, loop = [], run._loop

    def noted(iterator, count):
        seen.append((tuple(iterator.element_spec.image.shape[1:3]), int(count)))
        return loop(iterator, count)

    run._loop = noted
    run.resume_or_initialise()
    run.train()
    return seen


def test_loops_end_where_the_size_changes_and_every_step_has_its_own_batch(tmp_path):
    class Noting(ToyTask):
        def prepare(self, batch):
            tf.py_function(lambda image, ids: seen.append((image.shape[1:3], ids[0].numpy())), batch[::2], [])
            return super().prepare(batch)

    seen = []
    run = make_run(tmp_path, Noting(sizes=SIZES), duration={"steps": 12}, checkpoint={"every": {"steps": 5}})
    loops = sizes_of_loops(run)
    sizes = [SIZES[index] for index in (1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2)]
    assert [size for size, count in loops for _ in range(count)] == sizes
    one, two = SIZES[1:]
    assert loops == [(one, 2), (two, 3), (two, 1), (one, 2), (two, 2), (two, 2)]  # checkpoints at 5 and 10
    assert [(tuple(shape), first) for shape, first in seen] == [(size, 4 * step) for step, size in enumerate(sizes)]


@pytest.mark.slow
def test_a_resumed_run_at_several_sizes_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    options = {"task": ToyTask(sizes=SIZES), "duration": {"steps": 14}, "checkpoint": {"every": {"steps": 1}}}
    whole = trained(tmp_path / "whole", **options)
    for stop in (3, 8, 9):
        first = make_run(tmp_path / "parts", **options)
        first.resume_or_initialise()
        while first.step < stop:
            first._loop(first._inputs(), tf.constant(1, tf.int64))
        first.checkpoints.save(first.step, first._groups(), first._facts())
    last = trained(tmp_path / "parts", **options)
    for here, there in zip(tf.nest.flatten(last.variables), tf.nest.flatten(whole.variables), strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())
    single = trained(tmp_path / "single", duration={"steps": 14})
    assert not np.array_equal(weights(single)["body_conv/kernel"], weights(whole)["body_conv/kernel"])


def test_several_sizes_on_two_replicas_are_one_device_with_two_micro_batches(tmp_path, two_replicas):
    options = {"duration": {"steps": 8}}
    replicas = trained(tmp_path / "replicas", task=ToyTask(sizes=SIZES), strategy=two_replicas, **options)
    parts = trained(tmp_path / "parts", task=ToyTask(sizes=SIZES), micro_batches=2, **options)
    assert_close(weights(replicas), weights(parts), 1e-6)


@pytest.mark.slow
def test_layer_rules_scale_rates_and_hold_gradients_back(tmp_path):
    """The head at half its rate, twice over; the body without gradient for two steps, with decay and momentum."""
    layers = [
        {"name": "head_*", "learning_rate": 0.5},
        {"name": "head_conv", "learning_rate": 0.5},
        {"name": "body_*", "no_gradient": {"steps": 2}},
    ]
    start, plain = weights(make_run(tmp_path / "start")), trained(tmp_path / "plain", duration={"steps": 1})
    one = trained(tmp_path / "one", duration={"steps": 1}, layers=layers)
    moved = {name: weights(one)[name] - start[name] for name in start}
    plainly = {name: weights(plain)[name] - start[name] for name in start}
    np.testing.assert_allclose(moved["head_conv/kernel"], plainly["head_conv/kernel"] / 4, rtol=1e-4, atol=1e-8)
    decay, rate = 0.001, 0.05
    np.testing.assert_allclose(
        moved["body_conv/kernel"], -rate * decay * start["body_conv/kernel"], rtol=1e-2, atol=1e-8
    )
    np.testing.assert_array_equal(moved["body_norm/gamma"], 0)
    assert np.abs(np.array(one.model.get_layer("body_norm").moving_mean)).max() > 0

    two = trained(tmp_path / "two", duration={"steps": 2}, layers=layers)
    factor = 1 - rate * decay * (1 + 0.9 + 1 - rate * decay)  # decay of two steps, and momentum of the first
    np.testing.assert_allclose(weights(two)["body_conv/kernel"], start["body_conv/kernel"] * factor, rtol=1e-6)
    three = trained(tmp_path / "three", duration={"steps": 3}, layers=layers)
    assert np.abs(weights(three)["body_norm/gamma"] - 1).min() > 0


def test_a_rule_without_a_layer_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer.layers\[1\].name: 'neck' matches no layer; layers are named body_"):
        make_run(tmp_path, layers=[{"name": "head_*"}, {"name": "neck"}])


KILLED = """
import sys, numpy as np, tensorflow as tf
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tests.official.core.test_trainer import SIZES, ToyTask, trained
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


@pytest.mark.slow
def test_sync_norm_with_micro_batches_on_two_replicas_is_one_device_with_the_same_parts(tmp_path, two_replicas):
    """Part i of both replicas is normalised together: one device sees those halves as its parts."""
    task = ToyTask(batch_size=8, sync=True)
    replicas = trained(tmp_path / "replicas", task=task, strategy=two_replicas, micro_batches=2)

    class Interleaved(ToyTask):
        def train_inputs(self, start_step, shard, input_size):
            order = [0, 1, 4, 5, 2, 3, 6, 7]  # replica 0 has rows 0-3, replica 1 rows 4-7, in parts of two
            return (
                super()
                .train_inputs(start_step, shard, input_size)
                .map(lambda batch: tf.nest.map_structure(lambda x: tf.gather(x, order), batch))
            )

    whole = trained(tmp_path / "whole", task=Interleaved(batch_size=8), micro_batches=2)
    assert_close(weights(replicas), weights(whole), 1e-5)


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


def test_nan_stops_naming_step_examples_and_quantity_and_keeps_the_last_good_checkpoint(tmp_path):
    run = make_run(tmp_path, task=ToyTask(poison=4), steps_per_loop=4)
    run.resume_or_initialise()
    with pytest.raises(
        NotFiniteError, match=r"step 5: loss part 'square' is NaN.*ids of the batch: 16 \(picture 16\), 17 "
    ):
        run.train()
    again = make_run(tmp_path)
    assert again.resume_or_initialise().endswith("step 4")
    assert all(np.isfinite(value).all() for value in weights(again).values())


def test_nan_on_one_replica_stops_all(tmp_path, two_replicas):
    with pytest.raises(NotFiniteError, match="step 3"):
        trained(tmp_path, task=ToyTask(poison=2), strategy=two_replicas)


def test_a_batch_that_does_not_divide_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="batch_size 4 does not divide by 1 replicas x 3 micro_batches"):
        make_run(tmp_path, micro_batches=3)


def test_clipping_bounds_the_step(tmp_path):
    free = trained(tmp_path / "free", duration={"steps": 1}, optimizer={"type": "sgd", "weight_decay": 0})
    clipped = trained(
        tmp_path / "clipped", duration={"steps": 1}, optimizer={"type": "sgd", "weight_decay": 0}, clip_global_norm=1e-3
    )
    start = weights(make_run(tmp_path / "start"))
    moved = lambda run: np.sqrt(sum(((weights(run)[k] - start[k]) ** 2).sum() for k in start))  # noqa: E731
    assert moved(clipped) == pytest.approx(0.05 * 1e-3, rel=1e-3)
    assert moved(free) > 10 * moved(clipped)


def test_frozen_layers_stay_bit_for_bit(tmp_path):
    start = make_run(tmp_path / "start")
    run = trained(tmp_path / "run", freeze=["body_*"])
    for before, after in zip(start.model.variables, run.model.variables, strict=True):
        same = np.array_equal(np.array(before), np.array(after))
        assert same == before.path.startswith("body_"), before.path


def test_a_freeze_pattern_without_a_layer_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"'neck_\*' matches no layer; layers are named body_conv"):
        make_run(tmp_path, freeze=["neck_*"])


class OtherClasses(ToyTask):
    """The same body with a head of another size."""

    def build_model(self):
        model = super().build_model()
        import keras

        out = keras.layers.Conv2D(3, 1, name="head_conv")(model.layers[-3].output)
        return keras.Model(model.inputs, [keras.layers.GlobalAveragePooling2D(name="mean")(out)])


def test_fine_tuning_lists_what_was_not_loaded_and_averages_from_there(tmp_path):
    first = trained(tmp_path / "first")
    second = make_run(
        tmp_path / "second",
        OtherClasses(),
        moving_average={"decay": 0.9},
        initialise={"checkpoint": str(tmp_path / "first")},
    )
    report = second.resume_or_initialise()
    assert "head_conv/kernel: here [1, 1, 4, 3], there [1, 1, 4, 1]" in report
    np.testing.assert_array_equal(weights(second)["body_conv/kernel"], weights(first)["body_conv/kernel"])
    np.testing.assert_array_equal(second.variables.average[0].numpy(), weights(first)["body_conv/kernel"])


def foreign(directory: Path, seen: int | None) -> str:
    """A file that the toy task reads: of weights that have seen so many examples."""
    directory.mkdir(exist_ok=True)
    (directory / "foreign.json").write_text(json.dumps({"kernel": 0.25} | ({} if seen is None else {"seen": seen})))
    return str(directory / "foreign.json")


def test_a_foreign_file_is_read_by_the_task_and_its_examples_count_only_if_asked(tmp_path):
    path = foreign(tmp_path, seen=18)  # 4 steps of 4, and two examples more
    average = {"decay": 0.9}
    for start_step, expected in ((0, 0), (2, 2), ("from_file", 4)):
        initialise = {"checkpoint": path, "start_step": start_step}
        run = make_run(tmp_path / str(start_step), initialise=initialise, moving_average=average)
        assert f"loaded head_conv from {path}" in run.resume_or_initialise()
        assert run.step == expected
        assert (weights(run)["head_conv/kernel"] == 0.25).all()
        names = [variable.path for variable in run.model.trainable_variables]
        assert (run.variables.average[names.index("head_conv/kernel")].numpy() == 0.25).all()
    assert next(run._inputs()).example_id.numpy()[0] == 16  # the data go on from there too


@pytest.mark.slow
def test_another_run_may_be_continued_at_its_step_and_is_resumed_from_then_on(tmp_path):
    first = trained(tmp_path / "first")
    options = {"initialise": {"checkpoint": str(tmp_path / "first"), "start_step": "from_file"}}
    second = make_run(tmp_path / "second", duration={"steps": 9}, **options)
    report = second.resume_or_initialise()
    assert "goes on after the 6 steps of 4 examples it has seen" in report and second.step == 6
    assert_close(weights(second), weights(first), 0)
    second.train()
    assert make_run(tmp_path / "second", duration={"steps": 9}, **options).resume_or_initialise().endswith("at step 9")


@pytest.mark.parametrize(("seen", "step"), [(24, 6), (4 * 10**12, 10**12)])
def test_weights_trained_past_the_duration_are_an_error_that_names_the_way_out(tmp_path, seen, step):
    path = foreign(tmp_path, seen)
    run = make_run(tmp_path / "run", initialise={"checkpoint": path, "start_step": "from_file"})
    with pytest.raises(
        ConfigError,
        match=rf"foreign.json: its weights count as trained for {step} steps .*start_step is from_file.* at step 6: "
        r"nothing would be trained. Set trainer.initialise.start_step=0 .*--clear.* or a longer trainer.duration",
    ):
        run.resume_or_initialise()


def test_a_file_that_does_not_say_how_long_it_was_trained_is_an_error_only_if_asked(tmp_path):
    path = foreign(tmp_path, None)
    make_run(tmp_path / "a", initialise={"checkpoint": path}).resume_or_initialise()
    run = make_run(tmp_path / "b", initialise={"checkpoint": path, "start_step": "from_file"})
    with pytest.raises(
        CheckpointError, match=r"does not say how long .* set trainer.initialise.start_step to a number"
    ):
        run.resume_or_initialise()


@pytest.mark.parametrize(("name", "message"), [("nowhere", "no such file or folder"), ("empty", "no complete")])
def test_nothing_to_start_from_is_an_error(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "run", initialise={"checkpoint": str(tmp_path / name)})
    with pytest.raises(CheckpointError, match=rf"{name}: .*{message}"):
        run.resume_or_initialise()


def test_freezing_everything_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="leave nothing to train"):
        make_run(tmp_path, freeze=["*"])


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
