"""Which prediction of a YOLO head answers for which truth (Darknet yolo_layer.c process_batch), in static shapes.

The rules, per head level:
- A truth belongs to the cell of its centre and to the one anchor, of all anchors of all levels, whose shape overlaps
  its own best. Where that anchor is in this level's mask, the prediction of the cell and anchor, a slot, is positive.
- With iou_thresh < 1 so are the level's other anchors whose shape overlaps the truth's by more than iou_thresh.
- A second truth in a slot adds its class; it never replaces the first.
- A prediction that is not positive is ignored, instead of negative, if its best IoU with any truth is above
  ignore_thresh and one of its class probabilities, of whatever class, is above 0.25.

Everything is computed inside the step, without gradient. Rows that are not valid, or have no width or height, take no
part; their indices stay in range. A valid row with NaN is not hidden: its cell is in range and its loss is NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

from configs.yolo_losses import YoloLoss
from losses.truth import Truth, cells_of, usable
from modeling.heads.yolo import DecodedLevel, relative_anchors
from official.vision.boxes import iou

CLASS_PROBABILITY_TO_IGNORE = 0.25
TRUTHS_AT_ONCE = 50  # bounds the memory of [batch, predictions, truths] overlaps


class Targets(NamedTuple):
    """What one level should predict; `anchors` are those of the level."""

    boxes: Float32[tf.Tensor, "batch truths 4"]  # the truth's, cxcywh; zeros where it takes no part
    cells: Int32[tf.Tensor, "batch truths 2"]  # (row, column), always in range
    positive: Bool[tf.Tensor, "batch truths anchors"]
    share: Float32[tf.Tensor, "batch truths anchors"]  # weight of this truth's box in its slot; 0 if not positive
    object: Bool[tf.Tensor, "batch rows columns anchors"]  # slots with a truth
    ignored: Bool[tf.Tensor, "batch rows columns anchors"]  # neither object nor background
    classes: Float32[tf.Tensor, "batch rows columns anchors classes"]  # 0 or 1, several may be 1; 0 without a truth


def assign(
    predicted: DecodedLevel,
    truth: Truth,
    anchors: Sequence[tuple[float, float]],
    mask: Sequence[int],
    input_size: tuple[int, int],
    rules: YoloLoss,
) -> Targets:
    """Targets of one level. anchors: all of them, (width, height) in pixels; mask: which are this level's.

    input_size: (height, width) in pixels; rules: iou_thresh and ignore_thresh are read. All shapes are static.
    """
    batch, rows, columns, slots, classes = predicted.class_probabilities.shape
    taking_part = usable(truth)[..., tf.newaxis]  # [batch, truths, 1]
    boxes = tf.where(taking_part, truth.boxes, 0.0)
    cells = cells_of(boxes, rows, columns)
    positive = taking_part & _matches(boxes, anchors, mask, input_size, rules.iou_thresh)

    image = tf.range(batch)[:, tf.newaxis]  # [batch, 1]
    cell = (image * rows + cells[..., 0]) * columns + cells[..., 1]  # [batch, truths]
    slot = cell[..., tf.newaxis] * slots + tf.range(slots)  # [batch, truths, anchors]
    count = tf.math.unsorted_segment_sum(tf.cast(positive, tf.float32), slot, batch * rows * columns * slots)
    # Darknet adds up the boxes of a slot, unless several anchors may match: then it takes their mean.
    sharing = tf.gather(count, slot) if rules.iou_thresh < 1 else tf.ones(slot.shape)
    share = tf.where(positive, 1 / tf.maximum(sharing, 1.0), 0.0)

    one_class = slot * classes + tf.clip_by_value(truth.classes, 0, classes - 1)[..., tf.newaxis]
    votes = tf.math.unsorted_segment_sum(tf.cast(positive, tf.float32), one_class, count.shape[0] * classes)
    is_object = tf.reshape(count > 0, [batch, rows, columns, slots])
    class_targets = tf.reshape(tf.cast(votes > 0, tf.float32), predicted.class_probabilities.shape)

    confident = tf.reduce_any(predicted.class_probabilities > CLASS_PROBABILITY_TO_IGNORE, axis=-1)
    covered = best_overlap(predicted.boxes, boxes) > rules.ignore_thresh
    return Targets(boxes, cells, positive, share, is_object, covered & confident & ~is_object, class_targets)


def best_overlap(
    predicted: Float32[tf.Tensor, "batch rows columns anchors 4"], truths: Float32[tf.Tensor, "batch truths 4"]
) -> Float32[tf.Tensor, "batch rows columns anchors"]:
    """The best IoU of each prediction with the truths of its image (all cxcywh), without gradient. Padding zeros: 0."""
    flat = tf.stop_gradient(tf.reshape(predicted, [predicted.shape[0], -1, 1, 4]))  # [batch, predictions, 1, 4]
    best = tf.zeros(flat.shape[:2])
    for start in range(0, truths.shape[1], TRUTHS_AT_ONCE):
        some = truths[:, tf.newaxis, start : start + TRUTHS_AT_ONCE]  # [batch, 1, truths, 4]
        best = tf.maximum(best, tf.reduce_max(iou(flat, some), axis=-1))  # [batch, predictions]
    return tf.reshape(best, predicted.shape[:-1])


def _matches(boxes, anchors, mask, input_size, iou_thresh: float) -> tf.Tensor:
    """Whether a truth's shape calls for each anchor of the level, [batch, truths, anchors of the level] bool."""
    relative = relative_anchors(anchors, input_size)  # [all, 2]
    shapes = tf.concat([tf.zeros_like(relative), relative], axis=-1)  # [all, 4], centred at 0
    truth_shapes = tf.concat([tf.zeros_like(boxes[..., :2]), boxes[..., 2:]], axis=-1)
    overlap = iou(truth_shapes[..., tf.newaxis, :], shapes)  # [batch, truths, all]
    best = tf.argmax(overlap, axis=-1, output_type=tf.int32)[..., tf.newaxis]  # [batch, truths, 1], first of equals
    matches = best == tf.constant(mask)
    return matches | (tf.gather(overlap, mask, axis=-1) > iou_thresh) if iou_thresh < 1 else matches
