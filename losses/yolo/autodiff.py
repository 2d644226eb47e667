"""The [yolo] loss: boxes and classes of the positive slots, objectness of everything that is not ignored.

It comes with one of two gradients. `darknet`: the original's, written by hand (darknet/yolo.py). `autodiff`,
here: the automatic derivative of the loss that is stated and printed. Both have the same targets
(losses/yolo/assignment.py). `autodiff` deviates from Darknet (yolo_layer.c delta_yolo_box, delta_yolo_class; box.c
dx_box_iou) so:
- IoU kinds: here the chain rule is followed through sigmoid, scale_x_y, grid, exp and anchor. Darknet leaves those of
  x and y out, takes twice the derivative by width and height without the anchor, and has a sign slip in DIoU and CIoU.
- mse: here x and y are followed through sigmoid and scale_x_y. Darknet's difference is taken for the logit's gradient.
- new_coords: here objectness and classes are followed through the sigmoid; Darknet's difference then passes the sigmoid
  of the convolution once more.
- CIoU's aspect term keeps its 1 / (w^2 + h^2). Nothing is clipped (max_delta), no NaN is set to zero.
- cls_normalizer scales the class loss. Darknet ignores it unless it counts objects per class.
- With iou_thresh < 1 a slot's box loss is the mean over its truths. Darknet divides by its number of distinct classes.
- The loss is the sum over levels. Darknet prints their mean, and sums of squared gradients for mse.
Objectness, classes (cls_normalizer 1), and mse's width and height have Darknet's gradients exactly without new_coords.
"""

from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Float, Float32

from configs.yolo.heads import YoloHead, YoloLevel
from configs.yolo.losses import YoloLoss
from losses.truth import Truth
from losses.yolo.assignment import Claims, Targets, assign, at_claims, diagnostics_of, into_slots
from losses.yolo.darknet.head_loss import darknet_loss
from losses.yolo.darknet.yolo import yolo_heads
from losses.yolo.truth import check_truth
from modeling.yolo.heads.yolo import DecodedLevel, check_levels, decode_level, relative_anchors
from official.core.errors import UserError
from official.core.task import Moment
from official.vision import boxes

# The papers' forms, whose derivatives are finite for every pair. Those of losses/yolo/darknet/iou.py, which rounds as
# Darknet does, are not: DIoU's root of a distance of 0, and CIoU's quotient by a height of 0.
IOU_KINDS = {"iou": boxes.iou, "giou": boxes.giou, "diou": boxes.diou, "ciou": boxes.ciou}
SMALLEST_PROBABILITY = 1e-7  # where a logarithm is taken of what is no logit
Scalar = Float32[tf.Tensor, ""]


def yolo_loss(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: YoloHead,
    loss: YoloLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Mean over the examples of the batch: with `autodiff`, of the sum over levels, cells, anchors and truths.

    outputs: raw outputs of each level, in the order of head.levels; computed with in float32. With `darknet` the value
    is Darknet's cost and the gradient its own: `darknet_loss` in darknet/head_loss.py. moment: its input_size is read.
    Beside the three parts of the loss (weighted: they add up to it), per example: the number of positive and of ignored
    predictions; and the mean IoU of the positives of this batch with their truths (0 if there are none).
    """
    own = {level.loss.gradient for level in head.levels if level.loss}
    if own - {loss.gradient}:
        raise UserError(
            f"gradient: {', '.join(own)} in the loss of a level, {loss.gradient} in the task's; expected one"
        )
    if loss.gradient == "darknet":
        return darknet_loss(outputs, yolo_heads(outputs, truth, head, loss, moment))
    check_levels(outputs, len(head.levels))
    check_truth(truth, outputs[0].shape[0])
    levels = [
        _level(tf.cast(raw, tf.float32), truth, head, level, level.loss or loss, moment.input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]
    batch = outputs[0].shape[0]
    means = {name: tf.add_n([level[name] for level in levels]) / batch for name in levels[0]}
    means["iou"] = tf.math.divide_no_nan(means["iou"], means["matches"])
    del means["matches"]
    return means["box"] + means["objectness"] + means["class"], means


def _level(
    raw: tf.Tensor, truth: Truth, head: YoloHead, level: YoloLevel, loss: YoloLoss, input_size: tuple[int, int]
) -> dict[str, Scalar]:
    """Losses and diagnostics of one level, summed over the batch."""
    decoded = decode_level(raw, head.anchors_of(level), level, input_size)
    table = relative_anchors(head.table(level), input_size)
    targets = assign(decoded.boxes, decoded.class_probabilities, truth, table, level.mask, loss)
    box = _box_loss(raw, decoded, targets.claims, tf.gather(table, level.mask), level, loss.iou_loss)
    box = into_slots(box, targets.claims, targets.object.shape)
    if loss.iou_thresh < 1:  # as Darknet: the sum, unless several anchors may match
        ones = tf.ones_like(targets.claims.slot, tf.float32)
        box = tf.math.divide_no_nan(box, into_slots(ones, targets.claims, targets.object.shape))
    objectness, classes = _probability_losses(raw, decoded, targets, level, loss)
    return {
        "box": loss.iou_normalizer * tf.reduce_sum(box),
        "objectness": loss.obj_normalizer * tf.reduce_sum(tf.where(targets.ignored, 0.0, objectness)),
        "class": loss.cls_normalizer * tf.reduce_sum(tf.where(targets.object[..., tf.newaxis], classes, 0.0)),
    } | diagnostics_of(targets, decoded.boxes)


def _probability_losses(
    raw: tf.Tensor, decoded: DecodedLevel, targets: Targets, level: YoloLevel, loss: YoloLoss
) -> tuple[tf.Tensor, tf.Tensor]:
    """Binary cross-entropies of objectness [batch, rows, columns, anchors] and of classes [..., classes]."""
    claims, shape, is_object = targets.claims, decoded.class_probabilities.shape, tf.cast(targets.object, tf.float32)
    # Every truth in a slot adds its class.
    labels = claims.slot * shape[-1] + claims.truth.classes[..., tf.newaxis]  # [batch, truths, anchors]
    votes = tf.math.unsorted_segment_sum(tf.cast(claims.claimed, tf.float32), labels, shape.num_elements())
    class_targets = tf.reshape(tf.minimum(votes, 1.0), shape)
    smooth = class_targets * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    if level.new_coords:
        return _cross_entropy(is_object, decoded.objectness), _cross_entropy(smooth, decoded.class_probabilities)
    from_logits = tf.nn.sigmoid_cross_entropy_with_logits
    return from_logits(is_object, raw[..., 4]), from_logits(smooth, raw[..., 5:])


def _cross_entropy(target: tf.Tensor, probability: tf.Tensor) -> tf.Tensor:
    """Of probabilities 0..1 as they are: their sigmoid belongs to the network."""
    other = tf.maximum(1 - probability, SMALLEST_PROBABILITY)
    probability = tf.maximum(probability, SMALLEST_PROBABILITY)
    return -target * tf.math.log(probability) - (1 - target) * tf.math.log(other)


def _box_loss(
    raw: tf.Tensor, decoded: DecodedLevel, claims: Claims, anchors: tf.Tensor, level: YoloLevel, kind: str
) -> tf.Tensor:
    """The loss of each truth's box in each slot that it claims, [batch, truths, anchors]. anchors: relative sizes."""
    true, claimed = claims.truth.boxes[:, :, tf.newaxis], claims.claimed[..., tf.newaxis]  # [batch, truths, 1, 4]
    # Where a truth asks nothing of an anchor, its own box stands in: a wild prediction there must not become NaN.
    predicted = tf.where(claimed, at_claims(decoded.boxes, claims), true)  # [batch, truths, anchors, 4]
    if kind != "mse":
        return 1 - IOU_KINDS[kind](predicted, true)
    factors = tf.maximum(true[..., 2:], boxes.MIN_SIDE) / anchors
    true_raw_sizes = tf.sqrt(factors / 4) if level.new_coords else tf.math.log(factors)
    rows, columns = raw.shape[1:3]
    grid = tf.constant([columns, rows], tf.float32)  # offsets are in cells
    size_errors = at_claims(raw[..., 2:4], claims) - true_raw_sizes
    errors = tf.concat([(predicted[..., :2] - true[..., :2]) * grid, size_errors], axis=-1)
    errors = tf.where(claimed, errors, 0.0)  # [batch, truths, anchors, 4]
    small_counts_more = 2 - true[..., 2] * true[..., 3]  # [batch, truths, 1]
    return small_counts_more * tf.reduce_sum(tf.square(errors), axis=-1) / 2
