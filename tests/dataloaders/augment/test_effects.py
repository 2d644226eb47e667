"""Blur and noise of Darknet's build with OpenCV, against OpenCV's own functions."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from dataloaders.augment.effects import _half_kernels, add_noise, blur_levels

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (6, 26, 38, 3), np.uint8)
WHOLE = np.tile(np.float32([0.5, 0.5, 1, 1]), (6, 2, 1))  # an object as large as the image limits no kernel below 4
VALID = np.tile([True, False], (6, 1))


def _blurred(images, boxes, valid, blur, largest, blur_levels=blur_levels.python_function):
    """Not compiled: sums of whole numbers are the same."""
    return blur_levels(tf.constant(images), tf.constant(boxes), tf.constant(valid), tf.constant(blur), largest).numpy()


@pytest.mark.parametrize("radius", range(32))
def test_kernels_are_opencvs(radius):
    """The answer to a lone white column, in which each tap is 255 / 256 of itself, rounded."""
    image = np.zeros((1, 129), np.uint8)
    image[:, 64] = 255
    answer = cv2.GaussianBlur(image, (2 * radius + 1, 1), 0)[0, 64 : 64 + 32]
    np.testing.assert_array_equal(np.floor(_half_kernels(31)[radius] * 255 / 256 + 0.5), answer)


def test_blur_of_the_whole_image_is_opencvs():
    blur = np.int32([0, 2, 3, 2, 3, 0])
    ours = _blurred(IMAGES, WHOLE, VALID, blur, 6, blur_levels)
    for number, size in enumerate(blur):
        expected = cv2.GaussianBlur(IMAGES[number], (size // 2 * 2 + 1,) * 2, 0) if size else IMAGES[number]
        np.testing.assert_array_equal(ours[number], expected)


def test_blur_behind_the_objects_leaves_their_pixels_sharp():
    boxes = np.zeros((6, 2, 4), np.float32)
    boxes[:, 0] = [0.3, 0.4, 0.31, 0.42]
    boxes[:, 1] = [0.95, 0.5, 0.2, 0.5]  # reaches out on the right
    valid = np.array([[True, True], [True, False], [False, False]] * 2)
    ours = _blurred(IMAGES, boxes, valid, np.int32([1] * 6), 1)
    for number in range(6):
        expected = cv2.GaussianBlur(IMAGES[number], (17, 17), 0)
        for x, y, w, h in boxes[number][valid[number]].astype(np.float64):
            left, top, width, height = int((x - w / 2) * 38), int((y - h / 2) * 26), int(w * 38), int(h * 26)
            part = np.s_[top : top + height, left : left + width]
            expected[part] = IMAGES[number][part]
        np.testing.assert_array_equal(ours[number], expected)


@pytest.mark.parametrize(
    ("side", "size"),
    [(104.0, 11), (80.5, 11), (79.9, 9), (40.0, 5), (17.0, 3), (15.9, 1), (8.0, 1), (7.9, 0), (None, 0)],
)
def test_small_objects_limit_the_kernel(side, size):
    """data.c load_data_detection: an eighth of the shortest side; 1 is the blur behind the objects, none is none."""
    images = np.tile(RNG.integers(0, 256, (1, 128, 160, 3), np.uint8), (2, 1, 1, 1))
    boxes = np.float32([[[0.5, 0.5, 0.9, 0.9], [0.5, 0.5, 0.9, (side or 1) / 128], [0.5, 0.5, 1e-3, 1e-3]]] * 2)
    valid = np.array([[True, True, False]] * 2) & (side is not None)
    ours = _blurred(images, boxes, valid, np.int32([11, 1]), 11)
    expected = images[0] if size == 0 else ours[1] if size == 1 else cv2.GaussianBlur(images[0], (size, size), 0)
    np.testing.assert_array_equal(ours[0], expected)


def test_an_image_smaller_than_the_kernel():
    none = np.zeros((6, 1), bool)
    for height, width in ((1, 1), (3, 5)):
        images = np.ascontiguousarray(IMAGES[:, :height, :width])
        ours = _blurred(images, WHOLE[:, :1], none, np.int32([1] * 6), 1)
        for number in range(6):
            np.testing.assert_array_equal(ours[number], cv2.GaussianBlur(images[number], (17, 17), 0))


def test_noise_is_normal_noise_in_unsigned_bytes():
    grey = np.full((3, 100, 120, 3), 100, np.uint8)
    seeds = tf.constant([[1, 2], [3, 4], [1, 2]], tf.int32)
    add = add_noise.python_function
    ours = add(tf.constant(grey), tf.constant([20, 0, 5]), seeds).numpy()
    np.testing.assert_array_equal(ours[1], grey[1])
    added = ours[0].astype(int) - 100
    cv2.setRNGSeed(7)
    theirs = cv2.randn(np.zeros((100, 120, 3), np.uint8), (0,) * 3, (20,) * 3).astype(int)
    for statistic in (np.mean, np.std, lambda x: np.mean(x == 0), lambda x: np.quantile(x, 0.99)):
        assert abs(statistic(added) - statistic(theirs)) < 0.04 * statistic(theirs)
    assert added.min() == 0 and np.corrcoef(added[:, :-1].ravel(), added[:, 1:].ravel())[0, 1] < 0.02
    assert np.corrcoef(added.ravel(), ours[2].ravel())[0, 1] > 0.9, "the same seed, the same noise"
    white = add(tf.constant(np.full_like(grey, 250)), tf.constant([127, 127, 127]), seeds).numpy()
    assert white.max() == 255 and white.min() == 250
