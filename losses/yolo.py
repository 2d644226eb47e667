"""The [yolo] loss: boxes and classes of the positive slots, objectness of everything that is not ignored.

It comes with one of two gradients. `darknet`: the original's, written by hand (losses/yolo_darknet.py). `true`, here:
the automatic derivative of the loss that is stated and printed. `true` deviates from Darknet (yolo_layer.c
delta_yolo_box, delta_yolo_class; box.c dx_box_iou) so:
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

from configs.yolo_heads import YoloHead, YoloLevel
from configs.yolo_losses import YoloLoss
from losses.darknet import HeadLoss, darknet_loss
from losses.truth import Truth, check_truth
from losses.yolo_assignment import Targets, assign
from losses.yolo_darknet import yolo_level
from modeling.heads.yolo import DecodedLevel, check_levels, decode_level, relative_anchors
from official.core.errors import UserError
from official.core.task import Moment
from official.vision import boxes as box_ops

IOU_KINDS = {"iou": box_ops.iou, "giou": box_ops.giou, "diou": box_ops.diou, "ciou": box_ops.ciou}
SMALLEST_PROBABILITY = 1e-7  # where a logarithm is taken of what is no logit
Scalar = Float32[tf.Tensor, ""]


def yolo_loss(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: YoloHead,
    loss: YoloLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Mean over the examples of the batch: with `true`, of the sum over levels, cells, anchors and truths.

    outputs: raw outputs of each level, in the order of head.levels; computed with in float32. With `darknet` the value
    is Darknet's cost and the gradient its own, see `losses.darknet.darknet_loss`. moment: its input_size is read.
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
        _true_level(tf.cast(raw, tf.float32), truth, head, level, level.loss or loss, moment.input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]
    batch = outputs[0].shape[0]
    means = {name: tf.add_n([level[name] for level in levels]) / batch for name in levels[0]}
    means["iou"] = tf.math.divide_no_nan(means["iou"], means["matches"])
    del means["matches"]
    return means["box"] + means["objectness"] + means["class"], means


def yolo_heads(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: YoloHead,
    loss: YoloLoss,
    moment: Moment,
) -> list[HeadLoss]:
    """Darknet's cost, delta and targets of each level. The rest as in `yolo_loss`; loss.gradient is not read."""
    check_levels(outputs, len(head.levels))
    check_truth(truth, outputs[0].shape[0])
    return [
        yolo_level(tf.cast(raw, tf.float32), truth, head, level, level.loss or loss, moment.input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]


def _true_level(
    raw: tf.Tensor, truth: Truth, head: YoloHead, level: YoloLevel, loss: YoloLoss, input_size: tuple[int, int]
) -> dict[str, Scalar]:
    """Losses and diagnostics of one level, summed over the batch."""
    decoded = decode_level(raw, head.anchors_of(level), level, input_size)
    targets = assign(decoded, truth, head.table(level), level.mask, input_size, loss)
    # Where a truth asks nothing of an anchor, its own box stands in: a wild prediction times a share of 0 is NaN.
    predicted = tf.gather_nd(decoded.boxes, targets.cells, batch_dims=1)  # [batch, truths, anchors, 4]
    predicted = tf.where(targets.positive[..., tf.newaxis], predicted, targets.boxes[:, :, tf.newaxis])
    anchors = relative_anchors(head.anchors_of(level), input_size)
    box = _box_loss(raw, predicted, targets, anchors, level, loss.iou_loss)
    objectness, classes = _probability_losses(raw, decoded, targets, level, loss)
    return {
        "box": loss.iou_normalizer * tf.reduce_sum(box * targets.share),
        "objectness": loss.obj_normalizer * tf.reduce_sum(tf.where(targets.ignored, 0.0, objectness)),
        "class": loss.cls_normalizer * tf.reduce_sum(tf.where(targets.object[..., tf.newaxis], classes, 0.0)),
    } | _diagnostics(predicted, targets)


def _probability_losses(
    raw: tf.Tensor, decoded: DecodedLevel, targets: Targets, level: YoloLevel, loss: YoloLoss
) -> tuple[tf.Tensor, tf.Tensor]:
    """Binary cross-entropies of objectness [batch, rows, columns, anchors] and of classes [..., classes]."""
    is_object = tf.cast(targets.object, tf.float32)
    smooth = targets.classes * (1 - loss.label_smoothing) + loss.label_smoothing / 2
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
    raw: tf.Tensor, predicted: tf.Tensor, targets: Targets, anchors: tf.Tensor, level: YoloLevel, kind: str
) -> tf.Tensor:
    """The loss of each truth's box against each anchor of its cell, [batch, truths, anchors].

    predicted: as made above; anchors: [anchors, 2] relative sizes.
    """
    true = targets.boxes[:, :, tf.newaxis]  # [batch, truths, 1, 4]
    if kind != "mse":
        return 1 - IOU_KINDS[kind](predicted, true)
    raw_sizes = tf.gather_nd(raw[..., 2:4], targets.cells, batch_dims=1)
    factors = tf.maximum(true[..., 2:], box_ops.MIN_SIDE) / anchors
    true_raw_sizes = tf.sqrt(factors / 4) if level.new_coords else tf.math.log(factors)
    rows, columns = raw.shape[1:3]
    grid = tf.constant([columns, rows], tf.float32)  # offsets are in cells
    errors = tf.concat([(predicted[..., :2] - true[..., :2]) * grid, raw_sizes - true_raw_sizes], axis=-1)
    errors = tf.where(targets.positive[..., tf.newaxis], errors, 0.0)  # [batch, truths, anchors, 4]
    small_counts_more = 2 - true[..., 2] * true[..., 3]  # [batch, truths, 1]
    return small_counts_more * tf.reduce_sum(tf.square(errors), axis=-1) / 2


def _diagnostics(predicted: tf.Tensor, targets: Targets) -> dict[str, Scalar]:
    overlap = box_ops.iou(tf.stop_gradient(predicted), targets.boxes[:, :, tf.newaxis])  # [batch, truths, anchors]
    return {
        "iou": tf.reduce_sum(tf.where(targets.positive, overlap, 0.0)),
        "matches": tf.reduce_sum(tf.cast(targets.positive, tf.float32)),
        "positives": tf.reduce_sum(tf.cast(targets.object, tf.float32)),
        "ignored": tf.reduce_sum(tf.cast(targets.ignored, tf.float32)),
    }
