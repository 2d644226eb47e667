"""Restated colours against what CenterNet recorded, and what the product's task prepares."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.augmentation import CenterNetAugmentation
from configs.centernet.task import CenterNetModel
from dataloaders.batch import TrainBatch
from dataloaders.centernet.augment import CenterNetDraws, coloured
from modeling.centernet.inference import standardise
from reproduction.centernet.restated import pixels

RNG = np.random.default_rng(2)
IMAGES = RNG.integers(0, 256, (4, 10, 64, 3), np.uint8)
FLIP = np.array([True, False, True, False])
BOXES = np.zeros((4, 3, 4), np.float32)
VALID = np.array([[False] * 3, [True, False, False], [True] * 3, [False] * 3])
MODEL = CenterNetModel(input_size=(64, 64), backbone={"type": "resnet"}, decoder={"type": "deconv"})


def floats(rows):
    return [np.array(row, np.float32) for row in rows]


def test_colours_are_centernets(golden_centernet):
    path = golden_centernet("augment_train_random_crop.npz").with_name("augment_units.npz")
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand")
    trace = np.load(path)
    np.testing.assert_allclose(pixels.AXES, trace["color/eig_vec_bgr_rows"], rtol=1e-7)
    for number in range(6):
        get = lambda key, number=number: trace[f"color{number}/{key}"]  # noqa: E731
        draws = (
            get("order_0bright_1contrast_2satur").astype(np.int32),
            (1 + get("uniform_draws_in_order")).astype(np.float32),
            get("lighting_normal").astype(np.float32),
        )
        np.testing.assert_allclose(pixels.recoloured(get("image").astype(float), *draws), get("out"), atol=1e-6)


@pytest.mark.parametrize("config", [None, CenterNetAugmentation(), CenterNetAugmentation(colour=False)])
def test_centernet_inputs_are_the_products(config):
    order = np.array([[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]], np.int32)
    strength, lighting = 1 + RNG.uniform(-0.4, 0.4, [4, 3]), RNG.normal(0, 0.1, [4, 3])
    draws = FLIP, order, *floats([strength, lighting])
    fields = tf.constant(BOXES), tf.zeros(VALID.shape, tf.int32), tf.constant(VALID), tf.range(4, dtype=tf.int64)
    batch = TrainBatch(tf.constant(IMAGES), *fields, CenterNetDraws(*map(tf.constant, draws)))
    theirs = standardise(coloured(batch, config), MODEL)
    np.testing.assert_allclose(pixels.inputs(IMAGES, *draws, config, MODEL), theirs, atol=1e-5)
