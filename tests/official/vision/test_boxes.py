import numpy as np
import pytest
import tensorflow as tf

from official.vision import boxes as box_ops

FORMS = ["yxyx", "xyxy", "cxcywh", "xywh"]
KINDS = {"iou": box_ops.iou, "giou": box_ops.giou, "diou": box_ops.diou, "ciou": box_ops.ciou}
# One box in all forms: height 0.2, width 0.4, wider than high and off centre.
SAME = {
    "yxyx": [0.1, 0.5, 0.3, 0.9],
    "xyxy": [0.5, 0.1, 0.9, 0.3],
    "cxcywh": [0.7, 0.2, 0.4, 0.2],
    "xywh": [0.5, 0.1, 0.4, 0.2],
}


def pairs(rows) -> tf.Tensor:
    return tf.constant(rows, tf.float32)


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (2, 0), ()])
def test_conversion(source, target, shape):
    boxes = tf.broadcast_to(pairs(SAME[source]), [*shape, 4])
    converted = box_ops.convert_boxes(boxes, source, target)
    np.testing.assert_allclose(converted, np.broadcast_to(SAME[target], [*shape, 4]), atol=1e-6)


def test_conversion_keeps_float64():
    boxes = np.random.default_rng(0).random((2, 3, 4))
    converted = box_ops.yxyx_to_xywh(tf.constant(boxes)).numpy()
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)
    np.testing.assert_array_equal(converted, np.stack([left, top, right - left, bottom - top], axis=-1))


@pytest.mark.parametrize("form", FORMS)
def test_equal_forms_change_no_bit_and_zeros_stay_zeros(form):
    boxes = tf.random.stateless_uniform([2, 5, 4], [1, 2])
    assert box_ops.convert_boxes(boxes, form, form) is boxes
    for target in FORMS:
        np.testing.assert_array_equal(box_ops.convert_boxes(tf.zeros([2, 3, 4]), form, target), np.zeros([2, 3, 4]))


def test_unknown_form_names_itself_and_the_known_ones():
    with pytest.raises(ValueError, match="unknown box form 'yolo'; expected one of yxyx, xyxy, cxcywh, xywh"):
        unchecked(box_ops.convert_boxes)(tf.zeros([2, 4]), "yxyx", "yolo")


def unchecked(function):
    """The function without the type checks that the tests wrap around it."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def test_values_are_darknets(golden):
    recorded = np.load(golden("misc/iou.npz"))
    predicted, truth = tf.constant(recorded["pred"]), tf.constant(recorded["truth"])
    expected = dict(zip(KINDS, recorded["iou_giou_diou_ciou"].T, strict=True))
    # Darknet's box_diou, made for NMS, raises the distance term to 0.6.
    values = {kind: function(predicted, truth).numpy() for kind, function in KINDS.items()}
    values["diou"] = values["iou"] - (values["iou"] - values["diou"]) ** 0.6
    for kind in KINDS:
        np.testing.assert_allclose(values[kind], expected[kind], atol=3e-6, err_msg=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_known_values(kind):
    a = pairs([[0.5, 0.5, 0.4, 0.2]] * 4)
    b = pairs([[0.5, 0.5, 0.4, 0.2], [0.6, 0.5, 0.4, 0.2], [0.5, 0.5, 0.2, 0.1], [0.9, 0.5, 0.2, 0.2]])
    expected = {
        "iou": [1, 0.6, 0.25, 0],
        "giou": [1, 0.6, 0.25, -0.1 / 0.7],
        "diou": [1, 0.6 - 0.01 / 0.29, 0.25, -0.16 / 0.53],
    }
    angle = 4 / np.pi**2 * (np.arctan(1) - np.arctan(2)) ** 2
    expected["ciou"] = [*expected["diou"][:3], expected["diou"][3] - angle * angle / (1 + angle + 1e-6)]
    np.testing.assert_allclose(KINDS[kind](a, b), expected[kind], atol=1e-6)
    np.testing.assert_allclose(KINDS[kind](b, a), expected[kind], atol=1e-6)


DEGENERATE = {
    "identical": ([0.5, 0.4, 0.3, 0.2], [0.5, 0.4, 0.3, 0.2]),
    "apart": ([0.1, 0.1, 0.1, 0.1], [0.9, 0.8, 0.1, 0.2]),
    "touching": ([0.2, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.2]),
    "inside, same centre": ([0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.4, 0.2]),
    "no width": ([0.5, 0.5, 0.0, 0.2], [0.5, 0.5, 0.3, 0.2]),
    "no height": ([0.5, 0.5, 0.2, 0.0], [0.5, 0.5, 0.3, 0.2]),
    "no area": ([0.5, 0.5, 0.0, 0.0], [0.4, 0.5, 0.3, 0.2]),
    "both nothing": ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
    "both nothing, apart": ([0.1, 0.0, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0]),
    "subnormal area": ([0.5, 0.5, 1e-20, 1e-20], [0.5, 0.5, 1e-20, 1e-20]),
    "huge": ([0.5, 0.5, 1e7, 1e7], [0.5, 0.5, 0.3, 0.2]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_values_and_gradients_are_finite(kind, case):
    a, b = (pairs([box] * 2) for box in DEGENERATE[case])
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        value = KINDS[kind](a, b)
    assert np.isfinite(value).all()
    assert np.max(value) <= 1
    for gradient in tape.gradient(value, [a, b]):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
def test_identical_boxes_are_at_rest(kind):
    """The edges coincide, where a maximum of edges would give the slope of one side."""
    a = pairs([[0.5, 0.4, 0.3, 0.2], [0.1, 0.9, 0.05, 0.4]])
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = KINDS[kind](a, tf.identity(tf.stop_gradient(a)))
    np.testing.assert_allclose(value, 1, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, a), np.zeros([2, 4]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_equals_finite_differences(kind):
    generator = np.random.default_rng(2)
    a, b = generator.uniform(0.2, 0.6, (2, 20, 4))

    def value_and_gradient(a, b):
        a = tf.constant(a, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(a)
            value = KINDS[kind](a, tf.constant(b, tf.float32))
        return value.numpy(), tape.gradient(value, a).numpy()

    gradient = value_and_gradient(a, b)[1]
    if kind == "ciou":  # its weight is a constant for the gradient: compare the other terms
        weighted = value_and_gradient(a, b)[1] - gradient_of_diou(a, b)
        np.testing.assert_allclose(weighted[:, :2], 0, atol=1e-6)
        assert np.abs(weighted[:, 2:]).max() > 1e-3
        return
    step = 1e-3
    for axis in range(4):
        shift = step * np.eye(4)[axis]
        difference = (value_and_gradient(a + shift, b)[0] - value_and_gradient(a - shift, b)[0]) / (2 * step)
        off = np.abs(gradient[:, axis] - difference)
        assert np.mean(off < 5e-3) >= 0.9  # a box in twenty may step over an edge


def gradient_of_diou(a, b):
    a = tf.constant(a, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = box_ops.diou(a, tf.constant(b, tf.float32))
    return tape.gradient(value, a).numpy()


def test_broadcasting():
    a, b = tf.random.stateless_uniform([2, 7, 1, 4], [1, 2]), tf.random.stateless_uniform([2, 1, 3, 4], [3, 4])
    value = box_ops.iou(a, b)
    assert value.shape == (2, 7, 3)
    np.testing.assert_array_equal(value[1, 5, 2], box_ops.iou(a[1, 5, 0], b[1, 0, 2]))


def test_compiles_with_a_batch_of_unknown_size():
    spec = tf.TensorSpec([None, 4], tf.float32)
    compiled = tf.function(box_ops.ciou, autograph=False, jit_compile=True, input_signature=[spec, spec])
    a, b = tf.random.stateless_uniform([2, 5, 4], [1, 2], 0.1, 0.9)
    np.testing.assert_allclose(compiled(a, b), box_ops.ciou(a, b), atol=1e-6)
