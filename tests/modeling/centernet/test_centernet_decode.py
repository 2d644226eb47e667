"""Decoding against what CenterNet itself computed (recorded traces; see their README)."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetHead
from modeling.centernet.decode import Maps, best_peaks, decode, maps_of, stacks_of
from reproduction.centernet.losses import maps
from reproduction.traces.trace import read_trace


@pytest.mark.parametrize("name", ["small_random", "small_k40", "coco80_peaky", "nms_plateau", "flip_test"])
def test_as_recorded(as_recorded, name):
    as_recorded("centernet_decode", f"decode_{name}")


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
    trace = read_trace(golden_centernet("decode_small_k40.npz"))
    head = CenterNetHead(K=40, reg_offset=offset)
    outputs = [maps(trace, part) for part in ("hm_logits", "wh", "reg")[: 3 if offset else 2]]

    def detect(*outputs):
        return decode([part for part in maps_of(outputs, head) if part is not None], head)

    compiled = tf.function(detect, autograph=False, jit_compile=True)
    for one, other in zip(compiled(*outputs), detect(*outputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_map_of_unknown_size_and_few_cells():
    """As many peaks as K, those beyond the cells of score 0 and in range."""
    given = [tf.random.stateless_uniform([1, 2, 3, channels], [channels, 7]) for channels in (1, 2, 2)]
    head, shapes = CenterNetHead(K=10), [tf.TensorSpec([1, None, None, part.shape[3]]) for part in given]
    boxes, scores = tf.function(lambda *given: decode(given, head), shapes, autograph=False)(*given)
    static, expected = decode(given, head)
    assert boxes.shape == (1, 10, 4) and static.shape == (1, 6, 4)
    np.testing.assert_allclose(boxes[:, :6], static)
    np.testing.assert_allclose(scores[:, :6], expected)
    assert not scores[:, 6:].numpy().any() and np.isfinite(boxes).all()
