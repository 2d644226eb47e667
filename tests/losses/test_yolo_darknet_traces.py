"""Assignment and gradient against what Darknet itself computed (recorded traces; see their README)."""

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo import YoloHead, YoloLevel, YoloLoss
from losses.yolo import yolo_loss
from losses.yolo_assignment import Truth, assign
from modeling.heads.yolo import DecodedLevel, decode_level

LAYERS = [("L004", "L003"), ("L009", "L008")]  # the head, and the convolution before it
CLASSES = 4
SIZE = (48, 64)

# The recorded cases whose assignment is the one implemented here (the others: iou_thresh_kind, truth_thresh).
IGNORING = [
    *("mse_v3", "mse_v3_iounorm1", "mse_v3_show_details0", "mse_multianchor", "mse_new_coords"),
    *("iou_plain", "giou_plain", "diou_plain", "ciou_plain", "ciou_v4", "ciou_v4tiny", "ciou_v4_heads_differ_scale"),
    *("ciou_max_delta_small", "ciou_focal", "ciou_counters_per_class", "ciou_label_smooth"),
]
SMOOTH_OBJECTNESS = ["ciou_objectness_smooth", "ciou_csp_new_coords"]  # ignored slots get a target of their own
EXACT_OBJECTNESS_AND_CLASSES = [
    name for name in IGNORING if name not in ("mse_new_coords", "ciou_focal", "ciou_counters_per_class")
]
EXACT_BOXES = ["mse_v3", "mse_v3_iounorm1", "mse_v3_show_details0", "mse_multianchor", "iou_plain", "giou_plain"]


def load(golden, name: str):
    """(trace, options of each [yolo] section)."""
    trace = np.load(golden(f"loss/{name}.npz"))
    sections = str(trace["meta/cfg"]).split("[yolo]")[1:]
    lines = [[line.split("=", 1) for line in section.split("[")[0].splitlines() if "=" in line] for section in sections]
    return trace, [{key.strip(): value.strip() for key, value in section} for section in lines]


def configs_of(options: list[dict]) -> tuple[YoloHead, YoloLoss]:
    numbers = [float(value) for value in options[0]["anchors"].split(",")]
    levels = tuple(
        YoloLevel(mask=tuple(map(int, o["mask"].split(","))), scale_x_y=float(o.get("scale_x_y", 1))) for o in options
    )
    head = YoloHead(anchors=tuple(zip(numbers[::2], numbers[1::2], strict=True)), levels=levels)
    first = options[0]
    rules = YoloLoss(
        iou_loss=first.get("iou_loss", "mse"),
        iou_normalizer=float(first.get("iou_normalizer", 0.75)),
        obj_normalizer=float(first.get("obj_normalizer", 1)),
        ignore_thresh=float(first["ignore_thresh"]),
        iou_thresh=float(first.get("iou_thresh", 1)),
        label_smoothing=float(first.get("label_smooth_eps", 0)),
    )
    return head, rules


def channels_last(values: np.ndarray) -> np.ndarray:
    """[batch, anchors * (5 + classes), rows, columns] to [batch, rows, columns, anchors, 5 + classes]."""
    batch, _, rows, columns = values.shape
    return values.reshape(batch, -1, 5 + CLASSES, rows, columns).transpose(0, 3, 4, 1, 2)


def truth_of(trace) -> Truth:
    rows = trace["truth"]
    valid = np.cumprod(rows[..., 0] != 0, axis=1).astype(bool)
    return Truth(tf.constant(rows[..., :4]), tf.constant(rows[..., 4], tf.int32), tf.constant(valid))


def decoded_by_darknet(output: np.ndarray, anchors, new_coords: bool) -> DecodedLevel:
    """From what Darknet's [yolo] layer put out: offsets after the sigmoid and scale, sizes raw."""
    rows, columns = output.shape[1:3]
    x = (output[..., 0] + np.arange(columns)[:, None]) / columns
    y = (output[..., 1] + np.arange(rows)[:, None, None]) / rows
    factor = 4 * output[..., 2:4] ** 2 if new_coords else np.exp(output[..., 2:4])
    size = factor * np.array(anchors) / np.array(SIZE[::-1])
    boxes = np.concatenate([np.stack([x, y], axis=-1), size], axis=-1)
    return DecodedLevel(*(tf.constant(part, tf.float32) for part in (boxes, output[..., 4], output[..., 5:])))


@pytest.mark.parametrize("name", IGNORING + SMOOTH_OBJECTNESS)
def test_assignment(golden, name):
    trace, options = load(golden, name)
    head, rules = configs_of(options)
    ignored = 0
    for (layer, _), level, option in zip(LAYERS, head.levels, options, strict=True):
        anchors = [head.anchors[index] for index in level.mask]
        output = channels_last(trace[f"train/{layer}_output"])
        predicted = decoded_by_darknet(output, anchors, option.get("new_coords") == "1")
        targets = assign(predicted, truth_of(trace), head.anchors, level.mask, SIZE, rules)
        delta = channels_last(trace[f"train/{layer}_loss_delta"])
        assert targets.object.numpy().any()
        np.testing.assert_array_equal(targets.object, np.any(delta[..., 5:] != 0, axis=-1))
        # Only a class that is there is pulled up, beyond what label smoothing gives to all.
        np.testing.assert_array_equal(targets.classes, delta[..., 5:] > rules.label_smoothing / 2)
        if name not in SMOOTH_OBJECTNESS:
            np.testing.assert_array_equal(targets.object, delta[..., 4] > 0)
            np.testing.assert_array_equal(targets.ignored, delta[..., 4] == 0)
            ignored += np.count_nonzero(targets.ignored)
    assert ignored > 0 or name in SMOOTH_OBJECTNESS


def gradients_and_deltas(golden, name):
    """(head, loss config, raw outputs, our gradients of the sum over the batch, Darknet's deltas), lists by level."""
    trace, options = load(golden, name)
    head, rules = configs_of(options)
    outputs = [tf.constant(channels_last(trace[f"train/{before}_output"])) for _, before in LAYERS]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total, _ = yolo_loss(outputs, truth_of(trace), head, rules, SIZE)
    gradients = [len(trace["truth"]) * gradient.numpy() for gradient in tape.gradient(total, outputs)]
    deltas = [channels_last(trace[f"train/{layer}_loss_delta"]) for layer, _ in LAYERS]
    return head, rules, outputs, gradients, deltas


@pytest.mark.parametrize("name", EXACT_OBJECTNESS_AND_CLASSES)
def test_gradient_of_objectness_and_classes_is_darknets(golden, name):
    _, _, _, gradients, deltas = gradients_and_deltas(golden, name)
    for gradient, delta in zip(gradients, deltas, strict=True):
        np.testing.assert_allclose(gradient[..., 4:], -delta[..., 4:], atol=2e-6)


@pytest.mark.parametrize("name", EXACT_BOXES)
def test_gradient_of_boxes_is_darknets_with_the_chain_rule_completed(golden, name):
    """`true` against Darknet, where Darknet's own derivative is right but for the factors it leaves out."""
    head, rules, outputs, gradients, deltas = gradients_and_deltas(golden, name)
    for raw, gradient, delta, level in zip(outputs, gradients, deltas, head.levels, strict=True):
        _, rows, columns = raw.shape[:3]
        probability = tf.sigmoid(raw[..., :2]).numpy()
        slope = probability * (1 - probability) * level.scale_x_y
        expected = -delta[..., :4]
        if rules.iou_loss == "mse":
            expected[..., :2] *= slope
        else:
            expected[..., :2] *= slope / np.array([columns, rows])
            relative = np.array([head.anchors[index] for index in level.mask]) / np.array(SIZE[::-1])
            expected[..., 2:4] *= relative / 2
        assert np.any(expected != 0)
        np.testing.assert_allclose(gradient[..., :4], expected, rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("name", ["mse_v3", "ciou_v4tiny", "ciou_v4_heads_differ_scale"])
def test_decoding_is_darknets(golden, name):
    trace, options = load(golden, name)
    head, _ = configs_of(options)
    for (layer, before), level in zip(LAYERS, head.levels, strict=True):
        anchors = [head.anchors[index] for index in level.mask]
        raw = tf.constant(channels_last(trace[f"train/{before}_output"]))
        decoded = decode_level(raw, anchors, level.scale_x_y, SIZE)
        expected = decoded_by_darknet(channels_last(trace[f"train/{layer}_output"]), anchors, new_coords=False)
        for one, other in zip(decoded, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
