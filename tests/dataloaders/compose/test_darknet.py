"""Darknet's geometry: draws as distributions, pixels and boxes against the original's formulas in NumPy and OpenCV."""

import math

import numpy as np
import pytest
import tensorflow as tf

from configs.data import DarknetAugmentation
from dataloaders.compose import darknet
from dataloaders.compose.pieces import boxes_in_input, exact_map

SIZES = np.array([[300, 470], [480, 640], [640, 426], [90, 250]], np.int32)
INPUT = (96, 160)


def _seeds(count):
    return tf.stack([tf.range(count, dtype=tf.int64), tf.zeros([count], tf.int64)], axis=1)


def _draw_many(config, count, sizes=SIZES, letterbox=False, flip=True):
    """Stacked draws of as many seeds, as NumPy."""

    def draw(seed):
        return darknet.draw(config, seed, tf.constant(sizes), INPUT, letterbox, tf.constant(flip))

    spec = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), draw(tf.constant([0, 0], tf.int64)))
    draws = tf.function(lambda: tf.map_fn(draw, _seeds(count), fn_output_signature=spec), autograph=False)()
    return darknet.DarknetDraws(*(field.numpy() for field in draws))


def _edges(draws, sizes=SIZES):
    """Of [draws, p, 4] windows: how far top, left, bottom, right moved in."""
    start, side = draws.window[..., :2], draws.window[..., 2:]
    return np.concatenate([start, sizes - start - side], axis=-1)


def _chi_square(values, low, high):
    """Of uniform whole numbers low..high, in standard deviations of a chi-square's normal approximation."""
    counts = np.bincount(np.asarray(values) - low, minlength=high - low + 1)
    assert len(counts) == high - low + 1
    expected = len(values) / len(counts)
    return abs(((counts - expected) ** 2 / expected).sum() - (len(counts) - 1)) / math.sqrt(2 * (len(counts) - 1))


def test_edges_are_uniform_whole_pixels_cut_towards_zero_and_independent():
    draws = _draw_many(DarknetAugmentation(jitter=0.3), 4000, np.array([[100, 200]], np.int32))
    top, left, bottom, right = _edges(draws, np.array([[100, 200]]))[:, 0].T
    for edge, most in ((top, 29), (bottom, 29), (left, 59), (right, 59)):
        assert _chi_square(edge[edge != 0] + (edge[edge != 0] < 0), -most + 1, most) < 5
        assert 0.5 < (edge == 0).mean() * (most + 0.5) / 1.0 < 1.7  # 0 is twice as likely as any other value
    assert np.abs(np.corrcoef([top, bottom, left, right]) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize(
    ("resize", "most_out", "most_in"),
    [(1.5, (25, 50), (16, 33)), (0.8, (12, 25), (0, 0))],  # 1 / 0.8 - 1 = 0.25
)
def test_the_resize_range_moves_opposite_edges_apart_or_together(resize, most_out, most_in):
    """Darknet: one number for left and top, another for right and bottom, on top of the jitter."""
    draws = _draw_many(DarknetAugmentation(resize=resize), 2000, np.array([[100, 200]], np.int32))
    top, left, bottom, right = _edges(draws, np.array([[100, 200]]))[:, 0].T
    for edge, out, into in zip((top, left, bottom, right), most_out * 2, most_in * 2, strict=True):
        assert -out <= edge.min() <= -out + 1 and into - 1 <= edge.max() <= into  # uniform: the very ends are rare
        assert abs(edge.mean() - (into - out) / 2) < 1.5
    assert np.corrcoef(top, left)[0, 1] > 0.99 and np.corrcoef(bottom, right)[0, 1] > 0.99
    assert abs(np.corrcoef(top, bottom)[0, 1]) < 0.08


def test_a_window_turned_inside_out_becomes_the_whole_image():
    draws = _draw_many(DarknetAugmentation(jitter=0.9), 300, np.array([[9, 20]], np.int32))
    windows = draws.window[:, 0]
    assert windows[:, 2:].min() >= 1 and (windows == [0, 0, 9, 20]).all(axis=1).mean() > 0.1


def test_letterbox_extends_the_window_by_what_the_whole_image_lacks():
    config = DarknetAugmentation(jitter=0.2)
    for size in SIZES:
        plain, boxed = (_draw_many(config, 50, size[np.newaxis], letterbox) for letterbox in (False, True))
        aspect = np.float32(INPUT[1]) / np.float32(INPUT[0])
        height, width = np.float32(size)
        add_y, add_x = (
            ((width / aspect - height) / 2, 0) if width / height > aspect else (0, (height * aspect - width) / 2)
        )
        expected = np.trunc(_edges(plain, size)[:, 0] - np.array([add_y, add_x, add_y, add_x])).astype(int)
        np.testing.assert_array_equal(_edges(boxed, size)[:, 0], expected)


def _reference_mosaic(rng, size, number, cut, config):
    """One image of load_data_detection's mosaic in plain Python: window, flip, shifts; `cut` is (x, y)."""
    (oh, ow), (h, w) = size, INPUT
    cut_x, cut_y = cut
    dw, dh = int(ow * config.jitter), int(oh * config.jitter)
    pleft, pright = (int(rng.uniform(-dw, dw)) for _ in range(2))
    ptop, pbot = (int(rng.uniform(-dh, dh)) for _ in range(2))
    flip = rng.integers(2)
    if rng.integers(2):
        if (number in (0, 2)) != bool(flip):
            pright, pleft = pright + pleft, 0
        else:
            pleft, pright = pleft + pright, 0
        if number in (0, 1):
            pbot, ptop = pbot + ptop, 0
        else:
            ptop, pbot = ptop + pbot, 0
    window = (ptop, pleft, oh - ptop - pbot, ow - pleft - pright)
    if flip:
        pleft, pright = pright, pleft
    shifts = (
        min(cut_x, max(0, -pleft * w // ow)),
        min(cut_y, max(0, -ptop * h // oh)),
        min(w - cut_x, max(0, -pright * w // ow)),
        min(h - cut_y, max(0, -pbot * h // oh)),
    )
    return window, flip, shifts


def test_mosaic_draws_have_the_originals_distribution():
    """Moments and quantiles of windows, shifts and cuts against the original's own way of drawing, in plain Python."""
    config, rng, count = DarknetAugmentation(jitter=0.3), np.random.default_rng(3), 3000
    draws = _draw_many(config, count)
    assert _chi_square(draws.cut[:, 0], int(0.2 * 96), int(0.8 * 96)) < 5
    assert _chi_square(draws.cut[:, 1], int(0.2 * 160), int(0.8 * 160)) < 5
    assert abs(draws.flip.mean() - 0.5) < 0.02
    for number in range(4):
        theirs = []
        for cut in draws.cut[:, ::-1]:
            window, _, (left, top, right, bottom) = _reference_mosaic(rng, SIZES[number], number, cut, config)
            x = cut[0] - left if number in (1, 3) else cut[0] + right - INPUT[1]
            y = cut[1] - top if number in (2, 3) else cut[1] + bottom - INPUT[0]
            theirs.append((*window, y, x))
        ours = np.concatenate([draws.window[:, number], draws.offset[:, number]], axis=1)
        for one, other in zip(ours.T, np.array(theirs).T, strict=True):
            merged = np.sort(np.concatenate([one, other]))
            distance = np.searchsorted(np.sort(one), merged, "right") - np.searchsorted(np.sort(other), merged, "right")
            assert np.abs(distance).max() / count < 1.95 * math.sqrt(2 / count)  # Kolmogorov-Smirnov, p = 0.001


def _images(sizes, seed=0):
    return [np.random.default_rng((seed, *size)).integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def _draws(number, sizes, jitter=0.3, flip=True):
    config = DarknetAugmentation(jitter=jitter)
    return darknet.draw(config, tf.constant([number, 5], tf.int64), tf.constant(sizes), INPUT, False, tf.constant(flip))


@pytest.mark.parametrize("seed", range(4))
def test_mean_fill_equals_opencvs_build(seed):
    """image_data_augmentation by OpenCV itself: mean, copy, resize and flip, to the bit."""
    cv2 = pytest.importorskip("cv2")
    (image,), sizes = _images([(60, 94)]), np.array([[60, 94]], np.int32)
    draws = _draws(seed, sizes)
    top, left, height, width = draws.window[0].numpy()
    cropped = np.empty((height, width, 3), np.uint8)
    cropped[:] = np.rint(cv2.mean(image)[:3])
    low, high = np.maximum([top, left], 0), np.minimum([top + height, left + width], image.shape[:2])
    y, x = low - [top, left]
    part = image[low[0] : high[0], low[1] : high[1]]
    cropped[y : y + part.shape[0], x : x + part.shape[1]] = part
    expected = cv2.resize(cropped, INPUT[::-1], interpolation=cv2.INTER_LINEAR)
    expected = expected[:, ::-1] if draws.flip[0] else expected
    ours = darknet.precise_image([tf.constant(image)], draws, "mean", "opencv", INPUT)
    np.testing.assert_array_equal(ours, expected)


def test_crop_equals_darknets(golden):
    recorded = np.load(golden("misc/image_ops.npz"))
    image = tf.constant(recorded["image_u8_chw"].transpose(1, 2, 0))
    for left, top, width, height in ((-5, -3, 45, 30), (4, 2, 20, 15), (10, -6, 40, 20)):
        ours = darknet.crop_image(image, tf.constant([top, left, height, width]))
        expected = recorded[f"crop_{left}_{top}_{width}_{height}"].transpose(1, 2, 0)
        np.testing.assert_array_equal(ours.numpy() / np.float32(255), expected)
    outside = darknet.crop_image(image, tf.constant([100, 200, 3, 2]))
    np.testing.assert_array_equal(outside, tf.broadcast_to(image[-1, -1], [3, 2, 3]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fill", ["edge", "mean", 99])
def test_a_mosaic_copies_what_the_original_copies(seed, fill):
    """The four copying loops of load_data_detection, over frames made one by one."""
    sizes = np.array([[30, 47], [48, 64], [64, 42], [9, 25]], np.int32)
    images, draws = [tf.constant(image) for image in _images(sizes)], _draws(seed, sizes)
    frames = [
        darknet.precise_image(
            [image],
            darknet.DarknetDraws(draws.window[n : n + 1], draws.flip[n : n + 1], tf.zeros([1, 2], tf.int32), draws.cut),
            fill,
            "bilinear",
            INPUT,
        ).numpy()
        for n, image in enumerate(images)
    ]
    (h, w), (cut_y, cut_x) = INPUT, draws.cut.numpy()
    expected = np.zeros((h, w, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left, height, width = draws.window[number].numpy()
        oh, ow = sizes[number]
        pleft, pright, ptop, pbot = left, ow - left - width, top, oh - top - height
        if draws.flip[number]:
            pleft, pright = pright, pleft
        left_shift, top_shift = min(cut_x, max(0, -pleft * w // ow)), min(cut_y, max(0, -ptop * h // oh))
        right_shift = min(w - cut_x, max(0, -pright * w // ow))
        bot_shift = min(h - cut_y, max(0, -pbot * h // oh))
        for y in range(h):
            above = y + h - cut_y - bot_shift
            below = top_shift + y - cut_y
            right = slice(w - cut_x - right_shift, w - right_shift)
            beyond = slice(left_shift, left_shift + w - cut_x)
            if number == 0 and y < cut_y:
                expected[y, :cut_x] = frame[above, right]
            if number == 1 and y < cut_y:
                expected[y, cut_x:] = frame[above, beyond]
            if number == 2 and y >= cut_y:
                expected[y, :cut_x] = frame[below, right]
            if number == 3 and y >= cut_y:
                expected[y, cut_x:] = frame[below, beyond]
    np.testing.assert_array_equal(darknet.precise_image(images, draws, fill, "bilinear", INPUT), expected)


def _reference_truth(box, size, window, flip):
    """correct_boxes and fill_truth_detection: x, y, w, h relative to the frame, or none; yxyx relative to the image."""
    (oh, ow), (top, left, height, width) = size, window
    sx, sy = width / ow, height / oh
    dx, dy = (left / ow) / sx, (top / oh) / sy
    y0, x0, y1, x1 = (box[0] / sy - dy, box[1] / sx - dx, box[2] / sy - dy, box[3] / sx - dx)
    if flip:
        x0, x1 = 1 - x1, 1 - x0
    x0, x1, y0, y1 = (min(max(value, 0), 1) for value in (x0, x1, y0, y1))
    if x1 - x0 < 1 / INPUT[1] or y1 - y0 < 1 / INPUT[0]:
        return None
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _cut_off(value):
    """C's (int), but an edge that a frame's border has clipped is a whole number, whatever the order of rounding."""
    return round(value) if abs(value - round(value)) < 1e-4 else int(value)


def _reference_mosaic_truth(truth, offset, cell, bound):
    """blend_truth_mosaic, with C's integers."""
    h, w = INPUT
    xb, yb, wb, hb = truth
    xb, yb = xb + offset[1] / w, yb + offset[0] / h
    left, right = _cut_off((xb - wb / 2) * w), _cut_off((xb + wb / 2) * w)
    top, bot = _cut_off((yb - hb / 2) * h), _cut_off((yb + hb / 2) * h)
    if bound:
        left, right = max(left, cell[1]), min(right, cell[3])
        top, bot = max(top, cell[0]), min(bot, cell[2])
        xb, wb, yb, hb = (right + left) / 2 / w, (right - left) / w, (bot + top) / 2 / h, (bot - top) / h
    else:
        if left < 0:
            xb, wb = xb - left / w / 2, wb + left / w
        if right > w:
            xb, wb = xb - (right - w) / w / 2, wb - (right - w) / w
        if top < 0:
            yb, hb = yb - top / h / 2, hb + top / h
        if bot > h:
            yb, hb = yb - (bot - h) / h / 2, hb - (bot - h) / h
        left, right = _cut_off((xb - wb / 2) * w), _cut_off((xb + wb / 2) * w)
        top, bot = _cut_off((yb - hb / 2) * h), _cut_off((yb + hb / 2) * h)
    inside = left >= 0 and right <= w and top >= 0 and bot <= h and 0 < wb < 1 and 0 < hb < 1
    inside = inside and 0 < xb < 1 and 0 < yb < 1 and wb > 1 / w and hb > 1 / h
    return (yb - hb / 2, xb - wb / 2, yb + hb / 2, xb + wb / 2) if inside else None


@pytest.mark.parametrize("bound", [False, True])
def test_boxes_of_a_mosaic_equal_the_originals(bound):
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(0, 1, (4, 40, 2, 2)), axis=2)  # [image, box, low and high, y and x]
    boxes = corners.reshape(4, 40, 4).astype(np.float32)
    checked = 0
    for seed in range(12):
        draws = _draws(seed, SIZES)
        pieces = darknet.pieces_of(draws, INPUT)
        mapped = boxes_in_input(tf.constant(boxes), tf.constant(SIZES), *exact_map(pieces))
        ours, keep = darknet.truths_of(mapped, pieces.frame)
        ours, left = darknet.truths_of_mosaic(ours, pieces.cell, INPUT, bound)
        keep = (keep & left).numpy()
        for image in range(4):
            for number, box in enumerate(boxes[image]):
                window, flip = draws.window[image].numpy(), bool(draws.flip[image])
                truth = _reference_truth(box, SIZES[image], window, flip)
                if truth is not None:
                    truth = _reference_mosaic_truth(
                        truth, draws.offset[image].numpy(), pieces.cell[image].numpy(), bound
                    )
                assert keep[image, number] == (truth is not None)
                if truth is not None:
                    np.testing.assert_allclose(ours[image, number] / [*INPUT, *INPUT], truth, atol=2e-5)
                    checked += 1
    assert checked > 200


def test_boxes_cut_away_degenerate_and_nan_are_dropped():
    boxes = tf.constant([[[-9.0, 4, 0.5, 60], [0, 0, 0, 0], [3, 3, 3.99, 30], [3, 3, 4.01, 30], [np.nan, 3, 9, 9]]])
    clipped, keep = darknet.truths_of(boxes, tf.constant([[0.0, 0.0, *INPUT]]))
    assert keep.numpy().tolist() == [[False, False, False, True, False]]
    np.testing.assert_allclose(clipped[0, 0], [0, 4, 0.5, 60])
