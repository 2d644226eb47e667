"""Assignment and gradient of `autodiff` against what Darknet itself computed (recorded traces; see their README).

`darknet` semantics are compared in test_darknet_traces.py.
"""

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import YoloHead, YoloLevel
from configs.yolo.losses import YoloLoss
from losses.yolo.assignment import Targets, assign
from losses.yolo.autodiff import yolo_loss
from modeling.yolo.heads.yolo import DecodedLevel, decode_level, relative_anchors
from tests.losses.yolo.traces import Case, as_raw, load

# The recorded cases whose assignment is the one of both gradients (the other: truth_thresh).
IGNORING = [
    *("mse_v3", "mse_v3_iounorm1", "mse_v3_show_details0", "mse_multianchor", "mse_new_coords"),
    *("iou_plain", "giou_plain", "diou_plain", "ciou_plain", "ciou_v4", "ciou_v4tiny", "ciou_v4_heads_differ_scale"),
    *("ciou_max_delta_small", "ciou_focal", "ciou_counters_per_class", "ciou_label_smooth"),
    *("ciou_iou_thresh_kind_giou", "ciou_iou_thresh_kind_diou", "ciou_iou_thresh_kind_ciou"),
]
SMOOTH_OBJECTNESS = ["ciou_objectness_smooth", "ciou_csp_new_coords"]  # ignored slots get a target of their own
EXACT_OBJECTNESS_AND_CLASSES = [
    name for name in IGNORING if name not in ("mse_new_coords", "ciou_focal", "ciou_counters_per_class")
]
EXACT_BOXES = ["mse_v3", "mse_v3_iounorm1", "mse_v3_show_details0", "mse_multianchor", "iou_plain", "giou_plain"]


def autodiff_rules(case: Case) -> YoloLoss:
    names = ("iou_loss", "iou_normalizer", "obj_normalizer", "ignore_thresh", "iou_thresh", "iou_thresh_kind")
    return YoloLoss(label_smoothing=case.loss.label_smoothing, **{name: getattr(case.loss, name) for name in names})


def without_losses(head: YoloHead) -> YoloHead:
    return head.model_copy(update={"levels": tuple(level.model_copy(update={"loss": None}) for level in head.levels)})


def decoded_by_darknet(output: np.ndarray, anchors, level: YoloLevel, size) -> DecodedLevel:
    """From what Darknet's [yolo] layer put out: offsets after the sigmoid and scale, sizes raw."""
    rows, columns = output.shape[1:3]
    x = (output[..., 0] + np.arange(columns)[:, None]) / columns
    y = (output[..., 1] + np.arange(rows)[:, None, None]) / rows
    factor = 4 * output[..., 2:4] ** 2 if level.new_coords else np.exp(output[..., 2:4])
    boxes = np.concatenate([np.stack([x, y], axis=-1), factor * np.array(anchors) / np.array(size[::-1])], axis=-1)
    parts = (boxes, output[..., 4], output[..., 5:], output[..., :2])
    return DecodedLevel(*(tf.constant(part, tf.float32) for part in parts))


def darknets_outputs(case: Case) -> list[np.ndarray]:
    return [as_raw(values, layer) for values, layer in zip(case.recorded("output"), case.network.heads, strict=True)]


def class_targets(targets: Targets, delta: np.ndarray) -> np.ndarray:
    """Whether a truth of each class claims each slot, [batch, rows, columns, anchors, classes]."""
    found = np.zeros(delta[..., 5:].shape, bool)
    claims = targets.claims
    images, truths, anchors = np.nonzero(claims.claimed)
    slots = np.unravel_index(claims.slot.numpy()[images, truths, anchors], found.shape[:4])
    found[(*slots, claims.truth.classes.numpy()[images, truths])] = True
    return found


@pytest.mark.parametrize("name", IGNORING + SMOOTH_OBJECTNESS)
def test_assignment(golden, name):
    case = load(golden, name)
    head, rules, size = case.head, autodiff_rules(case), case.moment.input_size
    ignored = 0
    for level, output, delta in zip(head.levels, darknets_outputs(case), case.deltas(), strict=True):
        predicted = decoded_by_darknet(output, head.anchors_of(level), level, size)
        table = relative_anchors(head.table(level), size)
        targets = assign(predicted.boxes, predicted.class_probabilities, case.truth, table, level.mask, rules)
        assert targets.object.numpy().any()
        np.testing.assert_array_equal(targets.object, np.any(delta[..., 5:] != 0, axis=-1))
        # Only a class that is there is pulled up, beyond what label smoothing gives to all.
        np.testing.assert_array_equal(class_targets(targets, delta), delta[..., 5:] > rules.label_smoothing / 2)
        if name not in SMOOTH_OBJECTNESS:
            np.testing.assert_array_equal(targets.object, delta[..., 4] > 0)
            np.testing.assert_array_equal(targets.ignored, delta[..., 4] == 0)
            ignored += np.count_nonzero(targets.ignored)
    assert ignored > 0 or name in SMOOTH_OBJECTNESS


def gradients(case: Case) -> list[np.ndarray]:
    """Of the sum over the batch, by level."""
    with tf.GradientTape() as tape:
        tape.watch(case.outputs)
        total, _ = yolo_loss(case.outputs, case.truth, without_losses(case.head), autodiff_rules(case), case.moment)
    return [len(case.arrays["truth"]) * gradient.numpy() for gradient in tape.gradient(total, case.outputs)]


@pytest.mark.parametrize("name", EXACT_OBJECTNESS_AND_CLASSES)
def test_gradient_of_objectness_and_classes_is_darknets(golden, name):
    case = load(golden, name)
    for gradient, delta in zip(gradients(case), case.deltas(), strict=True):
        np.testing.assert_allclose(gradient[..., 4:], -delta[..., 4:], atol=2e-6)


@pytest.mark.parametrize("name", EXACT_BOXES)
def test_gradient_of_boxes_is_darknets_with_the_chain_rule_completed(golden, name):
    """`autodiff` against Darknet, where Darknet's own derivative is right but for the factors it leaves out."""
    case = load(golden, name)
    for raw, gradient, delta, level in zip(case.outputs, gradients(case), case.deltas(), case.head.levels, strict=True):
        _, rows, columns = raw.shape[:3]
        probability = tf.sigmoid(raw[..., :2]).numpy()
        slope = probability * (1 - probability) * level.scale_x_y
        expected = -delta[..., :4]
        if case.loss.iou_loss == "mse":
            expected[..., :2] *= slope
        else:
            expected[..., :2] *= slope / np.array([columns, rows])
            relative = np.array(case.head.anchors_of(level)) / np.array(case.moment.input_size[::-1])
            expected[..., 2:4] *= relative / 2
        assert np.any(expected != 0)
        np.testing.assert_allclose(gradient[..., :4], expected, rtol=1e-4, atol=3e-6)


def test_gradient_with_new_coords_is_darknets_with_the_chain_rule_completed(golden):
    """Darknet takes the difference for the gradient by the probability; sizes have its gradient as they are."""
    case = load(golden, "mse_new_coords")
    for raw, gradient, delta, level in zip(case.outputs, gradients(case), case.deltas(), case.head.levels, strict=True):
        probability = raw.numpy()[..., 4:]
        expected = -delta.copy()
        expected[..., :2] *= level.scale_x_y
        expected[..., 4:] /= probability * (1 - probability)
        assert np.any(expected[..., :4] != 0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mse_v3", "ciou_v4tiny", "ciou_v4_heads_differ_scale", "ciou_csp_new_coords"])
def test_decoding_is_darknets(golden, name):
    case = load(golden, name)
    size = case.moment.input_size
    for raw, output, level in zip(case.outputs, darknets_outputs(case), case.head.levels, strict=True):
        decoded = decode_level(raw, case.head.anchors_of(level), level, size)
        expected = decoded_by_darknet(output, case.head.anchors_of(level), level, size)
        for one, other in zip(decoded, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
