"""The trainer around the step: replicas, micro-batches, sizes, NaN, freezing."""

import numpy as np
import pytest
import tensorflow as tf

from official.core.checkpoint import load_for_inference
from official.core.config_io import ConfigError
from official.core.initialise import variables_by_path
from official.core.task import HostShare
from official.core.trainer import NotFiniteError, Run
from tests.official.core.toy_task import HEIGHT, SIZES, WIDTH, ToyTask, assert_close, make_run, trained, weights

DARKNETS_AVERAGE = {
    "decay": 0.9, "warm_up": False, "start": {"steps": 2}, "statistics": False, "replaces_weights_at": {"steps": 5}
}  # fmt: skip


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
    batch = next(iter(ToyTask().train_inputs(0, HostShare(), (HEIGHT, WIDTH))))
    features = fresh.model.get_layer("body_conv")(batch.image)
    a, b = (tf.reduce_mean(half, [0, 1, 2]).numpy() for half in tf.split(features, 2))
    np.testing.assert_allclose(moving_mean(replicas), 0.01 * (a + b) / 2, atol=1e-6)
    np.testing.assert_allclose(moving_mean(parts), 0.99 * 0.01 * a + 0.01 * b, atol=1e-6)


def test_two_replicas_with_sync_norm_are_one_device_with_the_whole_batch(tmp_path, two_replicas):
    replicas = trained(tmp_path / "replicas", task=ToyTask(sync=True), strategy=two_replicas)
    whole = trained(tmp_path / "whole", task=ToyTask())
    assert_close(weights(replicas), weights(whole), 1e-5)


def test_loss_and_learning_rate_do_not_depend_on_the_number_of_replicas(tmp_path, two_replicas):
    seen = []
    for name, strategy in (("one", None), ("two", two_replicas)):
        run = make_run(tmp_path / name, task=ToyTask(norm=False), strategy=strategy)
        result = run._loop(run.inputs(), tf.constant(1, tf.int64))
        seen.append({key: float(value) for key, value in result["scalars"].items()})
    assert seen[0]["learning_rate"] == seen[1]["learning_rate"]
    assert seen[0]["loss"] == pytest.approx(seen[1]["loss"], rel=1e-6)
    assert seen[0]["gradient_norm"] == pytest.approx(seen[1]["gradient_norm"], rel=1e-5)


def test_steps_per_loop_changes_nothing(tmp_path):
    first = trained(tmp_path / "a", steps_per_loop=1)
    second = trained(tmp_path / "b", steps_per_loop=5)
    assert_close(weights(first), weights(second), 0)


@pytest.mark.parametrize(("average", "stop"), [({"decay": 0.9}, 4), (DARKNETS_AVERAGE, 4), (DARKNETS_AVERAGE, 5)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, average, stop):
    options = {"moving_average": average, "schedule": {"type": "cosine", "learning_rate": 0.05}}
    whole = trained(tmp_path / "whole", **options)
    first = make_run(tmp_path / "parts", **options)
    first.resume_or_initialise()
    first._loop(first.inputs(), tf.constant(stop, tf.int64))
    first.checkpoints.save(first.step, first._groups(), first._facts())
    second = make_run(tmp_path / "parts", **options)
    assert "resumed" in second.resume_or_initialise()
    second.train()
    for here, there in zip(tf.nest.flatten(second.variables), tf.nest.flatten(whole.variables), strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())


def moving_mean(run: Run) -> np.ndarray:
    return np.array(run.model.get_layer("body_norm").moving_mean)


def test_checkpoints_have_the_average_until_it_replaces_the_weights_and_the_weights_from_there_on(tmp_path):
    run = trained(tmp_path, moving_average=DARKNETS_AVERAGE, checkpoint={"every": {"steps": 1}, "keep": 6})
    paths = run.checkpoints.complete()
    kernels, averages, means = [], [], []
    for path in paths:
        run.checkpoints.restore(path, run._groups())
        kernels.append(weights(run)["body_conv/kernel"])
        load_for_inference(path, variables_by_path(run.model))  # what an evaluation and an export have
        averages.append(weights(run)["body_conv/kernel"])
        means.append(moving_mean(run))
    same = [np.array_equal(*pair) for pair in zip(kernels, averages, strict=True)]
    assert same == [True, True, False, False, True, True]
    assert np.array_equal(kernels[4], averages[3]) and not np.array_equal(kernels[5], kernels[4])
    without = trained(tmp_path / "without", duration={"steps": 4})
    np.testing.assert_array_equal(means[3], moving_mean(without))  # not averaged


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
            first._loop(first.inputs(), tf.constant(1, tf.int64))
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


def test_what_cannot_be_read_is_left_out_and_the_run_goes_on(tmp_path):
    run = trained(tmp_path, task=ToyTask(broken=3))
    assert run.step == run.total_steps and run.task.unreadable() == {"3": "picture 7 is damaged"}


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


def test_freezing_everything_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="leave nothing to train"):
        make_run(tmp_path, freeze=["*"])
