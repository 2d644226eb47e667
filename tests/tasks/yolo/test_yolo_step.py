"""The YOLO task under the trainer's step: real data, real loss, all shapes non-square."""

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

from configs.experiment import Experiment
from dataloaders.reading.annotations import DataError
from official.core.checkpoint import CheckpointError
from official.core.config_io import load_config
from official.core.distribution import Placement
from official.core.evaluation import Evaluation
from official.core.task import HostShare
from official.core.trainer import NotFiniteError, Run
from tasks import build_task
from tests.broken_images import break_jpeg
from tests.conftest import EXPERIMENTS
from tools.demo_data import write_synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task") / "data"
    write_synthetic(folder, 10, 5, workers=1)
    return folder


def experiment(name: str, data: Path, *overrides: str) -> Experiment:
    """A shipped experiment at a small size, on the embedded data set."""
    source = "{{type: coco, annotations: {0}/instances_{1}.json, images: {0}/{1}}}"
    common = [
        f"task.data.train.source={source.format(data, 'train')}",
        f"task.data.validation.source={source.format(data, 'val')}",
        "task.data.classes=[target, flag, tent, cross, star, moon]",
        "task.data.train.batch_size=4",
        "task.data.train.max_boxes=12",
        "task.model.input_size=[64, 96]",
        "trainer.duration={steps: 4}",
        "trainer.steps_per_loop=2",
        "trainer.checkpoint.every={steps: 2}",
    ]
    return load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, [*common, *overrides])


def make_run(config: Experiment, directory: Path, strategy: tf.distribute.Strategy | None = None) -> Run:
    placement = Placement(strategy or tf.distribute.get_strategy(), "cpu", "test")
    task = build_task(config)
    run = Run(task, config.trainer, config.runtime, placement, str(directory))
    run.resume_or_initialise()
    return run


def first_batch(run: Run):
    return next(iter(run.task.train_inputs(0, HostShare(), run.task.input_size_at(0))))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("yolov4_tiny_coco", "yolov3_tiny_coco", "bccd")),
        "demo",
    ],
)
def test_one_step_of_every_shipped_model_compiles_under_xla(name, data, tmp_path, not_deterministic):
    """The everyday check that all shapes of the step are static and that nothing in it needs the host."""
    run = make_run(experiment(name, data, "task.model.backbone.width=0.25"), tmp_path)
    state = tf.nest.map_structure(tf.convert_to_tensor, run.variables)
    step = tf.function(run.train_step, autograph=False, jit_compile=True)
    new_state, metrics = step(state, first_batch(run))
    assert int(new_state.step) == 1
    assert np.isfinite(metrics.scalars["loss"].numpy())
    plain_state, plain = run.train_step(state, first_batch(run))
    assert metrics.scalars["loss"].numpy() == pytest.approx(plain.scalars["loss"].numpy(), rel=1e-4)
    assert [x.shape for x in tf.nest.flatten(new_state)] == [x.shape for x in tf.nest.flatten(plain_state)]


@pytest.mark.slow
def test_two_replicas_equal_two_micro_batches_and_with_sync_norm_the_whole_batch(data, tmp_path, two_replicas):
    overrides = [
        "task.model.backbone.width=0.25",
        "task.model.activation=mish",  # smooth, unlike leaky
        "trainer.schedule={type: constant, learning_rate: 1e-4}",
    ]

    def change(folder: str, strategy=None, *more: str) -> np.ndarray:
        """All weights after one step, minus those before it."""
        run = make_run(experiment("yolov4_tiny_coco", data, *overrides, *more), tmp_path / folder, strategy)
        flat = lambda: np.concatenate([value.numpy().ravel() for value in run.variables.weights])  # noqa: E731
        before = flat()
        assert int(run._loop(run.inputs(), tf.constant(1, tf.int64))["bad"]) == -1
        return flat() - before

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        return np.linalg.norm(first - second) / np.linalg.norm(second)

    local, whole = change("replicas", two_replicas), change("whole")
    assert apart(local, change("parts", None, "trainer.micro_batches=2")) < 1e-5
    # Sums over replicas round differently, and at 1e-7 a max-pool may already choose another pixel: hence no closer.
    assert apart(change("sync", two_replicas, "task.model.norm=sync"), whole) < 1e-2
    assert apart(local, whole) > 0.3


@pytest.mark.slow
def test_bfloat16_keeps_weights_statistics_and_loss_in_float32(data, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        run = make_run(experiment("yolov4_tiny_coco", data, "task.model.backbone.width=0.25"), tmp_path)
        compute = run.model.get_layer("backbone_conv02").compute_dtype
        result = run._loop(run.inputs(), tf.constant(2, tf.int64))
    finally:
        keras.config.set_dtype_policy("float32")
    assert compute == "bfloat16"
    assert {value.dtype for value in run.variables.weights + run.variables.statistics} == {tf.float32}
    assert np.isfinite(float(result["scalars"]["loss"]))


def test_a_nan_weight_names_the_network_output_first(data, tmp_path):
    run = make_run(experiment("yolov4_tiny_coco", data, "task.model.backbone.width=0.25"), tmp_path)
    run.variables.weights[0].assign(np.nan * run.variables.weights[0])
    with pytest.raises(
        NotFiniteError, match=r"step 1: network output .* is NaN .*example ids of the batch: \d+ \(.*\.jpg\), "
    ):
        run.train()


def test_images_without_any_box_train(data, tmp_path):
    run = make_run(experiment("demo", data, "task.model.backbone.width=0.25"), tmp_path)
    batch = first_batch(run)
    empty = batch._replace(valid=tf.zeros_like(batch.valid), boxes=tf.zeros_like(batch.boxes))
    state = tf.nest.map_structure(tf.convert_to_tensor, run.variables)
    _, metrics = run.train_step(state, empty)
    assert all(bool(finite) for finite in metrics.finite.values())
    assert float(metrics.scalars["box"]) == 0.0
    assert float(metrics.scalars["objectness"]) > 0.0


def test_a_run_trains_scores_and_resumes(data, tmp_path):
    config = experiment("demo", data, "task.model.backbone.width=0.25", "task.data.validation.batch_size=2")
    run = make_run(config, tmp_path)
    evaluation = Evaluation(run.task, str(tmp_path))
    run.train(evaluation)
    assert evaluation.last["step"] == 4
    assert evaluation.last["images"] == 5
    assert evaluation.last["protocol"]["nms_threshold"] == config.task.evaluation.nms_threshold
    assert (tmp_path / "metrics.json").is_file()
    assert yaml.safe_load((tmp_path / "metrics.json").read_text())["AP"] == evaluation.last["AP"]
    assert make_run(config, tmp_path).step == 4


@pytest.mark.slow
def test_a_resumed_run_on_real_data_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path):
    config = experiment("demo", data, "task.model.backbone.width=0.25")
    whole = make_run(config, tmp_path / "whole")
    whole.train()
    first = make_run(config, tmp_path / "parts")
    first._loop(first.inputs(), tf.constant(2, tf.int64))
    first.checkpoints.save(first.step, first._groups(), first._facts())
    second = make_run(config, tmp_path / "parts")
    assert second.step == 2
    second.train()
    for here, there in zip(tf.nest.flatten(second.variables), tf.nest.flatten(whole.variables), strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())


def test_a_run_that_the_version_before_saved_is_resumed(data, tmp_path):
    """Its manifests have the loss of a level, if it has one of its own, in the words of then."""
    level = "task.model.head.levels.0.loss={iou_loss: giou}"
    config = experiment("demo", data, "task.model.backbone.width=0.25", level)
    first = make_run(config, tmp_path)
    manifest = Path(first.checkpoints.save(first.step, first._groups(), first._facts())) / "manifest.json"
    text = manifest.read_text()
    assert text.count('"gradient": "autodiff"') == 1
    manifest.write_text(text.replace('"gradient": "autodiff"', '"gradient": "true"'))
    assert first.resume_or_initialise().startswith("resumed from")
    manifest.write_text(text.replace('"gradient": "autodiff"', '"gradient": "darknet"'))
    with pytest.raises(CheckpointError, match="model has changed; this would not be the same run"):
        first.resume_or_initialise()


def broken_copy(data: Path, folder: Path, split: str, count: int = 1) -> list[Path]:
    """A copy of the data in which images of a split cannot be decoded, though header and end mark are there."""
    shutil.copytree(data, folder)
    broken = sorted((folder / split).glob("*.jpg"))[1 : 1 + count]
    for path in broken:
        break_jpeg(path)
    return broken


def test_a_validation_image_that_breaks_behind_its_header_is_named(data, tmp_path):
    (broken,) = broken_copy(data, tmp_path / "data", "val")
    run = make_run(experiment("demo", tmp_path / "data", "task.model.backbone.width=0.25"), tmp_path / "run")
    with pytest.raises(DataError, match=rf"val/{broken.name} \(image id \d+\): cannot be decoded.*Repair the file"):
        run.task.check_eval_inputs()


def test_training_images_that_cannot_be_decoded_are_named_once_and_replaced(data, tmp_path, caplog):
    broken = broken_copy(data, tmp_path / "data", "train", 2)
    plain = "task.data.train.augmentation=null", "task.model.backbone.width=0.25"
    run = make_run(experiment("demo", tmp_path / "data", *plain, "trainer.duration={steps: 6}"), tmp_path / "run")
    run.train()
    for path in broken:
        (told,) = [text for text in caplog.messages if path.name in text]
        assert re.search(r"cannot be decoded.*Repair the file.*Until then image id \d+ stands in for it", told)
    assert len(run.task.data_reports()["train"]["unreadable"]) == 2


def test_a_data_set_that_is_gone_stops_the_run(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    run = make_run(experiment("demo", tmp_path / "data", "task.model.backbone.width=0.25"), tmp_path / "run")
    shutil.rmtree(tmp_path / "data" / "train")
    with pytest.raises(DataError, match="images that were read again: is the disk or the network gone"):
        run.train()
