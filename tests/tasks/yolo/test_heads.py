"""One task for the four kinds of heads: each builds, has a loss and detects, from a cfg alone."""

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from dataloaders.batch import ColourDraws, EvalBatch, TrainBatch
from modeling.darknet.cfg import read_cfg
from official.core.config_io import ConfigError, check_config
from official.core.task import Moment
from tasks.yolo.recipe import Sources, recipe
from tasks.yolo.task import Yolo

CASES = {
    "ciou_v4tiny": "yolo",
    "gaussian_bdd": "gaussian_yolo",
    "region_v2_seen_small": "region",
    "detection_v1": "detection",
}
SOURCE = {"type": "darknet", "data": "x.data", "split": "train"}
CLASSES = ("a", "b", "c", "d")


def experiment_of(golden, tmp_path, case: str, *overrides: str) -> Experiment:
    cfg = tmp_path / f"{case}.cfg"
    cfg.write_text(str(np.load(golden(f"loss/{case}.npz"), allow_pickle=False)["meta/cfg"]))
    more = [] if "max_batches" in cfg.read_text() else ["max_batches=10\n"]
    cfg.write_text(cfg.read_text().replace("[net]\n", "[net]\n" + "".join(more)))
    made = recipe(read_cfg(str(cfg)), Sources(CLASSES, SOURCE, SOURCE)).experiment
    return check_config(made, Experiment, str(cfg), overrides)


def batch_of(task: Yolo) -> TrainBatch:
    """Two images of noise: one with a box, the other without any."""
    height, width = task.config.model.input_size
    count, some = task.config.data.train.max_boxes, tf.constant([[[0.5, 0.4, 0.3, 0.2]], [[0.0] * 4]])
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    draws = ColourDraws(tf.constant([True, False]), tf.zeros([2]), tf.ones([2]), tf.ones([2]))
    return TrainBatch(
        tf.constant(pixels),
        tf.pad(some, [[0, 0], [0, count - 1], [0, 0]]),
        tf.zeros([2, count], tf.int32) + 3,
        tf.pad(tf.constant([[True], [False]]), [[0, 0], [0, count - 1]]),
        tf.constant([1, 2], tf.int64),
        draws,
    )


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_head_builds_learns_and_detects(golden, tmp_path, case):
    experiment = experiment_of(golden, tmp_path, case)
    task, size = Yolo(experiment.task, 1, experiment.trainer.duration), experiment.task.model.input_size
    assert task.config.model.head.type == task.config.loss.type == CASES[case]
    model = task.build_model()
    images, truth = task.prepare(batch_of(task))
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(images, training=True))
        loss, parts = task.loss(outputs, truth, Moment(tf.constant(1, tf.int64), size))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert np.isfinite(loss) and all(np.isfinite(part) for part in parts.values())
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)
    inference = task.build_inference_model()
    task.fold(model, inference)
    image_sizes = tf.constant([[100, 80], [60, 90]])
    found = task.detect(inference, EvalBatch(batch_of(task).image, image_sizes, tf.constant([1, 2], tf.int64)))
    assert found.boxes.shape == (2, 100, 4) and np.isfinite(found.boxes).all()
    expected = task.decode(tf.nest.flatten(model(tf.cast(batch_of(task).image, tf.float32) / 255, training=False)))
    folded = task.decode(tf.nest.flatten(inference(tf.cast(batch_of(task).image, tf.float32) / 255, training=False)))
    np.testing.assert_allclose(folded[1], expected[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_another_number_of_classes(golden, tmp_path, case):
    experiment = experiment_of(golden, tmp_path, case, "task.data.classes=[one, two]")
    outputs = Yolo(experiment.task, 1, experiment.trainer.duration).build_model().outputs
    per_anchor = {"yolo": 5, "gaussian_yolo": 9, "region": 5}
    kind = CASES[case]
    if kind == "detection":
        head = experiment.task.model.head
        assert outputs[0].shape[1] == head.side**2 * (2 + head.num * 5)
    else:
        assert {output.shape[-1] for output in outputs} == {per_anchor[kind] + 2}


def test_a_head_that_is_not_the_cfgs_is_one_clear_error(golden, tmp_path):
    for override, message in (
        ("task.model.head.levels=[{mask: [0, 1, 2]}]", r"task\.model\.head: its levels.*expected the same"),
        ("task.model.head.levels.0.mask=[3]", r"task\.model\.head: its levels.*expected the same"),
    ):
        experiment = experiment_of(golden, tmp_path, "ciou_v4tiny", override)
        with pytest.raises(ConfigError, match=message):
            Yolo(experiment.task, 1, experiment.trainer.duration).build_model()
    with pytest.raises(ConfigError, match=r"loss\.type is yolo, but model\.head\.type is region"):
        experiment_of(golden, tmp_path, "region_v2_seen_small", "task.loss={type: yolo}")
