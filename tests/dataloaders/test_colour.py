"""Flip and colour: draws as a distribution, pixels against float64 NumPy and recorded Darknet output."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from configs.data import Augmentation
from dataloaders.augment.colour import apply_colour, distort, draw_colour
from dataloaders.batch import ColourDraws, TrainBatch

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 10, 14, 3), np.uint8)
IMAGES[0, 0, :4] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 255]]


def _draws(flip, hue, saturation, exposure):
    return ColourDraws(tf.constant(flip), tf.constant(hue), tf.constant(saturation), tf.constant(exposure))


def _batch(images, draws, boxes, valid):
    count = tf.shape(images)[0]
    classes = tf.zeros(valid.shape, tf.int32)
    return TrainBatch(tf.constant(images), boxes, classes, valid, tf.range(tf.cast(count, tf.int64)), draws)


def _reference(image, hue, saturation, exposure):
    """By Python's own HSV, float64; unlike it, hsv_to_rgb is written for a saturation beyond 1."""
    result = np.zeros(image.shape)
    for at in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[at] / 255.0))
        h, s, v = (h + hue) % 1.0, s * saturation, v * exposure
        sixth = int(h * 6)
        f = h * 6 - sixth
        p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
        result[at] = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][sixth % 6]
    return result.clip(0, 1)


def test_distort_equals_the_reference():
    draws = _draws([False] * 3, [0.1, -0.3, 0.0], [1.5, 0.4, 1.0], [0.7, 1.5, 1.2])
    ours = distort(tf.constant(IMAGES), draws).numpy()
    for number in range(3):
        expected = _reference(IMAGES[number], *(float(draw[number]) for draw in draws[1:]))
        np.testing.assert_allclose(ours[number], expected, atol=2e-6)


RECORDED = [
    ("0.1", "1.5", "1.5"),
    ("-0.1", "0.6667", "0.6667"),
    ("0", "1", "1"),
    ("0.05", "1.2", "0.8"),
    ("-0.1", "1.5", "0.7"),
]


@pytest.mark.parametrize(("hue", "saturation", "exposure"), RECORDED)
def test_distort_equals_darknet(golden, hue, saturation, exposure):
    recorded = np.load(golden("misc/image_ops.npz"))
    image = recorded["image_u8_chw"].transpose(1, 2, 0)
    draws = _draws([False] * 2, [float(hue)] * 2, [float(saturation)] * 2, [float(exposure)] * 2)
    ours = distort(tf.constant(np.stack([image, image])), draws).numpy()
    expected = recorded[f"distort_hue{hue}_sat{saturation}_exp{exposure}"].transpose(1, 2, 0)
    np.testing.assert_allclose(ours[0], expected, atol=1e-6)
    np.testing.assert_array_equal(ours[0], ours[1])


def test_a_hue_of_exactly_one_turn_is_darknets_magenta():
    """hsv_to_rgb has six cases for hues below one turn, and takes the last for the turn itself."""
    cyan = np.zeros((2, 1, 1, 3), np.uint8)
    cyan[..., 1:] = 200
    ours = distort(tf.constant(cyan), _draws([False] * 2, [0.5, 0.4999], [1.0] * 2, [1.0] * 2)).numpy()[:, 0, 0]
    np.testing.assert_allclose(ours * 255, [[200, 0, 200], [200, 0, 0.12]], atol=1e-3)


def test_flip_equals_darknet(golden):
    recorded = np.load(golden("misc/image_ops.npz"))
    images = np.stack([recorded["image_u8_chw"].transpose(1, 2, 0)] * 2)
    draws = _draws([True, False], [0.0] * 2, [1.0] * 2, [1.0] * 2)
    ours, _ = apply_colour(_batch(images, draws, tf.zeros([2, 1, 4]), tf.zeros([2, 1], tf.bool)))
    np.testing.assert_allclose(ours[0], recorded["flip"].transpose(1, 2, 0), atol=1e-7)


def test_draws_that_change_nothing_pass_the_pixels_exactly():
    draws = _draws([False] * 3, [0.0, 0.0, 0.1], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    ours = distort(tf.constant(IMAGES), draws).numpy()
    np.testing.assert_array_equal(ours[:2], IMAGES[:2].astype(np.float32) / np.float32(255))
    assert np.abs(ours[2] - IMAGES[2] / 255).max() > 0.1


def test_flip_mirrors_pixels_and_valid_boxes_and_leaves_padding_zero():
    draws = _draws([True, False, True], [0.0] * 3, [1.0] * 3, [1.0] * 3)
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[:, 0] = [0.25, 0.5, 0.5, 0.125]
    valid = np.array([[True, False], [True, False], [False, False]])
    boxes[2] = 0
    images, flipped = apply_colour(_batch(IMAGES, draws, tf.constant(boxes), tf.constant(valid)))
    np.testing.assert_array_equal(images[0], (IMAGES[0].astype(np.float32) / np.float32(255))[:, ::-1])
    np.testing.assert_array_equal(images[1], IMAGES[1].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(flipped[0], [[0.75, 0.5, 0.5, 0.125], [0, 0, 0, 0]])
    np.testing.assert_array_equal(flipped[1:], boxes[1:])


def test_compiles_with_static_shapes():
    draws = _draws([True, False, True], [0.1] * 3, [1.2] * 3, [0.9] * 3)
    batch = _batch(IMAGES, draws, tf.fill([3, 5, 4], 0.25), tf.ones([3, 5], tf.bool))
    compiled = tf.function(apply_colour, jit_compile=True, autograph=False)
    for ours, eager in zip(compiled(batch), apply_colour(batch), strict=True):
        np.testing.assert_allclose(ours, eager, atol=1e-6)


def test_draws_follow_darknets_distributions():
    config = Augmentation(hue=0.1, saturation=1.5, exposure=2.0)
    seeds = tf.stack([tf.range(4000, dtype=tf.int64), tf.ones([4000], tf.int64)], axis=1)
    types = ColourDraws(tf.bool, tf.float32, tf.float32, tf.float32)
    draw = tf.function(lambda seed: draw_colour(config, seed), autograph=False)
    draws = tf.function(lambda: tf.map_fn(draw, seeds, fn_output_signature=types), autograph=False)()
    flip, hue, saturation, exposure = (draw.numpy() for draw in draws)
    assert abs(flip.mean() - 0.5) < 0.03
    assert -0.1 <= hue.min() < -0.099 and 0.099 < hue.max() <= 0.1 and abs(hue.std() - 0.1 / np.sqrt(3)) < 0.002
    for scale, most in ((saturation, 1.5), (exposure, 2.0)):
        up = scale >= 1
        assert abs(up.mean() - 0.5) < 0.03 and scale.min() >= 1 / most - 1e-6 and scale.max() <= most
        # Uniform above 1, the inverse of uniform below: not uniform in its logarithm.
        for part in (scale[up], 1 / scale[~up]):
            assert abs(part.mean() - (1 + most) / 2) < 0.02 * most
            assert abs(part.std() - (most - 1) / np.sqrt(12)) < 0.02
    assert np.abs(np.corrcoef([flip, hue, saturation, exposure]) - np.eye(4)).max() < 0.06


def test_without_augmentation_nothing_changes():
    draws = draw_colour(None, tf.constant([1, 2], tf.int64))
    assert [value.numpy().item() for value in draws] == [False, 0.0, 1.0, 1.0]
    unflipped = [draw_colour(Augmentation(flip=False), tf.constant([seed, 2], tf.int64)).flip for seed in range(20)]
    assert not np.any(unflipped)
