"""The [detection] loss (YOLOv1) as Darknet computes it (detection_layer.c): a gradient by hand, its squares the cost.

Each cell has at most one truth: the first whose centre is in it. Of the cell's boxes, the one that overlaps the truth
most is asked for it; where none overlaps it, the nearest one is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from configs.yolo.heads import DetectionHead
from configs.yolo.losses import DetectionLoss
from losses.truth import Truth
from losses.yolo.darknet import iou
from losses.yolo.darknet.head_loss import HeadLoss, Scalar, added_in_turn, darknet_loss, squares
from losses.yolo.truth import cells_of, check_truth, usable
from modeling.yolo.heads.yolov1 import CellPredictions, joined_row, num_classes, sizes_of, split_row
from official.core.task import Moment

SMALLEST_SIDE = 0.001  # of the image; smaller truths take no part


class CellTruth(NamedTuple):
    """What each cell of the grid should say; zeros where it has no object."""

    object: Bool[tf.Tensor, "batch side side"]
    classes: Float32[tf.Tensor, "batch side side classes"]  # one-hot
    boxes: Float32[tf.Tensor, "batch side side cxcywh=4"]  # cxcywh: x, y in the cell, 0..1; sizes relative to the image


class Targets(NamedTuple):
    cells: CellTruth
    responsible: Bool[tf.Tensor, "batch side side num"]  # the one box of a cell with an object that is asked for it


def detection_loss(
    outputs: Sequence[Float[tf.Tensor, "batch numbers"]],
    truth: Truth,
    head: DetectionHead,
    loss: DetectionLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Darknet's cost, a mean over examples, with Darknet's gradient. See `losses.yolo.darknet.head_loss.darknet_loss`.

    outputs: the raw numbers, one tensor. `moment` is not read.
    """
    return darknet_loss(outputs, detection_heads(outputs, truth, head, loss, moment))


def detection_heads(
    outputs: Sequence[Float[tf.Tensor, "batch numbers"]],
    truth: Truth,
    head: DetectionHead,
    loss: DetectionLoss,
    moment: Moment,
) -> list[HeadLoss]:
    """Cost, delta and targets of the one head. The rest as in `detection_loss`."""
    check_truth(truth, outputs[0].shape[0])
    (raw,) = outputs
    return [cell_loss(raw, cell_truth(truth, head.side, num_classes(raw, head)), head, loss)]


def cell_truth(truth: Truth, side: int, classes: int) -> CellTruth:
    """The truth of a grid of side x side cells (data.c fill_truth_region).

    The first truth of a cell has it. One of a class that is not there is an object of no class.
    """
    boxes = tf.where(usable(truth)[..., tf.newaxis], truth.boxes, 0.0)
    taking_part = ~tf.reduce_any(boxes[..., 2:] < SMALLEST_SIDE, axis=-1)  # [batch, truths]
    cells = cells_of(boxes, side, side)
    batch, truths = taking_part.shape
    cell = (tf.range(batch)[:, tf.newaxis] * side + cells[..., 0]) * side + cells[..., 1]  # [batch, truths]
    number = tf.where(taking_part, tf.range(truths), truths)
    first = tf.math.unsorted_segment_min(number, cell, batch * side * side)
    first = tf.reshape(first, [batch, side, side])
    occupied = first < truths
    first = tf.where(occupied, first, 0)
    offsets = boxes[..., :2] * side - tf.cast(cells[..., ::-1], tf.float32)
    in_cells = tf.concat([offsets, boxes[..., 2:]], axis=-1)
    one_hot = tf.one_hot(tf.gather(truth.classes, first, batch_dims=1), classes)  # [batch, side, side, classes]
    filled = occupied[..., tf.newaxis]
    return CellTruth(
        occupied,
        tf.where(filled, one_hot, 0.0),
        tf.where(filled, tf.gather(in_cells, first, batch_dims=1), 0.0),
    )


def cell_loss(
    raw: Float[tf.Tensor, "batch numbers"], truth: CellTruth, head: DetectionHead, loss: DetectionLoss
) -> HeadLoss:
    """Cost, delta and targets, from the truth of each cell. raw: as in `split_row`."""
    raw = tf.stop_gradient(tf.cast(raw, tf.float32))  # the gradient is what follows, not its derivative
    predicted = split_row(raw, head)
    overlap, responsible = _responsible(predicted, truth, head)
    asked = truth.object[..., tf.newaxis]  # [batch, side, side, 1]
    boxes = truth.boxes[..., tf.newaxis, :]  # [batch, side, side, 1, 4]
    if head.sqrt:
        boxes = tf.concat([boxes[..., :2], tf.sqrt(boxes[..., 2:])], axis=-1)
    aim = overlap if loss.rescore else 1.0
    objectness = predicted.objectness
    delta = CellPredictions(
        tf.where(asked, loss.class_scale * (truth.classes - predicted.classes), 0.0),
        tf.where(responsible, loss.object_scale * (aim - objectness), loss.noobject_scale * (0 - objectness)),
        tf.where(responsible[..., tf.newaxis], loss.coord_scale * (boxes - predicted.boxes), 0.0),
    )
    parts = {"box": squares(delta.boxes), "objectness": squares(delta.objectness), "class": squares(delta.classes)}
    matches = tf.reduce_sum(tf.cast(responsible, tf.float32))
    diagnostics = {
        "iou": tf.reduce_sum(tf.where(responsible, overlap, 0.0)),
        "matches": matches,
        "positives": matches,
        "ignored": tf.zeros([]),
    }
    whole = joined_row(delta)
    return HeadLoss(added_in_turn(whole), parts, whole, Targets(truth, responsible), diagnostics)


def _responsible(
    predicted: CellPredictions, truth: CellTruth, head: DetectionHead
) -> tuple[Float32[tf.Tensor, "batch side side num"], Bool[tf.Tensor, "batch side side num"]]:
    """(IoU of each box with its cell's truth, whether it is the one that is asked for it)."""
    mine = tf.concat([predicted.boxes[..., :2] / head.side, sizes_of(predicted.boxes, head)], axis=-1)
    true = tf.concat([truth.boxes[..., :2] / head.side, truth.boxes[..., 2:]], axis=-1)[..., tf.newaxis, :]
    overlap = iou.iou(mine, true)  # [batch, side, side, num]
    distance = tf.reduce_sum(tf.square(mine - true), axis=-1)  # [batch, side, side, num]
    some = tf.reduce_any(overlap > 0, axis=-1)  # [batch, side, side]
    which = tf.where(some, tf.argmax(overlap, axis=-1), tf.argmin(distance, axis=-1))
    chosen = tf.one_hot(which, head.num, on_value=True, off_value=False)
    return overlap, chosen & truth.object[..., tf.newaxis]
