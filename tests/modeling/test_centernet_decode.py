"""Decoding against what CenterNet itself computed (recorded traces; see their README)."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet import CenterNetHead
from modeling.heads.centernet import (
    Maps,
    average_flipped,
    best_peaks,
    decode,
    maps_of,
    stacks_of,
    suppress_neighbours,
    to_image,
)

CASES = ["small_random", "small_k40", "coco80_peaky"]


def nhwc(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values.transpose(0, 2, 3, 1))


def assert_detections(peaks, expected):
    np.testing.assert_array_equal(peaks.classes, expected[..., 5])
    np.testing.assert_allclose(peaks.scores, expected[..., 4], atol=1e-6)
    np.testing.assert_allclose(peaks.boxes, expected[..., :4], atol=1e-3)


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_decoding(golden_centernet, name, with_offset):
    trace = np.load(golden_centernet(f"decode_{name}.npz"))
    maps = Maps(tf.sigmoid(nhwc(trace["hm_logits"])), nhwc(trace["wh"]), nhwc(trace["reg"]) if with_offset else None)
    peaks = best_peaks(maps, int(trace["meta/K"]))
    assert_detections(peaks, trace["detections" if with_offset else "detections_without_reg"])


@pytest.mark.parametrize("name", CASES)
def test_decoding_from_outputs(golden_centernet, name):
    """The same through `decode`: yxyx relative to the input, one score a class."""
    trace = np.load(golden_centernet(f"decode_{name}.npz"))
    head, (rows, columns) = CenterNetHead(K=int(trace["meta/K"])), trace["wh"].shape[2:]
    outputs = [nhwc(trace[part]) for part in ("hm_logits", "wh", "reg")]
    boxes, scores = decode(maps_of([tf.zeros_like(part) for part in outputs] + outputs, head), head)
    expected = trace["detections"]
    np.testing.assert_allclose(boxes * [rows, columns, rows, columns], expected[..., [1, 0, 3, 2]], atol=1e-3)
    np.testing.assert_array_equal(np.argmax(scores, axis=-1), expected[..., 5])
    np.testing.assert_allclose(np.sum(scores, axis=-1), expected[..., 4], atol=1e-6)


def test_plateaus_stay(golden_centernet):
    trace = np.load(golden_centernet("decode_nms_plateau.npz"))
    np.testing.assert_array_equal(suppress_neighbours(nhwc(trace["hm"])), nhwc(trace["nms"]))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", CASES)
def test_boxes_in_pixels_of_the_image(golden_centernet, name, number):
    trace = np.load(golden_centernet(f"decode_{name}.npz"))
    post = {key: trace[f"post{number}/{key}"] for key in ("c", "s", "out_wh", "x1y1x2y2_score_class0")}
    detections = trace["detections"][:1]
    scale = tf.constant(np.ravel(post["s"])[:1], tf.float32)
    grid = tuple(int(side) for side in post["out_wh"][::-1])
    boxes = to_image(tf.constant(detections[..., :4]), tf.constant(post["c"][np.newaxis]), scale, grid)[0].numpy()
    order = np.lexsort([np.arange(len(boxes)), detections[0, :, 5]])  # the recorded order: by class, then score
    np.testing.assert_allclose(boxes[order], post["x1y1x2y2_score_class0"][:, :4], atol=1e-3)
    np.testing.assert_array_equal(detections[0, order, 4], post["x1y1x2y2_score_class0"][:, 4])


def test_flip_test(golden_centernet):
    trace = np.load(golden_centernet("decode_flip_test.npz"))
    both = [tf.sigmoid(nhwc(trace["hm"])), nhwc(trace["wh"]), nhwc(trace["reg"])]
    averaged = average_flipped(Maps(*(part[:1] for part in both)), Maps(*(part[1:] for part in both)))
    np.testing.assert_allclose(averaged.heat, nhwc(trace["averaged_hm"]), atol=1e-6)
    np.testing.assert_allclose(averaged.wh, nhwc(trace["averaged_wh"]), atol=1e-6)
    assert_detections(best_peaks(averaged, 100), trace["detections"])


def test_sizes_of_each_class():
    """cat_spec_wh: a peak's size comes from its own class's pair of channels."""
    heat = np.zeros((1, 3, 5, 3), np.float32)
    heat[0, 1, 2, 2], heat[0, 2, 4, 0] = 0.9, 0.8
    wh = np.arange(1 * 3 * 5 * 6, dtype=np.float32).reshape(1, 3, 5, 6)
    peaks = best_peaks(Maps(tf.constant(heat), tf.constant(wh), None), 2)
    np.testing.assert_array_equal(peaks.classes, [[2, 0]])
    for box, (row, column, cls) in zip(peaks.boxes[0].numpy(), ((1, 2, 2), (2, 4, 0)), strict=True):
        np.testing.assert_allclose(box[2:] - box[:2], wh[0, row, column, 2 * cls : 2 * cls + 2])
        np.testing.assert_allclose((box[2:] + box[:2]) / 2, [column + 0.5, row + 0.5])


def test_more_peaks_than_cells():
    peaks = best_peaks(Maps(tf.zeros([2, 2, 3, 1]), tf.ones([2, 2, 3, 2]), None), 100)
    assert peaks.scores.shape == (2, 6)
    assert not np.any(peaks.scores)


@pytest.mark.parametrize(
    ("outputs", "head"), [(2, {}), (0, {}), (3, {"reg_offset": False}), (3, {"cat_spec_wh": True})]
)
def test_wrong_outputs_are_an_error(outputs, head):
    with pytest.raises(ValueError, match=r"stacks_of: .* expected"):
        stacks_of([tf.zeros([1, 4, 4, 2])] * outputs, CenterNetHead(**head))


@pytest.mark.parametrize("offset", [True, False])
def test_compiles_with_static_shapes_and_equals_eager(golden_centernet, offset):
    trace = np.load(golden_centernet("decode_small_k40.npz"))
    head = CenterNetHead(K=40, reg_offset=offset)
    outputs = [nhwc(trace[part]) for part in ("hm_logits", "wh", "reg")[: 3 if offset else 2]]

    def detect(*outputs):
        return decode([maps for maps in maps_of(outputs, head) if maps is not None], head)

    compiled = tf.function(detect, autograph=False, jit_compile=True)
    for one, other in zip(compiled(*outputs), detect(*outputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_map_of_unknown_size_and_few_cells():
    """As many peaks as K, those beyond the cells of score 0 and in range."""
    maps = [tf.random.stateless_uniform([1, 2, 3, channels], [channels, 7]) for channels in (1, 2, 2)]
    head, shapes = CenterNetHead(K=10), [tf.TensorSpec([1, None, None, part.shape[3]]) for part in maps]
    boxes, scores = tf.function(lambda *maps: decode(maps, head), shapes, autograph=False)(*maps)
    static, expected = decode(maps, head)
    assert boxes.shape == (1, 10, 4) and static.shape == (1, 6, 4)
    np.testing.assert_allclose(boxes[:, :6], static)
    np.testing.assert_allclose(scores[:, :6], expected)
    assert not scores[:, 6:].numpy().any() and np.isfinite(boxes).all()
