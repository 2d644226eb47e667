"""Which prediction of a [yolo] or [Gaussian_yolo] head answers for which truth (Darknet yolo_layer.c process_batch).

Both gradients of the loss read these targets. A slot is what predicts one box: an anchor of a cell. Per head level:
- A truth claims the slot of its centre's cell and of the one anchor, of all anchors of all levels, whose shape overlaps
  its own best; the first of equals. Another level may have that anchor.
- With iou_thresh < 1 it also claims the level's other anchors whose shape overlaps its own by more than iou_thresh, as
  iou_thresh_kind measures it.
- Several truths may claim a slot. None replaces another.
- A prediction that no truth claims is ignored, instead of background, if its best IoU with any truth is above
  ignore_thresh and one of its class probabilities, of whatever class, is above 0.25.

Rows that are not valid, have no width or height, or a class that the head does not have, take no part; their indices
stay in range. A valid row with NaN is not hidden: its cell is in range and its loss is NaN. All shapes are static, and
nothing has a gradient. Overlaps are rounded as Darknet's, so that ties fall as there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Num

from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from losses.truth import Truth
from losses.yolo.darknet import iou
from losses.yolo.truth import cells_of, usable

CLASS_PROBABILITY_TO_IGNORE = 0.25
TRUTHS_AT_ONCE = 50  # bounds the memory of [batch, predictions, truths] overlaps
Scalar = Float32[tf.Tensor, ""]


class Claims(NamedTuple):
    """The slots that the truths of each image claim; `anchors` are those of the level."""

    truth: Truth  # of the rows that take no part: zeros, class 0, not valid
    cells: Int32[tf.Tensor, "batch truths 2"]  # (row, column), always in range
    best: Bool[tf.Tensor, "batch truths anchors"]  # the anchor, of all in the table, with the truth's shape
    claimed: Bool[tf.Tensor, "batch truths anchors"]  # that one, and others similar enough
    first: Bool[tf.Tensor, "batch truths anchors"]  # no earlier truth claims the slot
    following: Int32[tf.Tensor, "batch truths anchors"]  # the next truth to claim it; the number of truths if none does
    slot: Int32[tf.Tensor, "batch truths anchors"]  # the slot's position among all, [batch, rows, columns, anchors]


class Targets(NamedTuple):
    """What is assigned on one level."""

    claims: Claims
    object: Bool[tf.Tensor, "batch rows columns anchors"]  # slots that a truth claims
    overlapping: Bool[tf.Tensor, "batch rows columns anchors"]  # too much to be background, whether claimed or not
    overlap: Float32[tf.Tensor, "batch rows columns anchors"]  # best IoU of the prediction with a truth; 0 without one
    nearest: Int32[tf.Tensor, "batch rows columns anchors"]  # the first truth that has it; 0 without one

    @property
    def ignored(self) -> Bool[tf.Tensor, "batch rows columns anchors"]:
        """Predictions that are neither object nor background."""
        return self.overlapping & ~self.object


def assign(
    boxes: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"],
    class_probabilities: Float32[tf.Tensor, "batch rows columns anchors classes"],
    truth: Truth,
    table: Float32[tf.Tensor, "all 2"],
    mask: Sequence[int],
    rules: YoloLoss | GaussianYoloLoss,
) -> Targets:
    """Targets of one level.

    boxes: predicted, cxcywh relative to the network input; table: (width, height) of all anchors, likewise relative;
    mask: which of them are the level's; rules: iou_thresh, iou_thresh_kind and ignore_thresh are read.
    """
    boxes = tf.stop_gradient(boxes)
    claims = claim(truth, class_probabilities.shape[-1], tuple(boxes.shape[1:3]), table, mask, rules)
    overlap, nearest = best_overlap(boxes, claims.truth.boxes)
    confident = tf.reduce_any(class_probabilities > CLASS_PROBABILITY_TO_IGNORE, axis=-1)
    owners = into_slots(tf.cast(claims.claimed, tf.int32), claims, boxes.shape[:4])
    return Targets(claims, owners > 0, confident & (overlap > rules.ignore_thresh), overlap, nearest)


def claim(
    truth: Truth,
    classes: int,
    grid: tuple[int, int],
    table: Float32[tf.Tensor, "all 2"],
    mask: Sequence[int],
    rules: YoloLoss | GaussianYoloLoss,
) -> Claims:
    """The claims on one level. classes: of the head; grid: (rows, columns); the rest as in `assign`."""
    taking_part = usable(truth) & (truth.classes >= 0) & (truth.classes < classes)  # [batch, truths]
    boxes = tf.where(taking_part[..., tf.newaxis], truth.boxes, 0.0)
    truth = Truth(boxes, tf.where(taking_part, truth.classes, 0), taking_part)
    best, similar = _shapes_alike(boxes, table, mask, rules)
    best, similar = (part & taking_part[..., tf.newaxis] for part in (best, similar))
    claimed = best | similar
    cells = cells_of(boxes, *grid)
    cell = cells[..., 0] * grid[1] + cells[..., 1]  # [batch, truths]
    batch, truths = cell.shape
    image = tf.range(batch)[:, tf.newaxis] * (grid[0] * grid[1])  # [batch, 1]
    slot = (image + cell)[..., tf.newaxis] * len(mask) + tf.range(len(mask))  # [batch, truths, anchors]

    order = tf.range(truths)
    together = (cell[:, :, tf.newaxis] == cell[:, tf.newaxis])[..., tf.newaxis]  # [batch, truths, truths, 1]
    together &= claimed[:, :, tf.newaxis] & claimed[:, tf.newaxis]  # [batch, truths, truths, anchors]
    later = (order > order[:, tf.newaxis])[..., tf.newaxis]  # [truths, truths, 1]
    following = tf.reduce_min(tf.where(together & later, order[:, tf.newaxis], truths), axis=2)
    first = claimed & ~tf.reduce_any(together & later, axis=1)
    return Claims(truth, cells, best, claimed, first, following, slot)


def _shapes_alike(boxes: tf.Tensor, table: tf.Tensor, mask: Sequence[int], rules) -> tuple[tf.Tensor, tf.Tensor]:
    """([batch, truths, anchors of the level] the best of all, the same above iou_thresh)."""
    shapes = tf.concat([tf.zeros_like(table), table], axis=-1)  # [all, 4], centred at 0
    truths = tf.concat([tf.zeros_like(boxes[..., :2]), boxes[..., 2:]], axis=-1)[:, :, tf.newaxis]
    overlap = iou.iou(shapes, truths)  # [batch, truths, all]
    best = tf.argmax(overlap, axis=-1, output_type=tf.int32)[..., tf.newaxis] == tf.constant(mask, tf.int32)
    if rules.iou_thresh >= 1:
        return best, tf.zeros_like(best)
    alike = iou.KINDS[rules.iou_thresh_kind](tf.gather(shapes, mask), truths)
    return best, alike > rules.iou_thresh


def best_overlap(
    predicted: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"],
    boxes: Float32[tf.Tensor, "batch truths cxcywh=4"],
) -> tuple[Float32[tf.Tensor, "batch rows columns anchors"], Int32[tf.Tensor, "batch rows columns anchors"]]:
    """The best IoU of each prediction with the truths of its image (all cxcywh), and the first truth that has it.

    Where nothing overlaps, it is 0 with truth 0. Zeros as a truth overlap nothing, and neither does NaN.
    """
    flat = tf.reshape(predicted, [predicted.shape[0], -1, 1, 4])  # [batch, predictions, 1, 4]
    best = tf.zeros(flat.shape[:2])
    which = tf.zeros(flat.shape[:2], tf.int32)
    for start in range(0, boxes.shape[1], TRUTHS_AT_ONCE):
        overlap = iou.iou(flat, boxes[:, tf.newaxis, start : start + TRUTHS_AT_ONCE])
        overlap = tf.where(overlap > 0, overlap, 0.0)  # [batch, predictions, truths]
        highest = tf.reduce_max(overlap, axis=-1)  # [batch, predictions]
        which = tf.where(highest > best, start + tf.argmax(overlap, axis=-1, output_type=tf.int32), which)
        best = tf.maximum(best, highest)
    return tf.reshape(best, predicted.shape[:-1]), tf.reshape(which, predicted.shape[:-1])


def at_claims(
    values: Float32[tf.Tensor, "batch rows columns anchors _"], claims: Claims
) -> Float32[tf.Tensor, "batch truths anchors _"]:
    """What the cell of each truth holds."""
    return tf.gather_nd(values, claims.cells, batch_dims=1)


def into_slots(
    values: Num[tf.Tensor, "batch truths anchors *rest"], claims: Claims, shape: tf.TensorShape
) -> Num[tf.Tensor, "batch rows columns anchors *rest"]:
    """The sum of the values of all truths that claim a slot, 0 without one. shape: [batch, rows, columns, anchors]."""
    claimed = tf.reshape(claims.claimed, [*claims.claimed.shape, *(1 for _ in values.shape[3:])])
    mine = tf.where(claimed, values, tf.zeros_like(values))
    summed = tf.math.unsorted_segment_sum(mine, claims.slot, shape.num_elements())
    return tf.reshape(summed, [*shape, *values.shape[3:]])


def diagnostics_of(
    targets: Targets, boxes: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"]
) -> dict[str, Scalar]:
    """Sums over the batch: `iou` of claimed predictions over `matches`, `positives`, `ignored`. boxes: cxcywh."""
    claims = targets.claims
    predicted = at_claims(tf.stop_gradient(boxes), claims)
    overlap = iou.iou(predicted, claims.truth.boxes[:, :, tf.newaxis])  # [batch, truths, anchors]
    return {
        "iou": tf.reduce_sum(tf.where(claims.claimed, overlap, 0.0)),
        "matches": tf.reduce_sum(tf.cast(claims.claimed, tf.float32)),
        "positives": tf.reduce_sum(tf.cast(targets.object, tf.float32)),
        "ignored": tf.reduce_sum(tf.cast(targets.ignored, tf.float32)),
    }
