"""Grey as the colour of a recipe: drawn on the host, applied by the task on the accelerator."""

import numpy as np
import tensorflow as tf

from configs.experiment import Experiment
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import TrainBatch
from official.core.config_io import load_config
from tasks import build_task
from tests.conftest import ROOT


def test_the_task_applies_what_was_drawn():
    augmentation = "{flip: false, saturation: 3, colour: {type: grey}}"
    sets = [f"task.data.train.augmentation={augmentation}"]
    experiment = load_config(str(ROOT / "configs" / "experiments" / "demo.yaml"), Experiment, sets)
    config = experiment.task.data.train.augmentation
    draws = [draw_colour(config, tf.constant([seed, 1], tf.int64)) for seed in range(4)]
    draws = tf.nest.map_structure(lambda *each: tf.stack(each), *draws)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3)).astype(np.uint8)
    nothing = tf.zeros([4, 2])
    batch = TrainBatch(
        tf.constant(images), tf.zeros([4, 2, 4]), tf.cast(nothing, tf.int32), tf.cast(nothing, tf.bool),
        tf.range(4, dtype=tf.int64), draws,
    )  # fmt: skip
    seen, _ = build_task(experiment).prepare(batch)
    factor = draws.saturation.numpy()[:, None, None, None]
    assert np.std(factor) > 0
    grey = images.mean(axis=-1, keepdims=True)
    expected = np.clip(grey + factor * (images - grey), 0, 255) / 255
    assert np.abs(seen - expected).max() <= 0.51 / 255
