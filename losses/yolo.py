"""The YOLO loss: boxes and classes of the positive slots, objectness of everything that is not ignored.

`true` semantics: the gradient is the automatic derivative of the loss that is stated here and printed. Darknet writes
its gradient by hand (yolo_layer.c delta_yolo_box, delta_yolo_class; box.c dx_box_iou), and `true` deviates from it so:
- IoU kinds: here the chain rule is followed through sigmoid, scale_x_y, grid, exp and anchor. Darknet leaves those of
  x and y out, takes twice the derivative by width and height without the anchor, and has a sign slip in DIoU and CIoU.
- mse: here x and y are followed through sigmoid and scale_x_y. Darknet's difference is taken for the logit's gradient.
- CIoU's aspect term keeps its 1 / (w^2 + h^2). Nothing is clipped (max_delta), no NaN is set to zero.
- cls_normalizer scales the class loss. Darknet ignores it unless it counts objects per class.
- With iou_thresh < 1 a slot's box loss is the mean over its truths. Darknet divides by its number of distinct classes.
- The loss is the sum over levels. Darknet prints their mean, and sums of squared gradients for mse.
Objectness, classes (cls_normalizer 1), and mse's width and height have Darknet's gradients exactly.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Float32

from configs.yolo import YoloHead, YoloLoss
from losses.yolo_assignment import Targets, Truth, assign
from modeling.heads.yolo import decode_level, relative_anchors
from official.vision import boxes as box_ops

IOU_KINDS = {"iou": box_ops.iou, "giou": box_ops.giou, "diou": box_ops.diou, "ciou": box_ops.ciou}
Scalar = Float32[tf.Tensor, ""]


def yolo_loss(
    outputs: Sequence[Float32[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: YoloHead,
    loss: YoloLoss,
    input_size: tuple[int, int],
) -> tuple[Scalar, dict[str, Scalar]]:
    """Mean over the examples of the batch of the sum over levels, cells, anchors and truths.

    outputs: raw float32 logits of each level, in the order of head.levels; input_size: (height, width) in pixels.
    Beside the three parts of the loss (weighted: they add up to it), per example: the number of positive and of ignored
    predictions; and the mean IoU of the positives of this batch with their truths (0 if there are none).
    """
    levels = []
    for raw, level in zip(outputs, head.levels, strict=True):
        anchors = [head.anchors[index] for index in level.mask]
        decoded = decode_level(raw, anchors, level.scale_x_y, input_size)
        targets = assign(decoded, truth, head.anchors, level.mask, input_size, loss)
        # Where a truth asks nothing of an anchor, its own box stands in: a wild prediction times a share of 0 is NaN.
        predicted = tf.gather_nd(decoded.boxes, targets.cells, batch_dims=1)  # [batch, truths, anchors, 4]
        predicted = tf.where(targets.positive[..., tf.newaxis], predicted, targets.boxes[:, :, tf.newaxis])
        losses = GRADIENTS[loss.gradient](raw, predicted, targets, relative_anchors(anchors, input_size), loss)
        levels.append(losses | _diagnostics(predicted, targets))
    batch = outputs[0].shape[0]
    means = {name: tf.add_n([level[name] for level in levels]) / batch for name in levels[0]}
    means["iou"] = tf.math.divide_no_nan(means["iou"], means["matches"])
    del means["matches"]
    return means["box"] + means["objectness"] + means["class"], means


def true_gradient(
    raw: tf.Tensor, predicted: tf.Tensor, targets: Targets, anchors: tf.Tensor, loss: YoloLoss
) -> dict[str, Scalar]:
    """Losses of one level, summed over the batch. predicted: as made above; anchors: [anchors, 2] relative sizes."""
    box = _box_loss(raw, predicted, targets, anchors, loss.iou_loss)
    objectness = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(targets.object, tf.float32), raw[..., 4])
    smooth = targets.classes * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    classes = tf.nn.sigmoid_cross_entropy_with_logits(smooth, raw[..., 5:])
    return {
        "box": loss.iou_normalizer * tf.reduce_sum(box * targets.share),
        "objectness": loss.obj_normalizer * tf.reduce_sum(tf.where(targets.ignored, 0.0, objectness)),
        "class": loss.cls_normalizer * tf.reduce_sum(tf.where(targets.object[..., tf.newaxis], classes, 0.0)),
    }


# How the loss and its gradient follow from the same predictions and targets.
GRADIENTS: dict[str, Callable[..., dict[str, Scalar]]] = {"true": true_gradient}


def _box_loss(raw: tf.Tensor, predicted: tf.Tensor, targets: Targets, anchors: tf.Tensor, kind: str) -> tf.Tensor:
    """The loss of each truth's box against each anchor of its cell, [batch, truths, anchors]."""
    true = targets.boxes[:, :, tf.newaxis]  # [batch, truths, 1, 4]
    if kind != "mse":
        return 1 - IOU_KINDS[kind](predicted, true)
    log_sizes = tf.gather_nd(raw[..., 2:4], targets.cells, batch_dims=1)
    true_log_sizes = tf.math.log(tf.maximum(true[..., 2:], box_ops.MIN_SIDE) / anchors)
    rows, columns = raw.shape[1:3]
    grid = tf.constant([columns, rows], tf.float32)  # offsets are in cells
    errors = tf.concat([(predicted[..., :2] - true[..., :2]) * grid, log_sizes - true_log_sizes], axis=-1)
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
