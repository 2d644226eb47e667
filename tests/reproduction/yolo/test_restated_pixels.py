"""Restated colours against what Darknet recorded, OpenCV itself, and what the product's task prepares."""

import colorsys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from configs.data import DarknetAugmentation
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import ColourDraws, TrainBatch
from reproduction.yolo.restated import pixels

RNG = np.random.default_rng(2)
IMAGES = RNG.integers(0, 256, (4, 10, 64, 3), np.uint8)  # whole vectors of OpenCV: no rest of a row
IMAGES[0, 0, :5] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 255], [0, 200, 200]]
IMAGES[1] //= 16  # dark: saturation and hue are coarse
FLIP = np.array([True, False, True, False])
BOXES = np.zeros((4, 3, 4), np.float32)  # none, one, and as many as there are rows; one without size, one at the border
BOXES[1, 0] = [0.25, 0.5, 0.5, 0.125]
BOXES[2] = [[0.25, 0.5, 0.5, 0.125], [0.5, 0.5, 0, 0], [1.0, 0.5, 0.25, 0.5]]
VALID = np.array([[False] * 3, [True, False, False], [True] * 3, [False] * 3])
GAINS = np.round(RNG.uniform(-0.5, 0.5, [3, 4]) * 2**15) / 2**15
DRAWS = {
    "darknet_float": [[0.1, -0.3, 0.0, 0.5], [1.5, 0.4, 1.0, 1.0], [0.7, 1.5, 1.0, 1.0]],
    "darknet_opencv": [[0.1, -0.1, 0.0, 0.05], [1.5, 0.7, 1.0, 2.5], [0.7, 1.5, 1.0, 1.1]],
    "hsv_gains": [GAINS[0], 1 + GAINS[1], 1 + GAINS[2]],
}
NOTHING = [[0.0] * 4, [1.0] * 4, [1.0] * 4]
RECORDED = ["hue0.1_sat1.5_exp1.5", "hue-0.1_sat0.6667_exp0.6667", "hue0_sat1_exp1", "hue0.05_sat1.2_exp0.8"]


def floats(rows):
    return [np.array(row, np.float32) for row in rows]


@pytest.mark.parametrize("colour", DRAWS)
def test_yolo_inputs_are_the_products(colour):
    """Pixels and boxes. Of 8 bits, fused multiplications round a few channels otherwise."""
    draws, config = [FLIP, *floats(DRAWS[colour])], DarknetAugmentation(colour={"type": colour})
    classes, ids = tf.zeros(VALID.shape, tf.int32), tf.range(4, dtype=tf.int64)
    fields = tf.constant(IMAGES), tf.constant(BOXES), classes, tf.constant(VALID), ids
    theirs = apply_colour(TrainBatch(*fields, ColourDraws(*map(tf.constant, draws))), config)
    ours = pixels.inputs(IMAGES, BOXES, VALID, draws, config)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-7)
    if colour == "darknet_float":
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    else:
        off = np.rint((ours[0] - theirs[0].numpy()) * 255)
        np.testing.assert_allclose(theirs[0] + off / 255, ours[0], atol=1e-7)
        assert off.min() >= -1 and off.max() <= 1 and np.count_nonzero(off) * 1000 <= off.size
    changed = np.abs(ours[0] - pixels.inputs(IMAGES, BOXES, VALID, [FLIP, *floats(NOTHING)], config)[0])
    assert (changed.reshape(4, -1).mean(axis=1) > 0.02).sum() >= 3


def test_draws_that_change_nothing_and_no_augmentation():
    for colour in DRAWS:
        config = DarknetAugmentation(colour={"type": colour})
        images, boxes = pixels.inputs(IMAGES, BOXES, VALID, [FLIP, *floats(NOTHING)], config)
        np.testing.assert_array_equal(images[0], IMAGES[0, :, ::-1] / 255)
        np.testing.assert_array_equal(images[1], IMAGES[1] / 255)
        np.testing.assert_array_equal(boxes[:2], BOXES[:2])
        np.testing.assert_array_equal(boxes[2, :, 0], [0.75, 0.5, 0])
    images, boxes = pixels.inputs(IMAGES, BOXES, VALID, [FLIP, *floats(NOTHING)], None)
    np.testing.assert_array_equal(images, IMAGES / 255)
    np.testing.assert_array_equal(boxes, BOXES)


@pytest.mark.parametrize("effect", [{"blur": 5}, {"gaussian_noise": 9}])
def test_effects_are_refused(effect):
    config = DarknetAugmentation(colour={"type": "darknet_opencv"} | effect)
    with pytest.raises(NotImplementedError, match="blur and gaussian_noise are not restated"):
        pixels.inputs(IMAGES, BOXES, VALID, [FLIP, *floats(NOTHING)], config)


@pytest.mark.parametrize("name", [*RECORDED, "hue-0.1_sat1.5_exp0.7"])
def test_distortion_is_darknets(golden, name):
    recorded = np.load(golden("misc/image_ops.npz"))
    draws = [np.float32(part.lstrip("huesatxp")) for part in name.split("_")]
    ours = pixels.distorted(recorded["image_u8_chw"].transpose(1, 2, 0), *draws)
    np.testing.assert_allclose(ours, recorded[f"distort_{name}"].transpose(1, 2, 0), atol=1e-6)


def test_distortion_is_pythons_hsv():
    """By colorsys, from HSV back by the six cases, as a saturation beyond 1 is not clipped there."""
    for image, draws in ((IMAGES[0], (0.1, 1.5, 0.7)), (IMAGES[1], (-0.29, 0.4, 1.5))):
        ours = pixels.distorted(image, *map(np.float32, draws))
        for at in np.ndindex(image.shape[:2]):
            h, s, v = colorsys.rgb_to_hsv(*(image[at] / 255.0))
            h, s, v = (h + draws[0]) % 1.0, s * draws[1], v * draws[2]
            sixth, f = divmod(h * 6, 1)
            p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
            rgb = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)][int(sixth) % 6]
            np.testing.assert_allclose(ours[at], np.clip(rgb, 0, 1), atol=2e-6)


def test_a_hue_of_exactly_one_turn_is_darknets_magenta():
    cyan = np.array([[[0, 200, 200]]], np.uint8)
    turned = [pixels.distorted(cyan, *map(np.float32, (hue, 1, 1)))[0, 0] for hue in (0.5, 0.4999)]
    np.testing.assert_allclose(np.array(turned) * 255, [[200, 0, 200], [200, 0, 0.12]], atol=1e-3)


def test_opencvs_eight_bits():
    """RGB to HSV to the level; back but for what OpenCV's own rounding decides."""
    image = RNG.integers(0, 256, (128, 1024, 3), np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    np.testing.assert_array_equal(np.stack(pixels.opencv_hsv(image), axis=2), hsv)
    ours = pixels.opencv_rgb(*np.moveaxis(image.astype(np.int64), 2, 0)).astype(int)
    off = ours - cv2.cvtColor(image, cv2.COLOR_HSV2RGB)
    assert np.abs(off).max() <= 1 and np.count_nonzero(off) * 1000 <= off.size


def test_darknets_and_the_gains_distortions_are_opencvs():
    """Written with OpenCV's own functions, as the originals do it."""
    level = np.arange(256)
    for number, image in enumerate(IMAGES[:2]):
        of_gains, of_darknet = (floats(DRAWS[kind]) for kind in ("hsv_gains", "darknet_opencv"))
        hue, more, value = (float(draw[number]) for draw in of_gains)
        tables = level * (1 + hue) % 180, (level * more).clip(0, 255), (level * value).clip(0, 255)
        planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        moved = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables, strict=True)]
        check(image, "hsv_gains", [draw[number] for draw in of_gains], moved)
        hue, more, value = (draw[number] for draw in of_darknet)
        moved = [cv2.add(planes[0], (float(np.float32(179) * hue), 0, 0, 0))]
        moved += [cv2.convertScaleAbs(p, alpha=float(by)) for p, by in ((planes[1], more), (planes[2], value))]
        check(image, "darknet_opencv", (hue, more, value), moved)


def check(image, colour, change, hsv):
    draws = [np.array([False]), *(np.array([one], np.float32) for one in change)]
    config = DarknetAugmentation(colour={"type": colour})
    ours, _ = pixels.inputs(image[np.newaxis], BOXES[:1], VALID[:1], draws, config)
    off = np.rint(ours[0] * 255) - cv2.cvtColor(cv2.merge(hsv), cv2.COLOR_HSV2RGB)
    assert np.abs(off).max() <= 1 and np.count_nonzero(off) * 1000 <= off.size
