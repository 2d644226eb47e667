"""The [region] loss (YOLOv2) as Darknet computes it (region_layer.c): a gradient by hand, whose squares are the cost.

All predictions are background, unless they overlap a truth by more than thresh. Each truth asks one slot for it: the
anchor of its cell with its shape. Where several truths ask the same slot, the last one has it alone. In the first steps
all other boxes are drawn to their anchors.

Not Darknet's: truths without an area take no part.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float, Float32, Int32

from configs.yolo.heads import RegionHead
from configs.yolo.losses import RegionLoss
from losses.truth import Truth
from losses.yolo.assignment import best_overlap
from losses.yolo.darknet import iou
from losses.yolo.darknet.head_loss import HeadLoss, Scalar, added_in_turn, darknet_loss, squares
from losses.yolo.truth import cells_of, check_truth, usable
from modeling.yolo.heads.region import DecodedRegion, decode_region
from modeling.yolo.heads.yolo import relative_anchors
from official.core.task import Moment

PRIOR_SCALE = 0.01


class Targets(NamedTuple):
    """Which truth has each prediction."""

    truth: Int32[tf.Tensor, "batch rows columns anchors"]  # its number in the image; -1: none
    boxes: Float32[
        tf.Tensor, "batch rows columns anchors cxcywh=4"
    ]  # that truth's cxcywh; of some truth, where there is none
    classes: Int32[tf.Tensor, "batch rows columns anchors"]  # that truth's class; likewise
    ignored: Bool[tf.Tensor, "batch rows columns anchors"]  # overlaps a truth too much to be background


def region_loss(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: RegionHead,
    loss: RegionLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Darknet's cost, a mean over examples, with Darknet's gradient. See `losses.yolo.darknet.head_loss.darknet_loss`.

    outputs: the raw logits, one tensor. moment: its step is read, for prior_steps.
    """
    return darknet_loss(outputs, region_heads(outputs, truth, head, loss, moment))


def region_heads(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: RegionHead,
    loss: RegionLoss,
    moment: Moment,
) -> list[HeadLoss]:
    """Cost, delta and targets of the one head. The rest as in `region_loss`."""
    check_truth(truth, outputs[0].shape[0])
    (raw,) = outputs
    raw = tf.stop_gradient(tf.cast(raw, tf.float32))  # the gradient is what follows, not its derivative
    predicted = decode_region(raw, head)
    targets = _assign(predicted, truth, head, loss)
    owned = (targets.truth >= 0)[..., tf.newaxis]  # [batch, rows, columns, anchors, 1]
    overlap = iou.iou(predicted.boxes, targets.boxes)

    rows, columns = raw.shape[1:3]
    in_cells = targets.boxes * tf.constant([columns, rows, columns, rows], tf.float32)
    row, column = tf.meshgrid(tf.range(rows, dtype=tf.float32), tf.range(columns, dtype=tf.float32), indexing="ij")
    offsets = in_cells[..., :2] - tf.stack([column, row], axis=-1)[:, :, tf.newaxis]
    anchors = tf.constant(head.anchors, tf.float32)  # [anchors, 2]
    aims = tf.concat([offsets, tf.math.log(in_cells[..., 2:] / anchors)], axis=-1)
    now = tf.concat([predicted.offsets, raw[..., 2:4]], axis=-1)
    slope = tf.concat([_slope(predicted.offsets), tf.ones_like(raw[..., 2:4])], axis=-1)
    middle = tf.constant([0.5, 0.5, 0.0, 0.0])
    early = tf.cast(moment.step <= loss.prior_steps, tf.float32)
    box = tf.where(owned, loss.coord_scale * (aims - now) * slope, early * PRIOR_SCALE * (middle - now) * slope)

    aim = overlap if loss.rescore else 1.0
    objectness = predicted.objectness
    background = tf.where(targets.ignored, 0.0, loss.noobject_scale * (0 - objectness))
    objectness_delta = tf.where(owned[..., 0], loss.object_scale * (aim - objectness), background) * _slope(objectness)
    own = tf.one_hot(targets.classes, predicted.classes.shape[-1])
    classes = tf.where(owned, loss.class_scale * (own - predicted.classes), 0.0)

    delta = tf.concat([box, objectness_delta[..., tf.newaxis], classes], axis=-1)
    parts = {"box": squares(box), "objectness": squares(objectness_delta), "class": squares(classes)}
    matches = tf.reduce_sum(tf.cast(owned, tf.float32))
    diagnostics = {
        "iou": tf.reduce_sum(tf.where(owned[..., 0], overlap, 0.0)),
        "matches": matches,
        "positives": matches,
        "ignored": tf.reduce_sum(tf.cast(targets.ignored & ~owned[..., 0], tf.float32)),
    }
    return [HeadLoss(added_in_turn(delta), parts, delta, targets, diagnostics)]


def _slope(probability: tf.Tensor) -> tf.Tensor:
    """The sigmoid's, where it has this value."""
    return (1 - probability) * probability


def _assign(predicted: DecodedRegion, truth: Truth, head: RegionHead, loss: RegionLoss) -> Targets:
    batch, rows, columns, anchors, classes = predicted.classes.shape
    taking_part = usable(truth) & (truth.classes < classes)  # [batch, truths]
    boxes = tf.where(taking_part[..., tf.newaxis], truth.boxes, 0.0)
    cells = cells_of(boxes, rows, columns)
    if loss.bias_match:
        sizes = relative_anchors(head.anchors, (rows, columns))  # [anchors, 2]
    else:
        sizes = tf.gather_nd(predicted.boxes[..., 2:], cells, batch_dims=1)  # [batch, truths, anchors, 2]
    shapes = tf.concat([tf.zeros_like(sizes), sizes], axis=-1)
    truths = tf.concat([tf.zeros_like(boxes[..., :2]), boxes[..., 2:]], axis=-1)[:, :, tf.newaxis]
    best = tf.argmax(iou.iou(shapes, truths), axis=-1, output_type=tf.int32)  # [batch, truths]

    image = tf.range(batch)[:, tf.newaxis]  # [batch, 1]
    slot = ((image * rows + cells[..., 0]) * columns + cells[..., 1]) * anchors + best  # [batch, truths]
    number = tf.where(taking_part, tf.range(boxes.shape[1]), -1)
    last = tf.math.unsorted_segment_max(number, slot, batch * rows * columns * anchors)
    last = tf.reshape(tf.maximum(last, -1), [batch, rows, columns, anchors])
    safe = tf.maximum(last, 0)
    overlap, _ = best_overlap(predicted.boxes, boxes)
    return Targets(
        last,
        tf.gather(boxes, safe, batch_dims=1),
        tf.gather(tf.where(taking_part, truth.classes, 0), safe, batch_dims=1),
        overlap > loss.thresh,
    )
