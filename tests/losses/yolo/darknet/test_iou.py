import numpy as np
import pytest
import tensorflow as tf

from losses.yolo.darknet import iou


def test_values_are_darknets(golden):
    trace = np.load(golden("misc/iou.npz"))
    predicted, true = tf.constant(trace["pred"]), tf.constant(trace["truth"])
    for column, kind in enumerate(iou.KINDS.values()):
        np.testing.assert_allclose(kind(predicted, true), trace["iou_giou_diou_ciou"][:, column], atol=1e-6)


@pytest.mark.parametrize("kind", iou.KINDS)
def test_derivatives_are_darknets(golden, kind):
    trace = np.load(golden("misc/iou.npz"))
    expected = trace[f"dx_dy_dw_dh_{kind}"]
    gradient = iou.iou_gradient(tf.constant(trace["pred"]), tf.constant(trace["truth"]), kind)
    apart = trace["iou_giou_diou_ciou"][:, 0] == 0
    assert 20 < np.count_nonzero(apart) < 380
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


def test_they_broadcast():
    one = tf.constant([[0.5, 0.5, 0.2, 0.2]])  # [1, 4]
    many = tf.constant([[[0.5, 0.5, 0.2, 0.4]], [[0.1, 0.1, 0.1, 0.1]]])  # [2, 1, 4]
    np.testing.assert_allclose(iou.iou(one, many), [[0.5], [0]], rtol=1e-6)
    assert iou.iou_gradient(one, many, "ciou").shape == (2, 1, 4)


def test_all_are_finite_and_in_range():
    generator = np.random.default_rng(0)
    boxes = generator.uniform(0, 1, (2, 20000, 4))
    boxes[:, ::2] = np.round(boxes[:, ::2] * 8) / 8  # edges that coincide, boxes that are the same
    boxes[..., 2:] = np.maximum(boxes[..., 2:], 2**-10)
    boxes[1, ::100] = boxes[0, ::100]
    a, b = tf.unstack(tf.constant(boxes, tf.float32))
    overlap = iou.iou(a, b).numpy()
    assert overlap.min() == 0 and 0.9 < overlap.max() <= 1 + 1e-5
    giou = iou.giou(a, b).numpy()
    assert giou.min() >= -1 - 1e-5 and np.all(giou <= overlap + 1e-5)
    for name, kind in iou.KINDS.items():
        assert np.isfinite(kind(a, b)).all()
        assert np.isfinite(iou.iou_gradient(a, b, name)).all()


def test_boxes_without_area_have_no_iou():
    nothing = tf.zeros([4])
    for name in ("iou", "giou", "diou"):
        assert iou.KINDS[name](nothing, nothing) == 0
    assert iou.iou(nothing, tf.constant([0.0, 0.0, 0.5, 0.5])) == 0
