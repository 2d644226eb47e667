"""CenterNet's map and colours: what is applied against the original's records, what is drawn as a distribution."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.augmentation import CenterNetAugmentation
from configs.centernet.task import CenterNetModel
from configs.data import TrainSplit
from dataloaders.centernet.augment import (
    SCALES,
    CenterNetDraws,
    MapDraws,
    affine_map,
    apply_affine,
    border_of,
    draw_affine,
    draw_colours,
    mirror,
    recolour,
    transform_corners,
)
from dataloaders.centernet.input import Centred
from dataloaders.reading.dataset import Example
from losses.centernet.targets import assign, place
from losses.truth import Truth
from official.vision.protocol import EvaluationProtocol

FILES = ["augment_train_random_crop", "augment_train_shift_scale"]
MODEL = CenterNetModel(input_size=(64, 64), backbone={"type": "resnet"}, decoder={"type": "deconv"})


def samples(path):
    trace = np.load(path)
    for number in sorted({name.split("/")[0] for name in trace.files if name.endswith("/draw_order")}):
        yield {name.split("/")[1]: trace[name] for name in trace.files if name.startswith(f"{number}/")}


def recorded_draws(sample) -> tuple[MapDraws, CenterNetDraws]:
    flip = bool(sample["flipped"])
    affine = MapDraws(tf.constant(flip), tf.constant(sample["c"]), tf.constant(float(sample["s"]), tf.float64))
    colours = CenterNetDraws(
        tf.constant([flip]),
        tf.constant(sample["draw_shuffle"].reshape(1, 3), tf.int32),
        tf.constant(1 + sample["draw_uniform"].reshape(1, 3), tf.float32),
        tf.constant(sample["draw_normal"].reshape(1, 3), tf.float32),
    )
    return affine, colours


@pytest.mark.parametrize("name", FILES)
def test_the_fast_warp_differs_by_what_opencv_rounds(golden_centernet, name):
    """Bilinear in float, mirrored afterwards; OpenCV's positions are whole 1/32 of a pixel."""
    for sample in samples(golden_centernet(f"{name}.npz")):
        affine, colours = recorded_draws(sample)
        image = tf.constant(np.ascontiguousarray(sample["image_bgr_u8"]))
        warped = mirror(apply_affine(image, affine, sample["input"].shape[1:], "bilinear")[tf.newaxis], colours.flip)
        pixels = recolour(tf.cast(warped, tf.float32) / 255, colours)[0].numpy()
        levels = np.abs((pixels - MODEL.mean) / MODEL.std - sample["input"].transpose(1, 2, 0)) * MODEL.std * 255
        assert levels.max() < 6.1 * colours.strength.numpy().prod().clip(1) and levels.mean() < 0.46


@pytest.mark.parametrize("name", FILES)
def test_targets_of_recorded_draws(golden_centernet, name):
    for sample in samples(golden_centernet(f"{name}.npz")):
        affine, _ = recorded_draws(sample)
        xywh = sample["boxes_xywh"].reshape(-1, 4)
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
        classes, rows, columns = sample["hm"].shape
        size = tf.constant(sample["image_wh"][::-1].astype(np.int32))
        boxes = transform_corners(tf.constant(corners), size, affine.flip, affine_map(affine, (4 * rows, 4 * columns)))[
            tf.newaxis
        ]
        truth = Truth(boxes, tf.constant(sample["class"][np.newaxis], tf.int32), tf.ones(boxes.shape[:2], tf.bool))
        targets = assign(place(truth, (rows, columns), classes), (rows, columns), classes)
        count = len(xywh)
        np.testing.assert_allclose(targets.hm[0], sample["hm"].transpose(1, 2, 0), atol=1e-6)
        np.testing.assert_array_equal(targets.ind[0], sample["ind"][:count])
        np.testing.assert_array_equal(targets.reg_mask[0], sample["reg_mask"][:count].astype(bool))
        for ours, theirs in ((targets.wh, sample["wh"]), (targets.reg, sample["reg"])):
            np.testing.assert_allclose(ours[0], theirs[:count], atol=2e-5)  # the recorded matrix has 1e-7 of noise


@pytest.mark.parametrize(
    ("kind", "name"), [("centernet_augment", "augment_units"), *(("centernet_train_inputs", name) for name in FILES)]
)
def test_as_recorded(as_recorded, kind, name):
    as_recorded(kind, name)


def test_border_is_the_originals():
    for side in (1, 2, 3, 64, 128, 129, 256, 257, 258, 640):
        part = 1
        while side - 128 // part <= 128 // part:
            part *= 2
        assert int(border_of(tf.constant(side))) == 128 // part


def draw_many(config, count=4000, size=(300, 500)):
    seeds = tf.stack([tf.zeros([count], tf.int64), tf.range(count, dtype=tf.int64)], axis=1)
    types = MapDraws(tf.bool, tf.float32, tf.float64)
    draw = tf.function(
        lambda seed: draw_affine(config, seed, tf.constant(size, tf.int32)), autograph=False, reduce_retracing=True
    )
    return MapDraws(*(part.numpy() for part in tf.map_fn(draw, seeds, fn_output_signature=types)))


def test_random_crops():
    draws = draw_many(CenterNetAugmentation())
    values, counts = np.unique(np.round(draws.s / 500, 6), return_counts=True)
    np.testing.assert_allclose(values, SCALES)
    assert np.square((counts - 500) / np.sqrt(500)).sum() < 24.3  # chi-square of 7, 0.1 %
    x = np.where(draws.flip, 500 - draws.c[:, 0] - 1, draws.c[:, 0])
    assert x.min() >= 128 and x.max() < 500 - 128 and draws.c[:, 1].min() >= 128 and draws.c[:, 1].max() < 300 - 128
    np.testing.assert_array_equal(x, np.round(x))
    assert abs(x.mean() - (128 + 371) / 2) < 4 * 70.4 / np.sqrt(4000)
    assert abs(draws.flip.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


def test_shift_and_scale():
    draws = draw_many(CenterNetAugmentation(crop="shift_scale", flip=0.0))
    shift = (draws.c - [250, 150]) / 500
    assert np.abs(shift).max() <= 0.2 + 1e-6 and np.mean(np.isclose(np.abs(shift), 0.2, atol=1e-6)) > 0.02
    inside = np.abs(shift) < 0.1
    assert abs(inside.mean() - 0.6827) < 0.02
    scale = draws.s / 500
    assert scale.min() >= 0.6 - 1e-9 and scale.max() <= 1.4 + 1e-9
    assert abs(np.mean(np.isclose(scale, 0.6) | np.isclose(scale, 1.4)) - 0.3173) < 0.03
    assert not draws.flip.any()


def test_colour_draws():
    config = CenterNetAugmentation()
    draws = [draw_colours(config, tf.constant([seed, 1], tf.int64), tf.constant(False)) for seed in range(600)]
    orders = np.array([tuple(draw.order.numpy()) for draw in draws])
    assert len(np.unique(orders, axis=0)) == 6 and (np.sort(orders, axis=1) == [0, 1, 2]).all()
    strength = np.array([draw.strength.numpy() for draw in draws])
    assert strength.min() >= 0.6 and strength.max() <= 1.4 and abs(strength.mean() - 1) < 0.02
    lighting = np.array([draw.lighting.numpy() for draw in draws])
    assert abs(lighting.std() - 0.1) < 0.01
    nothing = draw_colours(None, tf.constant([0, 1], tf.int64), tf.constant(False))
    image = tf.random.stateless_uniform([1, 5, 7, 3], [1, 2])
    unchanged = recolour(image, CenterNetDraws(*(part[tf.newaxis] for part in nothing)))
    np.testing.assert_array_equal(unchanged, image)


class OneSpot:
    """A data set of one JPEG: a soft white spot in the middle of its box, on black."""

    corners = (90.0, 60.0, 139.0, 109.0)  # xyxy

    def __init__(self):
        y, x = np.ogrid[:200, :300]
        spot = 255 * np.exp(-((y - 84.5) ** 2 + (x - 114.5) ** 2) / 2 / 9**2)
        pixels = np.repeat(spot.round().astype(np.uint8)[..., np.newaxis], 3, axis=2)
        self.encoded = tf.io.encode_jpeg(pixels, quality=100)

    def __len__(self):
        return 1

    def read(self, row):
        boxes = tf.constant([self.corners])
        size = tf.constant([200, 300])
        return Example(self.encoded, tf.constant("spot"), size, row, boxes, boxes, tf.zeros([1], tf.int32))


@pytest.mark.parametrize("precise", [False, True])
def test_boxes_lie_where_the_pixels_do(precise):
    split = TrainSplit(
        source={"type": "coco", "annotations": "-", "images": "-"},
        batch_size=1,
        max_boxes=1,
        augmentation=CenterNetAugmentation(crop="shift_scale", precise=precise),
    )
    make = tf.function(Centred(OneSpot(), split, (128, 192), EvaluationProtocol(), 5), autograph=False)
    seen = 0
    for position in range(12):
        row = make(tf.constant(position, tf.int64))
        x1, y1, x2, y2 = 4 * row.boxes[0].numpy()
        light = mirror(row.image[tf.newaxis], row.draws.flip[tf.newaxis])[0, :, :, 0].numpy().astype(np.float64)
        if min(x1, y1) < 2 or x2 > 189 or y2 > 125:
            continue
        seen += 1
        centre = [(light * places).sum() / light.sum() for places in np.ogrid[:128, :192]]
        np.testing.assert_allclose(centre, [(y1 + y2) / 2, (x1 + x2) / 2], atol=0.02)
        # libjpeg's fast inverse DCT loses 1.3 % of this spot's light at any scale.
        assert light.sum() / 255 == pytest.approx(2 * np.pi * (y2 - y1) * (x2 - x1) * (9 / 49) ** 2, rel=0.02)
    assert seen > 4
