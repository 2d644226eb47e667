"""OpenCV's 8-bit HSV: conversions over all colours and what two originals do between them, against OpenCV itself."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dataloaders.augment import hsv_opencv
from dataloaders.augment.compiled import fused
from dataloaders.batch import ColourDraws

# As in every step: compiled.
distort_opencv, distort_by_gains = fused(hsv_opencv.distort_opencv), fused(hsv_opencv.distort_by_gains)
rgb_to_hsv, hsv_to_rgb = fused(hsv_opencv.rgb_to_hsv), fused(hsv_opencv.hsv_to_rgb)

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (4, 9, 64, 3), np.uint8)  # whole vectors of OpenCV: no rest of a row
IMAGES[0, 0, :4] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 255]]
IMAGES[1] //= 16  # dark: saturation and hue are coarse
IMAGES[2, :, :, 0] = 255
IMAGES[2, :, :, 1:] //= 8  # red on both sides of hue 0


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    """Half of all triples of bytes, [1, 2048, 4096, 3]: both parities of each, one of their sum."""
    one, two = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8), indexing="ij")
    three = np.arange(0, 256, 2, dtype=np.uint8) + ((one + two) & 1)[..., np.newaxis]  # [256, 256, 128]
    triples = np.stack(np.broadcast_arrays(one[..., np.newaxis], two[..., np.newaxis], three), axis=-1)
    return np.ascontiguousarray(triples).reshape(1, 2048, 4096, 3)


def _draws(hue, saturation, exposure) -> ColourDraws:
    scalars = (tf.constant(values, tf.float32) for values in (hue, saturation, exposure))
    return ColourDraws(tf.zeros([len(hue)], tf.bool), *scalars)


def test_rgb_to_hsv_is_opencvs_for_every_colour(cube):
    ours = rgb_to_hsv(tf.constant(cube))
    expected = cv2.cvtColor(cube[0], cv2.COLOR_RGB2HSV)
    for number, channel in enumerate(ours):
        np.testing.assert_array_equal(channel[0].numpy().astype(np.uint8), expected[..., number])


def test_hsv_to_rgb_is_opencvs_but_for_what_its_own_rounding_decides(cube):
    """A channel that is a whole number n may be n or n - 1, with OpenCV as here; elsewhere both are the exact floor."""
    ours = hsv_to_rgb(*tf.unstack(tf.cast(tf.constant(cube), tf.float32), axis=-1))[0].numpy()
    expected = cv2.cvtColor(cube[0], cv2.COLOR_HSV2RGB)
    pixel = np.nonzero((ours != expected).any(axis=-1))
    assert len(pixel[0]) <= 1836, "more than OpenCV with fused multiply-add differs from OpenCV without"
    exact = _exact(cube[0][pixel].astype(int))
    for value in (ours[pixel], expected[pixel]):
        assert np.all((value == exact // 7650) | ((exact % 7650 == 0) & (value == exact // 7650 - 1)))


def _exact(hsv: np.ndarray) -> np.ndarray:
    """RGB in 7650ths of a level, in whole numbers, from hue in thirtieths of a sixth: [n, 3] -> [n, 3]."""
    hue, saturation, value = hsv.T
    sixth, rest = hue // 30 % 6, hue % 30
    low, falling, rising = 255 - saturation, 7650 - saturation * rest, 7650 - saturation * (30 - rest)
    of_sixth = np.stack([value * 7650, value * low * 30, value * falling, value * rising])
    red, green, blue = [0, 2, 1, 1, 3, 0], [3, 0, 0, 2, 1, 1], [1, 1, 3, 0, 0, 2]
    rows = np.arange(len(hsv))
    return np.stack([of_sixth[np.array(channel)[sixth], rows] for channel in (red, green, blue)], axis=1)


def test_darknets_distortion_is_opencvs():
    draws = (np.float32([0.1, -0.1, -0.05, 0.0]), np.float32([1.5, 0.7, 2.5, 0.3]), np.float32([0.7, 1.5, 1.1, 3.0]))
    ours = distort_opencv(tf.constant(IMAGES), _draws(*draws)).numpy()
    for number, (hue, saturation, exposure) in enumerate(zip(*draws, strict=True)):
        h, s, v = cv2.split(cv2.cvtColor(IMAGES[number], cv2.COLOR_RGB2HSV))
        h = cv2.add(h, (float(np.float32(179) * hue), 0, 0, 0))
        s, v = (cv2.convertScaleAbs(c, alpha=float(x)) for c, x in ((s, saturation), (v, exposure)))
        expected = cv2.cvtColor(cv2.merge([h, s, v]), cv2.COLOR_HSV2RGB)
        _assert_same_but_for_rounding(ours[number], expected)


def test_a_hue_below_zero_stops_at_red_and_one_beyond_the_circle_goes_on():
    image = np.full((2, 1, 32, 3), [200, 40, 0], np.uint8)  # hue 6: orange
    image[1] = [200, 0, 40]  # hue 174: pink
    ours = distort_opencv(tf.constant(image), _draws([-0.2, 0.2], [1.0] * 2, [1.0] * 2))[:, 0, 0].numpy()
    assert ours[0].tolist() == [200, 0, 0]
    hue = cv2.cvtColor(np.full((1, 32, 3), ours[1], np.uint8), cv2.COLOR_RGB2HSV)[0, 0, 0]
    assert abs(int(hue) - (174 + 36 - 180)) <= 1


def test_gains_are_the_originals():
    """With its own means: look-up tables made in float64."""
    draws = np.float32([[0.25, -0.015, 0.0, 1.0], [1.7, 0.3, 1.0, 2.0], [0.6, 1.4, 1.25, 0.0]])
    draws = np.round(draws * 2**15) / np.float32(2**15)
    ours = distort_by_gains(tf.constant(IMAGES), _draws(*draws)).numpy()
    level = np.arange(256)
    for number in range(4):
        growth, saturation, value = draws[:, number].astype(np.float64)
        tables = (level * (1 + growth)) % 180, (level * saturation).clip(0, 255), (level * value).clip(0, 255)
        hsv = cv2.split(cv2.cvtColor(IMAGES[number], cv2.COLOR_RGB2HSV))
        moved = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(hsv, tables, strict=True)]
        _assert_same_but_for_rounding(ours[number], cv2.cvtColor(cv2.merge(moved), cv2.COLOR_HSV2RGB))


def _assert_same_but_for_rounding(ours: np.ndarray, expected: np.ndarray) -> None:
    """At most one channel in a thousand a level off: 0 with the same rounding, some 1 in 25,000 with another."""
    off = np.abs(ours.astype(int) - expected)
    assert off.max() <= 1 and np.count_nonzero(off) * 1000 <= off.size


@pytest.mark.parametrize("distort", [distort_opencv, distort_by_gains])
def test_draws_that_change_nothing_pass_the_pixels_exactly(distort):
    ours = distort(tf.constant(IMAGES), _draws([0.0, 0.0, 0.0, 0.1], [1.0] * 4, [1.0] * 4)).numpy()
    np.testing.assert_array_equal(ours[:3], IMAGES[:3])
    assert np.any(ours[3] != IMAGES[3])


@pytest.mark.parametrize("distort", [distort_opencv, distort_by_gains])
def test_grey_stays_grey_and_black_black_in_an_image_of_one_pixel(distort):
    pixels = np.array([[0, 0, 0], [90, 90, 90], [255, 255, 255]], np.uint8).reshape(3, 1, 1, 3)
    ours = distort(tf.constant(pixels), _draws([0.1] * 3, [1.5] * 3, [0.5] * 3)).numpy().reshape(3, 3)
    assert np.all(ours == ours[:, :1]) and ours[:, 0].tolist()[:2] == [0, 45] and 127 <= ours[2, 0] <= 128
