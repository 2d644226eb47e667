import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import YoloHead
from configs.yolo.losses import YoloLoss
from losses.truth import Truth
from losses.yolo.autodiff import yolo_loss
from reproduction.yolo.restated import yolo
from tests.losses.yolo.cases import CASES, HEAD, MOMENT, SIZE, TRUTH, as_truth, random_outputs

KINDS = ["mse", "iou", "giou", "diou", "ciou"]
PARTS = ["box", "objectness", "class"]


def rules_of(kind: str, **changes) -> YoloLoss:
    weights = {"iou_normalizer": 0.6, "obj_normalizer": 0.8, "cls_normalizer": 0.5, "label_smoothing": 0.1}
    return YoloLoss(iou_loss=kind, ignore_thresh=0.3, **(weights | changes))


def loss_of(outputs, truth: Truth, rules: YoloLoss):
    return yolo_loss([tf.constant(raw) for raw in outputs], truth, HEAD, rules, MOMENT)


def gradients_of(outputs, truth: Truth, rules: YoloLoss) -> list[np.ndarray]:
    outputs = [tf.constant(raw) for raw in outputs]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total, _ = yolo_loss(outputs, truth, HEAD, rules, MOMENT)
    return [gradient.numpy() for gradient in tape.gradient(total, outputs)]


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_restated_loss(case, kind, iou_thresh):
    rules = rules_of(kind, iou_thresh=iou_thresh)
    outputs = random_outputs(4)
    total, parts = loss_of(outputs, as_truth(CASES[case]), rules)
    expected = yolo.loss(outputs, as_truth(CASES[case]), HEAD, rules, SIZE).parts
    expected = np.array([expected[name] for name in PARTS])
    np.testing.assert_allclose([parts[name] for name in PARTS], expected, rtol=2e-5)
    np.testing.assert_allclose(total, expected.sum(), rtol=2e-5)
    assert (expected[0] > 0) == (expected[2] > 0) == (case != "none")
    assert all(np.isfinite(value) for value in parts.values())


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_equals_the_restated_one(kind, iou_thresh):
    """Which equals finite differences, see tests/reproduction/yolo/test_restated_yolo.py."""
    rules = rules_of(kind, iou_thresh=iou_thresh)
    outputs = random_outputs(5)
    expected = yolo.loss(outputs, as_truth(TRUTH), HEAD, rules, SIZE).gradients
    for gradient, exact in zip(gradients_of(outputs, as_truth(TRUTH), rules), expected, strict=True):
        assert np.any(exact[..., :4] != 0)
        np.testing.assert_allclose(gradient, exact, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_finite_for_extreme_predictions(kind):
    """Perfect, empty and huge predictions, and a truth without width: neither value nor gradient is NaN."""
    outputs = random_outputs(6)
    outputs[0][0, ..., 2:4] = -30
    outputs[0][1, ..., 2:4] = 15
    outputs[1][0] = 0
    outputs[1][1, ..., :] *= 40
    outputs[1][1, ..., 2:4] = np.clip(outputs[1][1, ..., 2:4], -30, 15)
    total, _ = loss_of(outputs, as_truth(TRUTH), rules_of(kind, iou_thresh=0.213))
    assert np.isfinite(total)
    for gradient in gradients_of(outputs, as_truth(TRUTH), rules_of(kind, iou_thresh=0.213)):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_wild_size_anywhere_leaves_loss_and_gradient_finite(kind, case):
    """Cell (0, 0) is where padding rows point: its prediction answers for no truth there, and must not matter."""
    for level, cell, logit in ((0, (0, 0), 100.0), (1, (0, 0), 1e30), (0, (1, 1), 100.0)):
        outputs = random_outputs(6)
        outputs[level][0, *cell, :, 2:4] = logit
        total, parts = loss_of(outputs, as_truth(CASES[case]), rules_of(kind, iou_thresh=0.213))
        if kind == "mse" and logit == 1e30 and case != "none":
            continue  # may be some truth's own prediction: squared, it is infinite
        assert np.isfinite(total) and all(np.isfinite(value) for value in parts.values())
        for gradient in gradients_of(outputs, as_truth(CASES[case]), rules_of(kind, iou_thresh=0.213)):
            assert np.isfinite(gradient).all()
            if case == "none":
                assert not gradient[..., 2:4].any()


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_a_perfect_box_has_no_loss_and_no_gradient(kind):
    level = HEAD.levels[0]
    anchor = HEAD.anchors[level.mask[1]]
    boxes = np.zeros((2, 2, 4), np.float32)
    boxes[:, 0] = 1.5 / 4, 1.5 / 3, anchor[0] / SIZE[1], anchor[1] / SIZE[0]
    truth = (boxes, np.zeros((2, 2), np.int32), np.array([[True, False]] * 2))
    outputs = [np.zeros_like(raw) for raw in random_outputs(0)]
    _, parts = loss_of(outputs, as_truth(truth), rules_of(kind))
    np.testing.assert_allclose([parts["box"], parts["iou"]], [0, 1], atol=1e-6)
    assert np.abs(gradients_of(outputs, as_truth(truth), rules_of(kind))[0][..., :4]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_a_valid_truth_is_not_hidden(kind):
    boxes, labels, valid = (part.copy() for part in TRUTH)
    boxes[0, 0] = np.nan
    total, _ = loss_of(random_outputs(0), as_truth((boxes, labels, valid)), rules_of(kind))
    assert np.isnan(total)


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
def test_batch_is_the_mean_of_its_parts(iou_thresh):
    rules = rules_of("ciou", iou_thresh=iou_thresh)
    outputs, truth = random_outputs(7), as_truth(TRUTH)
    whole, parts = loss_of(outputs, truth, rules)
    halves = [
        loss_of([raw[i : i + 1] for raw in outputs], Truth(*(part[i : i + 1] for part in truth)), rules) for i in (0, 1)
    ]
    np.testing.assert_allclose(whole, np.mean([half[0] for half in halves]), rtol=1e-6)
    for name in [*PARTS, "positives", "ignored"]:
        np.testing.assert_allclose(parts[name], np.mean([half[1][name] for half in halves]), rtol=1e-6)


def test_order_and_padding_of_truths_do_not_matter():
    outputs, rules = random_outputs(8), rules_of("ciou", iou_thresh=0.213)
    expected, _ = loss_of(outputs, as_truth(TRUTH), rules)
    order = np.random.default_rng(1).permutation(8)
    turned = [part[:, order] for part in TRUTH]
    padded = [np.concatenate([part, np.zeros_like(part[:, :5])], axis=1) for part in turned]
    for truth in (turned, padded):
        np.testing.assert_allclose(loss_of(outputs, as_truth(truth), rules)[0], expected, rtol=1e-6)


def test_second_truth_in_a_slot_adds_its_class_and_repeats_nothing():
    """Darknet adds the class of a second object; ports overwrote the first, or counted the slot twice."""
    boxes, labels, valid = (part[:, :2].copy() for part in TRUTH)
    valid[1] = False
    outputs = [np.zeros_like(raw) for raw in random_outputs(0)]
    for second, classes in ((2, {0, 2}), (0, {0})):
        labels[0] = 0, second
        rules = rules_of("iou", label_smoothing=0.0, obj_normalizer=0.0, iou_normalizer=0.0, cls_normalizer=1.0)
        gradient = gradients_of(outputs, as_truth((boxes, labels, valid)), rules)[0]
        slots = np.argwhere(np.any(gradient[..., 5:] != 0, axis=-1))
        assert len(slots) == 1
        expected = [(0.5 - (label in classes)) / 2 for label in range(3)]  # mean over two examples
        np.testing.assert_allclose(gradient[tuple(slots[0])][5:], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mse", "giou", "ciou"])
def test_compiles_with_static_shapes_and_equals_eager(kind):
    rules = rules_of(kind, iou_thresh=0.213)
    truth = as_truth(TRUTH)

    @tf.function(autograph=False, jit_compile=True)
    def step(outputs, truth):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            total, parts = yolo_loss(outputs, truth, HEAD, rules, MOMENT)
        return total, parts, tape.gradient(total, outputs)

    outputs = random_outputs(9)
    total, parts, gradients = step([tf.constant(raw) for raw in outputs], truth)
    expected, expected_parts = loss_of(outputs, truth, rules)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for name, value in expected_parts.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    for one, other in zip(gradients, gradients_of(outputs, truth, rules), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_level_may_have_its_own_loss_and_anchors():
    """Each level alone, with what it has of its own as the head's and the task's, adds up to both together."""
    outputs, truth = [tf.constant(raw) for raw in random_outputs(10)], as_truth(TRUTH)
    own, common = rules_of("ciou", iou_thresh=0.3, obj_normalizer=0.2), rules_of("mse")
    anchors = tuple((1.3 * width, height) for width, height in HEAD.anchors)
    levels = [HEAD.levels[0].model_copy(update={"loss": own, "anchors": anchors}), HEAD.levels[1]]
    together, _ = yolo_loss(outputs, truth, YoloHead(anchors=HEAD.anchors, levels=levels), common, MOMENT)
    first, _ = yolo_loss(outputs[:1], truth, YoloHead(anchors=anchors, levels=HEAD.levels[:1]), own, MOMENT)
    second, _ = yolo_loss(outputs[1:], truth, YoloHead(anchors=HEAD.anchors, levels=HEAD.levels[1:]), common, MOMENT)
    np.testing.assert_allclose(together, first + second, rtol=1e-6)


def test_anchors_are_pixels_of_the_current_input_size():
    outputs, truth, rules = [tf.constant(raw) for raw in random_outputs(11)], as_truth(TRUTH), rules_of("ciou")
    doubled = HEAD.model_copy(update={"anchors": tuple((2 * width, 2 * height) for width, height in HEAD.anchors)})
    larger = MOMENT._replace(input_size=(2 * SIZE[0], 2 * SIZE[1]))
    expected, _ = yolo_loss(outputs, truth, HEAD, rules, MOMENT)
    np.testing.assert_allclose(yolo_loss(outputs, truth, doubled, rules, larger)[0], expected, rtol=1e-6)
    assert yolo_loss(outputs, truth, HEAD, rules, larger)[0] != expected
