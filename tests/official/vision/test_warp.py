"""Scaling and shifting into a canvas, against cv2.warpAffine and float64 NumPy."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from official.vision.warp import Map, warp_bilinear, warp_opencv

SHAPES = [(23, 37), (1, 5), (48, 31)]
CANVAS = (26, 19)


def draw_map(seed: int) -> tuple[np.ndarray, Map]:
    rng = np.random.default_rng(seed)
    scale, (y, x) = np.exp(rng.uniform(-1.2, 1.2)), rng.uniform(-12, 12, 2)
    return np.array([[scale, 0, x], [0, scale, y]]), Map(tf.constant([scale, scale], tf.float64), tf.constant([y, x]))


def image_of(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_opencv_to_the_bit(shape, seed):
    matrix, where = draw_map(seed)
    expected = cv2.warpAffine(image_of(shape, seed), matrix, CANVAS[::-1], flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(warp_opencv(tf.constant(image_of(shape, seed)), where, CANVAS), expected)


@pytest.mark.parametrize("number", range(3))
def test_the_original_recorded(golden_centernet, number):
    trace = np.load(golden_centernet("augment_units.npz"))
    matrix = trace[f"warp{number}/trans"]
    where = Map(tf.constant(matrix.diagonal()[::-1].copy()), tf.constant(matrix[::-1, 2].copy()))
    expected = trace[f"warp{number}/out_u8"]
    image = tf.constant(trace[f"warp{number}/image_u8"])
    np.testing.assert_array_equal(warp_opencv(image, where, expected.shape[:2]), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_bilinear_against_the_formula(shape, seed):
    _, where = draw_map(seed)
    image = image_of(shape, seed)
    framed = np.zeros((shape[0] + 4, shape[1] + 4, 3))
    framed[2:-2, 2:-2] = image
    mixed = framed
    for axis, length in enumerate(CANVAS):
        place = (np.arange(length) - where.offset[axis].numpy()) / where.scale[axis].numpy() + 2
        place = np.clip(place, 0, shape[axis] + 3 - 1e-9)
        before = place.astype(int)
        share = (place - before).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        mixed = (1 - share) * mixed.take(before, axis) + share * mixed.take(before + 1, axis)
    warped = warp_bilinear(tf.constant(image), where, CANVAS).numpy()
    assert np.abs(warped - mixed).max() <= 0.5 + 1e-3  # rounded once


def test_an_image_outside_the_canvas_leaves_zeros():
    where = Map(tf.constant([1.0, 1.0], tf.float64), tf.constant([1e5, -3e4], tf.float64))
    for warp in (warp_opencv, warp_bilinear):
        assert not warp(tf.constant(image_of((8, 9), 0)), where, CANVAS).numpy().any()
