"""The three rules against their originals, in NumPy, at many sizes; Darknet's recorded pixels are in test_resize.py."""

import numpy as np
import pytest
import tensorflow as tf

from official.vision.interpolation import INTERPOLATIONS, align_corners, bilinear, opencv

GENERATOR = np.random.default_rng(5)
# (height, width) of image and result: shrunk, grown, halved exactly, unchanged, one pixel, one axis only.
SIZES = [
    ((30, 47), (64, 32)),
    ((61, 90), (20, 31)),
    ((40, 62), (20, 31)),
    ((17, 23), (17, 23)),
    ((17, 23), (34, 23)),
    ((1, 23), (8, 9)),
    ((23, 1), (8, 9)),
    ((1, 1), (5, 4)),
    ((12, 9), (3, 1)),
    ((3, 120), (200, 75)),
]


def random_image(height, width):
    return GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)


def opencvs_taps(source, target):
    """Of each target pixel: the one before (-1: before the first), and the weights of that and the next in 1/2048."""
    position = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    before = np.floor(position)
    share = position - before
    return before.astype(int), np.rint((1 - share) * 2048).astype(int), np.rint(share * 2048).astype(int)


def opencvs_resize(image, size):
    """INTER_LINEAR on uint8 in 64-bit integers."""
    left, left_weight, right_weight = opencvs_taps(image.shape[1], size[1])
    beyond = (left < 0) | (left >= image.shape[1] - 1)
    left_weight, right_weight = np.where(beyond, 2048, left_weight), np.where(beyond, 0, right_weight)
    left = left.clip(0, image.shape[1] - 1)
    right = (left + 1).clip(0, image.shape[1] - 1)
    wide = image.astype(int)
    rows = (wide[:, left] * left_weight[:, None] + wide[:, right] * right_weight[:, None]) >> 4
    top, top_weight, bottom_weight = opencvs_taps(image.shape[0], size[0])
    last = image.shape[0] - 1
    above = rows[top.clip(0, last)] * top_weight[:, None, None] >> 16
    below = rows[(top + 1).clip(0, last)] * bottom_weight[:, None, None] >> 16
    return ((above + below + 2) >> 2).astype(np.uint8)


@pytest.mark.parametrize(("image_size", "size"), SIZES)
def test_opencv_is_opencvs_formula(image_size, size):
    image = random_image(*image_size)
    np.testing.assert_array_equal(opencv(tf.constant(image), tf.constant(size)), opencvs_resize(image, size))


def test_opencv_is_opencv_itself():
    cv2 = pytest.importorskip("cv2")
    compiled = tf.function(opencv, autograph=False, reduce_retracing=True)
    random = [tuple(map(tuple, GENERATOR.integers(1, 200, (2, 2)).tolist())) for _ in range(40)]
    for image_size, size in SIZES + random:
        image = random_image(*image_size)
        theirs = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(compiled(tf.constant(image), tf.constant(size)), theirs, err_msg=f"{size}")


@pytest.mark.parametrize(("image_size", "size"), SIZES)
def test_opencv_is_bilinear_to_the_level(image_size, size):
    image, size = tf.constant(random_image(*image_size)), tf.constant(size)
    assert np.abs(opencv(image, size).numpy().astype(int) - bilinear(image, size).numpy()).max() <= 1


@pytest.mark.parametrize(("image_size", "size"), [sizes for sizes in SIZES if min(sizes[1]) > 1])
def test_align_corners_samples_from_corner_to_corner(image_size, size):
    image = random_image(*image_size)
    pixels = image.astype(np.float64)
    for axis in (0, 1):
        position = np.linspace(0, image_size[axis] - 1, size[axis])
        low = np.minimum(position.astype(int), max(image_size[axis] - 2, 0))
        share = (position - low).reshape([-1, 1, 1] if axis == 0 else [-1, 1])
        high = np.minimum(low + 1, image_size[axis] - 1)
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take(high, axis) * share
    ours = align_corners(tf.constant(image), tf.constant(size)).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, pixels, atol=2e-3)


def test_align_corners_has_darknets_dark_last_row():
    """99 / 319 * 319 in float32 is less than 99: Darknet takes row 98, and nothing of it."""
    image = np.full((100, 30, 3), 200, np.uint8)
    ours = align_corners(tf.constant(image), tf.constant([320, 40])).numpy()
    np.testing.assert_allclose(ours[:-1], 200, rtol=1e-6)
    assert ours[-1].max() < 0.01


def test_align_corners_of_a_single_row_or_column():
    """Darknet takes the last column; for one row it reads out of bounds, and here it is the first."""
    image = random_image(12, 9)
    np.testing.assert_array_equal(align_corners(tf.constant(image), tf.constant([12, 1])), image[:, -1:])
    np.testing.assert_array_equal(align_corners(tf.constant(image), tf.constant([1, 9])), image[:1])


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_same_size_changes_nothing_and_other_channels_work(name):
    image = random_image(21, 34)[..., :2]
    np.testing.assert_array_equal(INTERPOLATIONS[name](tf.constant(image), tf.constant([21, 34])), image)
