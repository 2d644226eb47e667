"""Jitter crop: draws as a distribution, pixels and boxes against float64 NumPy, and the evaluation's own geometry."""

import numpy as np
import pytest
import tensorflow as tf

from configs.data import Augmentation
from dataloaders.augment.geometry import apply_geometry, crop_image, draw_geometry, large_enough, transform_boxes
from official.core.config import Protocol
from official.vision.resize import boxes_to_original, placement, resize_image, whole_levels

STRETCH, LETTERBOX = Protocol(resize="stretch", padding_value=99), Protocol(resize="letterbox", padding_value=99)
IMAGE = np.random.default_rng(1).integers(0, 256, (30, 47, 3), np.uint8)
IMAGE_SIZE = tf.constant([30, 47])
INPUT = (64, 32)
WINDOWS = [(0, 0, 30, 47), (-7, 5, 40, 30), (4, -9, 20, 70), (3, 2, 11, 13), (-20, -30, 90, 120), (40, 60, 10, 10)]


def _reference(image, window, input_size, protocol):
    """Bilinear, half-pixel centres, pixel by pixel in float64; outside by the pixel's centre."""
    placed = placement(tf.constant(window[2:]), input_size, protocol)
    result = np.full((*input_size, 3), protocol.padding_value, np.float64)
    weights = []
    for axis in (0, 1):
        size, offset = int(placed.size[axis]), int(placed.offset[axis])
        at = (np.arange(input_size[axis]) + 0.5 - offset) * window[2 + axis] / size + window[axis]
        low = np.floor(at - 0.5).astype(int)
        side = image.shape[axis]
        weights.append((at, np.clip(low, 0, side - 1), np.clip(low + 1, 0, side - 1), at - 0.5 - low))
    for row, (y, y0, y1, fy) in enumerate(zip(*weights[0], strict=True)):
        for col, (x, x0, x1, fx) in enumerate(zip(*weights[1], strict=True)):
            if 0 <= y <= image.shape[0] and 0 <= x <= image.shape[1]:
                top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
                result[row, col] = top * (1 - fy) + (image[y1, x0] * (1 - fx) + image[y1, x1] * fx) * fy
    return result


@pytest.mark.parametrize("protocol", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
@pytest.mark.parametrize("window", WINDOWS)
def test_pixels_equal_the_reference(window, protocol):
    ours = apply_geometry(tf.constant(IMAGE), tf.constant(window), INPUT, protocol).numpy()
    difference = np.abs(ours - _reference(IMAGE.astype(np.float64), window, INPUT, protocol))
    assert difference.max() <= 0.5 + 1e-3  # rounded to uint8


@pytest.mark.parametrize("protocol", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
def test_the_whole_image_as_window_is_the_evaluations_geometry(protocol):
    window = tf.constant(WINDOWS[0])
    ours = apply_geometry(tf.constant(IMAGE), window, INPUT, protocol).numpy().astype(int)
    evaluation = resize_image(tf.constant(IMAGE), INPUT, protocol).numpy().astype(int)
    assert np.abs(ours - evaluation).max() <= 1 and (ours != evaluation).mean() < 0.01
    boxes = tf.constant([[0.1, 0.2, 0.6, 0.9], [0.0, 0.0, 1.0, 1.0]])
    moved, keep = transform_boxes(boxes, IMAGE_SIZE, window, INPUT, protocol)
    np.testing.assert_allclose(boxes_to_original(moved, IMAGE_SIZE, INPUT, protocol), boxes, atol=2e-7)
    assert keep.numpy().all()


@pytest.mark.parametrize("protocol", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
@pytest.mark.parametrize("window", [window for window in WINDOWS if window[0] < 30])
def test_boxes_follow_the_pixels(window, protocol):
    """A white rectangle's box, transformed, is where the rectangle's pixels are."""
    top, left, bottom, right = 6, 9, 14, 40
    image = np.zeros_like(IMAGE)
    image[top:bottom, left:right] = 255
    pixels = apply_geometry(tf.constant(image), tf.constant(window), INPUT, protocol).numpy()[..., 0]
    boxes = tf.constant([[top / 30, left / 47, bottom / 30, right / 47]], tf.float32)
    moved, keep = transform_boxes(boxes, IMAGE_SIZE, tf.constant(window), INPUT, protocol)
    rows, columns = np.nonzero(pixels > 180)
    seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    zoom = max(1.0, INPUT[0] / window[2], INPUT[1] / window[3])
    assert keep.numpy().all()
    np.testing.assert_allclose(moved[0] * [*INPUT, *INPUT], seen, atol=0.5 + 0.5 * zoom)


@pytest.mark.parametrize(
    ("resize", "window"), [("stretch", WINDOWS[0]), ("stretch", (3, 2, 21, 33)), ("letterbox", WINDOWS[0])]
)
def test_aligned_corners_sample_as_the_evaluation_does(resize, window):
    """Of a window inside the image, what evaluation makes of those pixels as an image."""
    protocol = Protocol(resize=resize, interpolation="align_corners", padding_value=99)
    top, left, height, width = window
    ours = apply_geometry(tf.constant(IMAGE), tf.constant(window), INPUT, protocol).numpy().astype(int)
    part = IMAGE[top : top + height, left : left + width]
    evaluation = whole_levels(resize_image(tf.constant(part), INPUT, protocol)).numpy().astype(int)
    assert np.abs(ours - evaluation).max() <= 1 and (ours != evaluation).mean() < 0.01
    half_pixel = protocol.model_copy(update={"interpolation": "bilinear"})
    otherwise = apply_geometry(tf.constant(IMAGE), tf.constant(window), INPUT, half_pixel).numpy().astype(int)
    assert (np.abs(ours - otherwise) > 3).mean() > 0.2


def test_crop_equals_darknets(golden):
    recorded = np.load(golden("misc/image_ops.npz"))
    image = tf.constant(recorded["image_u8_chw"].transpose(1, 2, 0))
    for left, top, width, height in ((-5, -3, 45, 30), (4, 2, 20, 15), (10, -6, 40, 20)):
        ours = crop_image(image, tf.constant([top, left, height, width]))
        expected = recorded[f"crop_{left}_{top}_{width}_{height}"].transpose(1, 2, 0)
        np.testing.assert_array_equal(ours.numpy() / np.float32(255), expected)
    outside = crop_image(image, tf.constant([100, 200, 3, 2]))
    np.testing.assert_array_equal(outside, tf.broadcast_to(image[-1, -1], [3, 2, 3]))


def test_letterbox_keeps_a_windows_aspect():
    moved, _ = transform_boxes(
        tf.constant([[10 / 30, 10 / 47, 20 / 30, 20 / 47]]), IMAGE_SIZE, tf.constant([3, 2, 22, 41]), INPUT, LETTERBOX
    )
    height, width = (moved[0, 2] - moved[0, 0]) * INPUT[0], (moved[0, 3] - moved[0, 1]) * INPUT[1]
    assert abs(float(height / width) - 1) < 0.05  # whole pixels of the placement


def test_boxes_cut_away_on_the_border_degenerate_and_nan():
    window = tf.constant([0, 0, 15, 47])  # the upper half
    boxes = tf.constant(
        [
            [0.6, 0.1, 0.9, 0.5],  # below the window
            [0.4, 0.1, 0.9, 0.5],  # half in it
            [0.0, 0.0, 0.5, 1.0],  # all of it
            [0.2, 0.3, 0.2, 0.4],  # no height
            [0.2, 0.3, 0.3, 0.3 + 0.99 / 32],  # under 1 pixel of the input wide
            [0.2, 0.3, 0.3, 0.3 + 1.01 / 32],
            [np.nan, 0.3, 0.3, 0.5],
        ]
    )
    moved, keep = transform_boxes(boxes, IMAGE_SIZE, window, INPUT, STRETCH)
    assert keep.numpy().tolist() == [False, True, True, False, False, True, False]
    np.testing.assert_allclose(moved.numpy()[1:3], [[0.8, 0.1, 1, 0.5], [0, 0, 1, 1]], atol=1e-6)
    assert large_enough(tf.zeros([0, 4]), INPUT).shape == (0,)


def test_draws_are_uniform_whole_pixels_and_cut_towards_zero():
    config = Augmentation(jitter=0.3)
    seeds = tf.stack([tf.range(4000, dtype=tf.int64), tf.zeros([4000], tf.int64)], axis=1)
    size = tf.constant([100, 200])
    draw = tf.function(lambda seed: draw_geometry(config, seed, size), autograph=False)
    windows = tf.function(lambda: tf.map_fn(draw, seeds, fn_output_signature=tf.int32), autograph=False)()
    top, left, height, width = windows.numpy().T
    bottom, right = 100 - top - height, 200 - left - width
    for edge, most in ((top, 29), (bottom, 29), (left, 59), (right, 59)):
        assert edge.min() == -most and edge.max() == most
        assert abs(edge.mean()) < most * 4 / np.sqrt(3 * 4000)
        assert abs(edge.std() / (most / np.sqrt(3)) - 1) < 0.06
    # Cut towards zero, not down: zero is twice as likely as any other value.
    assert 0.018 < (top == 0).mean() < 0.050
    assert np.abs(np.corrcoef([top, bottom, left, right]) - np.eye(4)).max() < 0.06


def test_a_jitter_of_a_half_or_more_never_turns_the_window_inside_out():
    config = Augmentation(jitter=0.9)
    windows = [
        draw_geometry(config, tf.constant([seed, 0], tf.int64), tf.constant([9, 20])).numpy() for seed in range(300)
    ]
    assert np.min(windows, axis=0)[2:].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("resize", "most_out", "most_in"),
    [(1.5, (25, 50), (16, 33)), (0.8, (12, 25), (0, 0))],  # 1 / 0.8 - 1 = 0.25
)
def test_the_resize_range_moves_opposite_edges_apart_or_together(resize, most_out, most_in):
    """Darknet: one number for left and top, another for right and bottom, on top of the jitter."""
    config = Augmentation(jitter=0.0, resize=resize)
    seeds = tf.stack([tf.range(3000, dtype=tf.int64), tf.zeros([3000], tf.int64)], axis=1)
    draw = tf.function(lambda seed: draw_geometry(config, seed, tf.constant([100, 200])), autograph=False)
    windows = tf.function(lambda: tf.map_fn(draw, seeds, fn_output_signature=tf.int32), autograph=False)()
    top, left, height, width = windows.numpy().T
    bottom, right = 100 - top - height, 200 - left - width
    for edge, out, into in zip((top, left, bottom, right), most_out * 2, most_in * 2, strict=True):
        assert -out <= edge.min() <= -out + 1 and into - 1 <= edge.max() <= into  # uniform: the very ends are rare
        assert abs(edge.mean() - (into - out) / 2) < 1.5
    assert np.corrcoef(top, left)[0, 1] > 0.99 and np.corrcoef(bottom, right)[0, 1] > 0.99
    assert abs(np.corrcoef(top, bottom)[0, 1]) < 0.08
