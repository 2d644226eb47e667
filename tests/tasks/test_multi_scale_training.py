"""Training at several input sizes with real data, model and loss: parts-built and from a cfg."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from official.core.task import HostShare
from tests.tasks.yolo.test_yolo_step import experiment, make_run
from tools.demo_data import write_synthetic

SMALL = "task.model.backbone.width=0.25"
TWO_SIZES = "task.data.train.multi_scale={sizes: 2, every: {steps: 2}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task") / "data"
    write_synthetic(folder, 10, 5, workers=1)
    return folder


def varied(data: Path, *overrides: str):
    """Blocks of two steps at 128 x 160 (the first) or 64 x 96."""
    return experiment("demo", data, SMALL, TWO_SIZES, "runtime.seed=1", "trainer.duration={steps: 6}", *overrides)


def values(run) -> list[np.ndarray]:
    return [value.numpy() for value in tf.nest.flatten(run.variables)]


@pytest.mark.slow
def test_a_run_uses_all_sizes_and_resumes_in_the_middle_of_one_bit_for_bit(data, tmp_path):
    whole = make_run(varied(data), tmp_path / "whole")
    assert whole.task.stream.sizes.sizes == ((64, 96), (128, 160))
    assert {whole.task.input_size_at(step) for step in range(6)} == set(whole.task.stream.sizes.sizes)
    assert whole.model.input_shape == (None, None, None, 3)
    whole.train()
    assert all(np.isfinite(value).all() for value in values(whole))

    first = make_run(varied(data), tmp_path / "parts")
    for _ in range(3):
        assert int(first._loop(first.inputs(), tf.constant(1, tf.int64))["bad"]) == -1
    first.checkpoints.save(first.step, first._groups(), first._facts())
    second = make_run(varied(data), tmp_path / "parts")
    assert second.step == 3
    second.train()
    for here, there in zip(values(second), values(whole), strict=True):
        np.testing.assert_array_equal(here, there)


def test_a_network_for_all_sizes_is_the_one_for_a_single_size(data, tmp_path):
    """The same variables from the same seed, and the same outputs."""
    single = experiment("demo", data, SMALL, "runtime.seed=1", "task.model.input_size=[128, 160]")
    several = varied(data, "task.model.input_size=[128, 160]")
    runs = [make_run(config, tmp_path / name) for name, config in (("one", single), ("more", several))]
    batch = next(iter(runs[0].task.train_inputs(0, HostShare(), (128, 160))))
    outputs = [run.model(run.task.prepare(batch)[0], training=True) for run in runs]
    assert [variable.path for variable in runs[0].model.variables] == [v.path for v in runs[1].model.variables]
    assert [tuple(output.shape[1:3]) for output in outputs[1]] == [(4, 5), (8, 10), (16, 20)]
    for one, more in zip(*map(tf.nest.flatten, outputs), strict=True):
        np.testing.assert_array_equal(one, more)


@pytest.mark.slow
def test_several_sizes_on_two_replicas_equal_two_micro_batches(data, tmp_path, two_replicas):
    overrides = ["task.model.activation=mish", "trainer.schedule={type: constant, learning_rate: 1e-4}"]

    def change(folder: str, strategy=None, *more: str) -> np.ndarray:
        """All weights after a step at each size, minus those before."""
        config = varied(data, "task.data.train.multi_scale.every={steps: 1}", *overrides, *more)
        run = make_run(config, tmp_path / folder, strategy)
        flat = lambda: np.concatenate([value.numpy().ravel() for value in run.variables.weights])  # noqa: E731
        before, seen = flat(), set()
        while seen != set(run.task.stream.sizes.sizes):
            seen.add(run.task.input_size_at(run.step))
            assert int(run._loop(run.inputs(), tf.constant(1, tf.int64))["bad"]) == -1
        return flat() - before

    replicas, parts = change("replicas", two_replicas), change("parts", None, "trainer.micro_batches=2")
    assert np.linalg.norm(replicas - parts) / np.linalg.norm(parts) < 1e-4
