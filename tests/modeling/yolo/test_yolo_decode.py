import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import YoloHead, YoloLevel
from modeling.yolo.heads.yolo import decode, decode_level
from official.vision.boxes import convert_boxes

SIZE = (96, 128)
ANCHORS = ((10.0, 14.0), (22.0, 18.0), (40.0, 30.0))
HEAD = YoloHead(anchors=ANCHORS, levels=(YoloLevel(mask=(1, 2), scale_x_y=1.05), YoloLevel(mask=(0,))))


def level_of(slots: int, scale: float = 1.0, **fields) -> YoloLevel:
    return YoloLevel(mask=range(slots), scale_x_y=scale, **fields)


def raw_output(seed: int, rows: int, columns: int, slots: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (2, rows, columns, slots, 5 + classes)).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1.05, 2.0])
def test_every_prediction_by_the_formula(scale):
    raw = raw_output(0, 3, 4, 2)
    decoded = decode_level(tf.constant(raw), ANCHORS[1:], level_of(2, scale), SIZE)
    sigmoid = 1 / (1 + np.exp(-raw.astype(np.float64)))
    for where in np.ndindex(raw.shape[:4]):
        _, row, column, slot = where
        width, height = ANCHORS[1:][slot]
        expected = [
            (column + sigmoid[where][0] * scale - (scale - 1) / 2) / 4,
            (row + sigmoid[where][1] * scale - (scale - 1) / 2) / 3,
            np.exp(raw[where][2]) * width / 128,
            np.exp(raw[where][3]) * height / 96,
        ]
        np.testing.assert_allclose(decoded.boxes[where], expected, rtol=1e-5)
    np.testing.assert_allclose(decoded.objectness, sigmoid[..., 4], rtol=1e-5)
    np.testing.assert_allclose(decoded.class_probabilities, sigmoid[..., 5:], rtol=1e-5)


def test_scale_reaches_the_border_of_the_cell():
    raw = np.zeros((2, 3, 4, 1, 6), np.float32)
    raw[..., :2] = 20
    without = decode_level(tf.constant(raw), ANCHORS[:1], level_of(1), SIZE).boxes
    with_scale = decode_level(tf.constant(raw), ANCHORS[:1], level_of(1, 2.0), SIZE).boxes
    np.testing.assert_allclose(without[0, 0, 0, 0, :2], [1 / 4, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(with_scale[0, 0, 0, 0, :2], [1.5 / 4, 1.5 / 3], rtol=1e-6)


def test_decode_joins_levels_coarsest_first():
    outputs = [tf.constant(raw_output(1, 3, 4, 2)), tf.constant(raw_output(2, 6, 8, 1))]
    boxes, scores = decode(outputs, HEAD, SIZE)
    assert boxes.shape == (2, 3 * 4 * 2 + 6 * 8, 4)
    assert scores.shape == (2, 3 * 4 * 2 + 6 * 8, 3)
    coarse = decode_level(outputs[0], ANCHORS[1:], level_of(2, 1.05), SIZE)
    position = (2 * 4 + 3) * 2 + 1  # row 2, column 3, second anchor
    expected = convert_boxes(coarse.boxes[1, 2, 3, 1], "cxcywh", "yxyx")
    np.testing.assert_array_equal(boxes[1, position], expected)
    np.testing.assert_array_equal(
        scores[1, position], coarse.objectness[1, 2, 3, 1] * coarse.class_probabilities[1, 2, 3, 1]
    )
    fine = decode_level(outputs[1], ANCHORS[:1], level_of(1), SIZE)
    np.testing.assert_array_equal(boxes[0, -1], convert_boxes(fine.boxes[0, 5, 7, 0], "cxcywh", "yxyx"))


def test_compiles_and_takes_a_batch_of_unknown_size():
    specs = [tf.TensorSpec([None, 3, 4, 2, 8]), tf.TensorSpec([None, 6, 8, 1, 8])]
    compiled = tf.function(lambda *raw: decode(list(raw), HEAD, SIZE), autograph=False, jit_compile=True)
    concrete = compiled.get_concrete_function(*specs)
    outputs = [tf.constant(raw_output(1, 3, 4, 2)), tf.constant(raw_output(2, 6, 8, 1))]
    for one, other in zip(concrete(*outputs), decode(outputs, HEAD, SIZE), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("channel", range(4))
def test_nan_stays_where_it_is(channel, compiled):
    raw = raw_output(3, 3, 4, 2)
    raw[0, 1, 2, 0, channel] = np.nan
    decode_boxes = tf.function(
        lambda raw: decode_level(raw, ANCHORS[1:], level_of(2), SIZE).boxes, autograph=False, jit_compile=compiled
    )
    boxes = decode_boxes(tf.constant(raw)).numpy()
    assert np.argwhere(np.isnan(boxes)).tolist() == [[0, 1, 2, 0, channel]]


def test_wild_sizes_are_finite_and_sane_ones_as_they_are():
    raw = np.zeros((2, 3, 4, 1, 6), np.float32)
    raw[0, 0, 0, 0, 2:4] = 1e30, 29
    with tf.GradientTape() as tape:
        logits = tf.constant(raw)
        tape.watch(logits)
        boxes = decode_level(logits, ANCHORS[:1], level_of(1), SIZE).boxes
    gradient = tape.gradient(boxes, logits).numpy()[0, 0, 0, 0, 2:4]
    expected = np.exp([30, 29]) * np.array(ANCHORS[0]) / [128, 96]
    np.testing.assert_allclose(boxes[0, 0, 0, 0, 2:], expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, [0, expected[1]], rtol=1e-6)


def test_wrong_number_of_anchors_is_one_clear_error():
    with pytest.raises(ValueError, match=r"raw has shape \(2, 3, 4, 2, 8\); expected .* for the 3 anchors"):
        decode_level(tf.constant(raw_output(0, 3, 4, 2)), ANCHORS, level_of(3), SIZE)


def test_boxes_are_darknets_on_a_real_image(golden):
    """yolov4-tiny with its published weights: every box that Darknet kept at 0.005 is decoded alike.

    Darknet's boxes were mapped back to an image that was stretched to the input: relative, they are the same.
    """
    trace = np.load(golden("infer/yolov4-tiny__000000006040.npz"))
    anchors = trace["anchors/L030"].reshape(-1, 2).astype(float).tolist()
    head = YoloHead(
        anchors=anchors,
        levels=tuple(YoloLevel(mask=trace[f"mask/{layer}"].tolist(), scale_x_y=1.05) for layer in ("L030", "L037")),
    )
    outputs = []
    for layer in ("L029", "L036"):
        raw = trace[f"resize/{layer}_output"]
        outputs.append(tf.constant(raw.reshape(1, 3, 85, *raw.shape[2:]).transpose(0, 3, 4, 1, 2)))
    boxes, scores = decode(outputs, head, (416, 416))
    boxes = convert_boxes(boxes, "yxyx", "cxcywh")[0].numpy()

    recorded = trace["resize/thresh0.25/raw"]
    assert len(recorded) == 6
    for row in recorded:
        nearest = np.abs(boxes - row[:4]).max(axis=1).argmin()
        np.testing.assert_allclose(boxes[nearest], row[:4], atol=2e-6)
        kept = row[5:] > 0
        assert kept.any()
        np.testing.assert_allclose(scores[0].numpy()[nearest][kept], row[5:][kept], atol=2e-6)
    objectness = tf.concat([tf.reshape(tf.sigmoid(raw[..., 4]), [-1]) for raw in outputs], axis=0)
    assert np.count_nonzero(objectness > 0.005) == len(trace["resize/thresh0.005/raw"])
