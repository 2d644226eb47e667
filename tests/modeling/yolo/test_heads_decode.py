"""The decoders of [Gaussian_yolo], [region] and [detection], and of [yolo] with new_coords."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import DetectionHead, GaussianYoloHead, RegionHead, YoloHead
from modeling.darknet.cfg import parse_cfg
from modeling.layers.style import Style
from modeling.yolo.heads import BOX_DECODERS, gaussian_yolo, region
from modeling.yolo.heads.convolutions import yolo_predictions
from official.vision.boxes import convert_boxes

SIZE = (96, 128)
ANCHORS = ((10.0, 14.0), (22.0, 18.0), (40.0, 30.0))
CLASSES = 3
HEADS = {
    "yolo": (YoloHead(anchors=ANCHORS, levels=[{"mask": (1, 2), "scale_x_y": 2, "new_coords": True}]), (3, 4, 2, 8)),
    "gaussian_yolo": (GaussianYoloHead(anchors=ANCHORS, levels=[{"mask": (1, 2), "scale_x_y": 1.1}]), (3, 4, 2, 12)),
    "region": (RegionHead(anchors=((0.5, 0.7), (2, 1.5)), softmax=True), (3, 4, 2, 8)),
    "detection": (DetectionHead(side=3, num=2, sqrt=True), (9 * (CLASSES + 10),)),
}
EVERY = pytest.mark.parametrize("family", HEADS)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def random_raw(family: str) -> np.ndarray:
    raw = np.random.default_rng(0).normal(0, 1, (2, *HEADS[family][1])).astype(np.float32)
    return sigmoid(raw).astype(np.float32) if family == "yolo" else raw


def expected_of_yolo(row):
    x, y, w, h, objectness, *classes = row
    return x * 2 - 0.5, y * 2 - 0.5, 4 * w * w, 4 * h * h, objectness * np.array(classes)


def expected_of_gaussian_yolo(row):
    x, sx, y, sy, w, sw, h, sh, *rest = row
    objectness, *classes = sigmoid(np.array(rest))
    certain = 1 - np.mean(sigmoid(np.array([sx, sy, sw, sh])))
    x, y = (sigmoid(value) * 1.1 - 0.05 for value in (x, y))
    return x, y, np.exp(w), np.exp(h), objectness * np.array(classes) * certain


def expected_of_region(row):
    x, y, w, h, objectness, *classes = row
    classes = np.exp(classes) / np.exp(classes).sum()
    return sigmoid(x), sigmoid(y), np.exp(w), np.exp(h), sigmoid(objectness) * classes


@pytest.mark.parametrize("family", ["yolo", "gaussian_yolo", "region"])
def test_every_prediction_by_the_formula(family):
    head, (rows, columns, slots, _) = HEADS[family]
    raw = random_raw(family)
    boxes, scores = BOX_DECODERS[family]([tf.constant(raw)], head, SIZE)
    assert boxes.shape == (2, rows * columns * slots, 4)
    assert scores.shape == (2, rows * columns * slots, CLASSES)
    boxes = convert_boxes(boxes, "yxyx", "cxcywh").numpy().reshape(2, rows, columns, slots, 4)
    scores = scores.numpy().reshape(2, rows, columns, slots, CLASSES)
    for where in np.ndindex(2, rows, columns, slots):
        _, row, column, slot = where
        x, y, width, height, expected = globals()[f"expected_of_{family}"](raw[where].astype(np.float64))
        anchor = (
            np.array(head.anchors[slot]) / (columns, rows)
            if family == "region"
            else np.array(ANCHORS[1 + slot]) / (128, 96)
        )
        place = [(column + x) / columns, (row + y) / rows, width * anchor[0], height * anchor[1]]
        np.testing.assert_allclose(boxes[where], place, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores[where], expected, rtol=1e-5)


@pytest.mark.parametrize("sqrt", [True, False])
def test_detection_by_the_formula(sqrt):
    head, raw = DetectionHead(side=3, num=2, sqrt=sqrt), random_raw("detection")
    boxes, scores = BOX_DECODERS["detection"]([tf.constant(raw)], head, SIZE)
    boxes = convert_boxes(boxes, "yxyx", "cxcywh").numpy()
    for image in range(2):
        for cell, slot in np.ndindex(9, 2):
            classes = raw[image, cell * CLASSES : (cell + 1) * CLASSES]
            objectness = raw[image, 9 * CLASSES + cell * 2 + slot]
            x, y, w, h = raw[image, 9 * (CLASSES + 2) + (cell * 2 + slot) * 4 :][:4]
            place = [(cell % 3 + x) / 3, (cell // 3 + y) / 3, *((w * w, h * h) if sqrt else (w, h))]
            np.testing.assert_allclose(boxes[image, cell * 2 + slot], place, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(scores[image, cell * 2 + slot], objectness * classes, rtol=1e-5)


@EVERY
def test_compiles_and_takes_a_batch_of_unknown_size(family):
    head, shape = HEADS[family]
    decode = tf.function(lambda raw: BOX_DECODERS[family]([raw], head, SIZE), autograph=False, jit_compile=True)
    concrete = decode.get_concrete_function(tf.TensorSpec([None, *shape]))
    raw = tf.constant(random_raw(family))
    for one, other in zip(concrete(raw), BOX_DECODERS[family]([raw], head, SIZE), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@EVERY
def test_wild_and_bfloat16_numbers(family):
    head, shape = HEADS[family]
    boxes, scores = BOX_DECODERS[family]([tf.fill([1, *shape], 1e4)], head, SIZE)
    assert np.isfinite(boxes).all() and np.isfinite(scores).all()
    boxes, scores = BOX_DECODERS[family]([tf.cast(random_raw(family), tf.bfloat16)], head, SIZE)
    assert boxes.dtype == scores.dtype == tf.float32


@pytest.mark.parametrize("family", ["yolo", "gaussian_yolo", "region"])
def test_another_shape_is_one_clear_error(family):
    with pytest.raises(ValueError, match=r"raw has shape \(2, 3, 4, 3, 12\); expected .* for the 2 anchors"):
        BOX_DECODERS[family]([tf.zeros([2, 3, 4, 3, 12])], HEADS[family][0], SIZE)


def channels_last(values: np.ndarray, anchors: int) -> np.ndarray:
    """[batch, anchors * entries, rows, columns] to [batch, rows, columns, anchors, entries]."""
    batch, _, rows, columns = values.shape
    return values.reshape(batch, anchors, -1, rows, columns).transpose(0, 3, 4, 1, 2)


def test_gaussian_numbers_are_darknets(golden):
    trace = np.load(golden("loss/gaussian_bdd.npz"))
    network = parse_cfg(str(trace["meta/cfg"]), "gaussian_bdd")
    for layer in network.heads:
        raw, out = (channels_last(trace[f"train/L{index:03d}_output"], 3) for index in (layer.index - 1, layer.index))
        level = GaussianYoloHead(anchors=layer.anchors, levels=[{"mask": layer.mask}])
        anchors = level.anchors_of(level.levels[0])
        decoded = gaussian_yolo.decode_level(tf.constant(raw), anchors, level.levels[0], (48, 64))
        np.testing.assert_allclose(decoded.offsets, out[..., 0:4:2], atol=1e-6)
        np.testing.assert_allclose(decoded.sigmas, out[..., 1:8:2], atol=1e-6)
        np.testing.assert_allclose(decoded.objectness, out[..., 8], atol=1e-6)
        np.testing.assert_allclose(decoded.class_probabilities, out[..., 9:], atol=1e-6)


def test_region_numbers_are_darknets(golden):
    trace = np.load(golden("loss/region_v2_seen_small.npz"))
    raw = channels_last(trace["train/L003_output"], 5)
    out = trace["train/L004_output"].reshape(2, 6, 8, 5, 9)  # Darknet's [region] has the entries last
    (layer,) = parse_cfg(str(trace["meta/cfg"]), "region").heads
    decoded = region.decode_region(tf.constant(raw), RegionHead(anchors=layer.anchors, softmax=True))
    np.testing.assert_allclose(decoded.offsets, sigmoid(out[..., :2]), atol=1e-6)
    np.testing.assert_allclose(decoded.objectness, out[..., 4], atol=1e-6)
    np.testing.assert_allclose(decoded.classes, out[..., 5:], atol=1e-6)


def test_the_convolutions_of_new_coords_end_in_a_sigmoid():
    levels = [{"mask": (0, 1), "new_coords": True}, {"mask": (2,)}]
    head = YoloHead(anchors=ANCHORS, levels=levels, objectness_prior=0.01)
    features = [keras.Input((3, 4, 8)), keras.Input((6, 8, 8))]
    style = Style("leaky", "local", 1e-5, 0.99, "uniform", seed=0)
    model = keras.Model(features, yolo_predictions(features, head, CLASSES, style))
    near, far = model([tf.zeros([1, 3, 4, 8]), tf.zeros([1, 6, 8, 8])])
    np.testing.assert_allclose(near[0, 0, 0, 1], [0.5] * 4 + [0.01] + [0.5] * CLASSES, rtol=1e-5)
    np.testing.assert_allclose(far[0, 0, 0, 0], [0] * 4 + [np.log(0.01 / 0.99)] + [0] * CLASSES, rtol=1e-5)
