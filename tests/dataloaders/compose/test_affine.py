"""Scaled-YOLOv4's and YOLOv7's geometry against the originals' formulas in NumPy and OpenCV."""

import numpy as np
import pytest
import tensorflow as tf

from configs.data import AffineAugmentation
from dataloaders.compose import affine, pixels
from dataloaders.compose.pieces import boxes_in_input, exact_map, sides

SIZE = 96  # the originals know square inputs only
INPUT = (SIZE, SIZE)
V7 = AffineAugmentation(nine=0.2, translate=0.2, scale=(0.1, 2.0))
SCALED = AffineAugmentation(centre="middle", translate=0.5, scale=(0.5, 1.5), least_area=0.2)
ALL = AffineAugmentation(translate=0.2, scale=(0.5, 1.5), degrees=20, shear=10, perspective=0.001)
SIZES = np.array(
    [[60, 94], [96, 64], [30, 30], [90, 250], [64, 48], [48, 64], [75, 100], [33, 99], [100, 20]], np.int32
)


def _seed(number):
    return tf.constant([number, 9], tf.int64)


def _images(sizes):
    return [np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8) for n, size in enumerate(sizes)]


def _canvas(images, draws):
    """load_image and load_mosaic or load_mosaic9: the canvas of uint8, and each image's corner."""
    cv2 = pytest.importorskip("cv2")
    s, sized = SIZE, []
    for image in images:
        ratio = s / max(image.shape[:2])
        width, height = max(int(image.shape[1] * ratio), 1), max(int(image.shape[0] * ratio), 1)
        sized.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    canvas = np.full((2 * s, 2 * s, 3), 114, np.uint8)
    if len(images) == 4:
        yc, xc = draws.meeting.numpy()
        for number, image in enumerate(sized):
            h, w = image.shape[:2]
            y, x = (yc - h if number < 2 else yc), (xc - w if number % 2 == 0 else xc)
            y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + h, 2 * s), min(x + w, 2 * s)
            canvas[y0:y1, x0:x1] = image[y0 - y : y1 - y, x0 - x : x1 - x]
        return canvas
    large = np.full((3 * s, 3 * s, 3), 114, np.uint8)
    for number, image in enumerate(sized):
        h, w = image.shape[:2]
        if number == 0:
            h0, w0, hp, wp, c = h, w, 0, 0, (s, s)
        else:
            corners = {
                1: (s, s - h), 2: (s + wp, s - h), 3: (s + w0, s), 4: (s + w0, s + hp), 5: (s + w0 - w, s + h0),
                6: (s + w0 - wp - w, s + h0), 7: (s - w, s + h0 - h), 8: (s - w, s + h0 - hp - h),
            }  # fmt: skip
            c = corners[number]
        x, y = c
        x0, y0 = max(x, 0), max(y, 0)
        large[y0 : y + h, x0 : x + w] = image[y0 - y :, x0 - x :]
        hp, wp = h, w
    yc, xc = SIZE - draws.corner.numpy()[0]
    return large[yc : yc + 2 * s, xc : xc + 2 * s]


@pytest.mark.parametrize("count", [4, 9])
@pytest.mark.parametrize("seed", range(3))
def test_the_canvas_equals_the_originals(count, seed):
    images = _images(SIZES[:count])
    draws = affine.draw(V7, _seed(seed), tf.constant(SIZES[:count]), INPUT)
    ours = affine.canvas_image([tf.constant(image) for image in images], draws, (2 * SIZE, 2 * SIZE))
    np.testing.assert_array_equal(ours, _canvas(images, draws))


def test_an_image_beside_the_canvas_is_left_out():
    sizes = SIZES[::-1].copy()  # a narrow one in the middle: two wide ones below it reach far to the left
    draws = affine.draw(V7, _seed(1), tf.constant(sizes), INPUT)
    assert (draws.corner + draws.resized < 0).numpy().any()
    images = _images(sizes)
    ours = affine.canvas_image([tf.constant(image) for image in images], draws, (2 * SIZE, 2 * SIZE))
    np.testing.assert_array_equal(ours, _canvas(images, draws))


def _matrix(scale, angle, shear, shift, tilt, side):
    """random_perspective's product, in float64; the canvas is `side` wide and high."""
    centre = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1.0]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [*tilt, 1.0]])
    a, b = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))  # cv2.getRotationMatrix2D
    rotation = np.array([[a, b, 0], [-b, a, 0], [0, 0, 1.0]])
    sheared = np.array([[1, np.tan(np.radians(shear[0])), 0], [np.tan(np.radians(shear[1])), 1, 0], [0, 0, 1.0]])
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]]) @ sheared @ rotation @ perspective @ centre


def test_the_matrix_is_the_originals_product():
    u = tf.constant([0.1, 0.9, 0.8, 0.3, 0.6, 0.2, 0.7])
    ours = affine._matrix(ALL, tf.constant(1.3), u, 4, INPUT)
    signed = 2 * u.numpy().astype(np.float64) - 1
    shift = (0.5 + 0.2 * signed[:2]) * SIZE
    theirs = _matrix(1.3, 20 * signed[2], 10 * signed[3:5], shift, 0.001 * signed[5:], 2 * SIZE)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("config", [SCALED, ALL], ids=["scale and shift", "all"])
@pytest.mark.parametrize("seed", range(2))
def test_the_warp_equals_bilinear_sampling_in_float64(config, seed):
    images = _images(SIZES[:4])
    draws = affine.draw(config, _seed(seed), tf.constant(SIZES[:4]), INPUT)
    canvas = np.pad(_canvas(images, draws).astype(np.float64), ((1, 1), (1, 1), (0, 0)), constant_values=114)
    inverse = np.linalg.inv(draws.matrix.numpy().astype(np.float64))
    y, x = np.mgrid[:SIZE, :SIZE]
    at = np.stack([x, y, np.ones_like(x)], axis=-1) @ inverse.T
    x, y = (np.clip(at[..., axis] / at[..., 2], -1, 2 * SIZE) + 1 for axis in (0, 1))
    x0, y0 = np.minimum(np.floor(x).astype(int), 2 * SIZE), np.minimum(np.floor(y).astype(int), 2 * SIZE)
    fx, fy = (x - x0)[..., np.newaxis], (y - y0)[..., np.newaxis]
    above = canvas[y0, x0] * (1 - fx) + canvas[y0, x0 + 1] * fx
    below = canvas[y0 + 1, x0] * (1 - fx) + canvas[y0 + 1, x0 + 1] * fx
    ours = affine.warped_image([tf.constant(image) for image in images], draws, INPUT).numpy()
    difference = np.abs(ours - (above * (1 - fy) + below * fy))
    assert np.quantile(difference, 0.999) < 0.55 and difference.max() < 1.5  # rounding; float32 positions of noise


@pytest.mark.parametrize("count", [4, 9])
def test_boxes_equal_the_originals(count):
    rng = np.random.default_rng(2)
    boxes = np.sort(rng.uniform(0, 1, (count, 12, 2, 2)), axis=2).reshape(count, 12, 4).astype(np.float32)
    kept = 0
    for seed in range(6):
        draws = affine.draw(V7, _seed(seed), tf.constant(SIZES[:count]), INPUT)
        pieces = affine.pieces_of(draws, tf.constant(SIZES[:count]), INPUT)
        seen = tf.reduce_all(sides(pieces.cell) > 0, axis=1).numpy()  # of the others all is dropped
        matrix, factor = draws.matrix.numpy().astype(np.float64), float(draws.scale)
        corner, resized = draws.corner.numpy(), draws.resized.numpy()
        before = np.clip(boxes * np.tile(resized, 2)[:, None] + np.tile(corner, 2)[:, None], 0, 2 * SIZE)
        after = np.clip(before * matrix[0, 0] + np.tile(matrix[[1, 0], 2], 2), 0, SIZE)
        h0, w0 = np.moveaxis((before[..., 2:] - before[..., :2]) * factor, -1, 0)
        h, w = np.moveaxis(after[..., 2:] - after[..., :2], -1, 0)
        aspect = np.maximum(w / (h + 1e-16), h / (w + 1e-16))
        expected = (w > 2) & (h > 2) & (w * h / (w0 * h0 + 1e-16) > 0.1) & (aspect < 20)
        on_canvas = affine.boxes_on_canvas(tf.constant(boxes), draws)
        np.testing.assert_allclose(np.clip(on_canvas, 0, 2 * SIZE), before, atol=1e-3)
        mapped = boxes_in_input(tf.constant(boxes), tf.constant(SIZES[:count]), *exact_map(pieces))
        ours, keep = affine.truths_of(V7, mapped, pieces.frame, INPUT)
        assert not expected[~seen].any() and not keep.numpy()[~seen].any()
        np.testing.assert_allclose(ours.numpy()[expected], after[expected], atol=5e-3)
        assert (keep.numpy() == expected).mean() > 0.98  # thresholds in float32
        kept += expected.sum()
    assert kept > 20


@pytest.mark.parametrize("seed", range(5))
def test_cells_tile_the_input(seed):
    for config, count in ((V7, 9), (V7, 4), (SCALED, 4)):
        draws = affine.draw(config, _seed(seed), tf.constant(SIZES[:count]), (64, 96))
        covered = np.zeros((64, 96), int)
        for top, left, bottom, right in affine.pieces_of(draws, tf.constant(SIZES[:count]), (64, 96)).cell.numpy():
            covered[top:bottom, left:right] += 1
        assert covered.max() == covered.min() == 1


def test_draws_are_uniform_and_the_share_is_a_beta():
    seeds = tf.stack([tf.range(3000, dtype=tf.int64), tf.ones([3000], tf.int64)], axis=1)

    def draw(seed):
        draws = affine.draw(V7, seed, tf.constant(SIZES[:4]), INPUT)
        shift = tf.linalg.matvec(draws.matrix, tf.constant([SIZE, SIZE, 1.0]))[:2]
        return tf.concat([[draws.scale], shift, tf.cast(draws.meeting, tf.float32), [affine.draw_share(V7, seed)]], 0)

    values = tf.function(lambda: tf.map_fn(draw, seeds, fn_output_signature=tf.float32), autograph=False)().numpy().T
    for value, (low, high) in zip(
        values[:5], [(0.1, 2.0), *[(0.3 * SIZE, 0.7 * SIZE)] * 2, *[(48, 144)] * 2], strict=True
    ):
        place = np.sort((value - low) / (high - low))
        assert np.abs(place - np.arange(3000) / 3000).max() < 1.95 / np.sqrt(3000) + 0.011  # Kolmogorov-Smirnov; pixels
    assert abs(values[5].mean() - 0.5) < 0.01 and abs(values[5].var() / (1 / 68) - 1) < 0.12  # Beta(8, 8)


def test_nine_cells_are_put_where_they_belong():
    rng = np.random.default_rng(3)
    for seed in range(12):
        sizes = tf.constant(rng.permutation(SIZES))
        places = affine.pieces_of(affine.draw(V7, _seed(seed), sizes, INPUT), sizes, INPUT).cell
        cells = [rng.integers(0, 256, (bottom - top, right - left, 3), np.uint8) for top, left, bottom, right in places]
        expected = np.full((*INPUT, 3), affine.FILL, np.uint8)
        for cell, (top, left, bottom, right) in zip(cells, places.numpy(), strict=True):
            expected[top:bottom, left:right] = cell
        ours = pixels.put_together([tf.constant(cell) for cell in cells], places, INPUT)
        np.testing.assert_array_equal(ours, expected)
