"""The [yolo] loss as Darknet computes it: a gradient written by hand and a cost beside it (yolo_layer.c)."""

import tensorflow as tf
from jaxtyping import Float32

from configs.yolo_heads import YoloHead, YoloLevel
from configs.yolo_losses import GaussianYoloLoss, YoloLoss
from losses import darknet_boxes
from losses.darknet import HeadLoss, Scalar, added_in_turn, squares
from losses.darknet_boxes import A, B
from losses.darknet_passes import Delta, Predictions, Section, Targets, averaged, delta_of
from losses.darknet_slots import at_claims, claim
from losses.truth import Truth
from modeling.heads.yolo import decode_level, relative_anchors, size_factors


def yolo_level(
    raw: Float32[tf.Tensor, "batch rows columns anchors channels"],
    truth: Truth,
    head: YoloHead,
    level: YoloLevel,
    rules: YoloLoss,
    input_size: tuple[int, int],
) -> HeadLoss:
    """Cost, delta and targets of one level of `head`. raw: its raw outputs; input_size: (height, width) in pixels."""
    raw = tf.stop_gradient(raw)  # the gradient is what follows, not its derivative
    decoded = decode_level(raw, head.anchors_of(level), level, input_size)
    entries = tf.concat([decoded.offsets, raw[..., 2:4]], axis=-1)
    predicted = Predictions(entries, decoded.boxes, decoded.objectness[..., tf.newaxis], decoded.class_probabilities)
    rows, columns, _, channels = raw.shape[1:]
    table = relative_anchors(head.table(level), input_size)
    claims = claim(truth, channels - 5, (rows, columns), table, level.mask, rules)
    anchors = tf.gather(table, level.mask)  # [anchors, 2]

    def of_box(predicted: Predictions, corner: tf.Tensor, true: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        if rules.iou_loss == "mse":
            aims = squared_error_aims(true, corner, anchors, (rows, columns), level.new_coords)
            return small_counts_more(true) * (aims - predicted.entries) * (rules.iou_normalizer * weight)
        slopes = iou_slopes(predicted.boxes, true, rules.iou_loss)
        if not level.new_coords:
            sizes = size_factors(predicted.entries[..., 2:])
            slopes *= tf.concat([tf.ones_like(sizes), sizes], axis=-1)
        return bounded(slopes * (rules.iou_normalizer * weight), predicted.entries, true, rules)

    delta, targets = delta_of(predicted, claims, rules, Section(of_box, _is_set))
    if rules.iou_thresh < 1:
        delta = averaged(delta, delta.objectness != 0)
    cost, parts = _cost(delta, targets, predicted.boxes, rules)
    return HeadLoss(cost, parts, _whole(delta), targets, diagnostics_of(targets, predicted.boxes))


def _whole(delta: Delta) -> tf.Tensor:
    return tf.concat(list(delta), axis=-1)  # [batch, rows, columns, anchors, 5 + classes]


def _is_set(delta: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(own & (delta != 0), axis=-1, keepdims=True)


def squared_error_aims(
    true: Float32[tf.Tensor, "*truths 4"],
    corner: Float32[tf.Tensor, "*cells 2"],
    anchors: Float32[tf.Tensor, "anchors 2"],
    grid: tuple[int, int],
    new_coords: bool,
) -> Float32[tf.Tensor, "*slots 4"]:
    """What x, y, width and height [..., 4] should be: in cells from the cell's corner (column, row), and raw.

    true: cxcywh boxes; anchors: relative (width, height); grid: (rows, columns).
    """
    offsets = true[..., :2] * tf.constant(grid[::-1], tf.float32) - corner
    factors = true[..., 2:] / anchors
    sizes = tf.sqrt(factors / 4) if new_coords else tf.math.log(factors)
    # The offset belongs to a cell, the size to an anchor in it.
    shape = tf.broadcast_static_shape(offsets.shape, sizes.shape)
    return tf.concat([tf.broadcast_to(offsets, shape), sizes], axis=-1)


def small_counts_more(true: Float32[tf.Tensor, "*truths 4"]) -> Float32[tf.Tensor, "*truths 1"]:
    """2 minus the area of cxcywh boxes."""
    return (2 - true[..., 2] * true[..., 3])[..., tf.newaxis]


def iou_slopes(predicted: A, true: B, kind: str) -> Float32[tf.Tensor, "*pairs 4"]:
    """`iou_gradient` (cxcywh), with 1 for a predicted side of 0."""
    sizes = predicted[..., 2:]
    safe = tf.concat([predicted[..., :2], tf.where(sizes == 0, 1.0, sizes)], axis=-1)
    return darknet_boxes.iou_gradient(safe, true, kind)


def bounded(
    delta: Float32[tf.Tensor, "*slots entries"],
    predicted: Float32[tf.Tensor, "*slots entries"],
    true: Float32[tf.Tensor, "*truths 4"],
    rules: YoloLoss | GaussianYoloLoss,
) -> Float32[tf.Tensor, "*slots entries"]:
    """Of the entries, [..., _]: 0 for what is not finite, and at most max_delta.

    What was not finite before, in the prediction or the truth, stays so (Darknet: 0, unless built to ignore NaN).
    """
    source = tf.reduce_sum(predicted, axis=-1, keepdims=True) + tf.reduce_sum(true, axis=-1, keepdims=True)
    delta = tf.where(tf.math.is_finite(delta), delta, 0 * source)
    return delta if rules.max_delta is None else tf.clip_by_value(delta, -rules.max_delta, rules.max_delta)


def _cost(delta: Delta, targets: Targets, boxes: tf.Tensor, rules: YoloLoss) -> tuple[Scalar, dict[str, Scalar]]:
    """(cost, its parts), as in HeadLoss."""
    objectness, classes = squares(delta.objectness), squares(delta.classes)
    if rules.iou_loss == "mse" or not rules.show_details:
        parts = {"box": squares(delta.entries), "objectness": objectness, "class": classes}
        return added_in_turn(_whole(delta)), parts
    claims = targets.claims
    kind = darknet_boxes.giou if rules.iou_loss == "giou" else darknet_boxes.iou
    missing = 1 - kind(at_claims(boxes, claims), claims.truth.boxes[:, :, tf.newaxis])  # [batch, truths, anchors]
    missing = tf.reduce_sum(tf.where(claims.claimed, missing, 0.0))
    box = rules.iou_normalizer * tf.math.divide_no_nan(missing, tf.reduce_sum(tf.cast(claims.claimed, tf.float32)))
    without_box = added_in_turn(_whole(delta._replace(entries=tf.zeros_like(delta.entries))))
    parts = {"box": box, "objectness": rules.obj_normalizer * objectness, "class": rules.obj_normalizer * classes}
    return box + rules.obj_normalizer * without_box, parts


def diagnostics_of(targets: Targets, boxes: Float32[tf.Tensor, "batch rows columns anchors 4"]) -> dict[str, Scalar]:
    """Sums, as in HeadLoss. boxes: predicted, cxcywh."""
    claims = targets.claims
    overlap = darknet_boxes.iou(at_claims(boxes, claims), claims.truth.boxes[:, :, tf.newaxis])
    return {
        "iou": tf.reduce_sum(tf.where(claims.claimed, overlap, 0.0)),
        "matches": tf.reduce_sum(tf.cast(claims.claimed, tf.float32)),
        "positives": tf.reduce_sum(tf.cast(targets.object, tf.float32)),
        "ignored": tf.reduce_sum(tf.cast(targets.ignored, tf.float32)),
    }
