"""Which slots of a head's level the truths claim, and what Darknet's loop over the truths does to them, in its order.

A slot is what predicts one box: an anchor of a cell. Darknet goes through an image's truths one by one and changes the
gradient of each slot that a truth claims; what a truth does may depend on what earlier ones did to the same slot, but
never on another slot. So all slots are done at once, first with the first truth of each, then with its second, as many
times as the most claimed slot has truths (`in_turn`). Everything here has static shapes and no gradient.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Shaped

from configs.yolo_losses import GaussianYoloLoss, YoloLoss
from losses import darknet_boxes
from losses.truth import Truth, cells_of, usable
from official.core.errors import UserError

Slots = Float32[tf.Tensor, "batch rows columns anchors _"]
TRUTHS_AT_ONCE = 50  # bounds the memory of [batch, predictions, truths] overlaps


class Claims(NamedTuple):
    """The slots that the truths of each image claim; `anchors` are those of the level."""

    truth: Truth  # of the rows that take no part: zeros, class 0, not valid
    cells: Int32[tf.Tensor, "batch truths 2"]  # (row, column), always in range
    best: Bool[tf.Tensor, "batch truths anchors"]  # the anchor, of all in the table, with the truth's shape
    claimed: Bool[tf.Tensor, "batch truths anchors"]  # that one, and others similar enough
    first: Bool[tf.Tensor, "batch truths anchors"]  # no earlier truth claims the slot
    following: Int32[tf.Tensor, "batch truths anchors"]  # the next truth to claim it; the number of truths if none does
    slot: Int32[tf.Tensor, "batch truths anchors"]  # the slot's position among all, [batch, rows, columns, anchors]


def claim(
    truth: Truth,
    classes: int,
    grid: tuple[int, int],
    table: Float32[tf.Tensor, "all 2"],
    mask: Sequence[int],
    rules: YoloLoss | GaussianYoloLoss,
) -> Claims:
    """The claims on one level (yolo_layer.c process_batch).

    grid: (rows, columns); table: all (width, height), relative to the input; mask: which are the level's.

    Raises:
        UserError: rules.counters_per_class are of another number of classes.
    """
    counters = rules.counters_per_class
    if counters is not None and len(counters) != classes:
        raise UserError(f"counters_per_class has {len(counters)} counts; the head has {classes} classes")
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
    overlap = darknet_boxes.iou(shapes, truths)  # [batch, truths, all]
    best = tf.argmax(overlap, axis=-1, output_type=tf.int32)[..., tf.newaxis] == tf.constant(mask, tf.int32)
    if rules.iou_thresh >= 1:
        return best, tf.zeros_like(best)
    alike = darknet_boxes.KINDS[rules.iou_thresh_kind](tf.gather(shapes, mask), truths)
    return best, alike > rules.iou_thresh


def best_overlap(
    predicted: Float32[tf.Tensor, "batch rows columns anchors 4"], boxes: Float32[tf.Tensor, "batch truths 4"]
) -> tuple[Float32[tf.Tensor, "batch rows columns anchors"], Int32[tf.Tensor, "batch rows columns anchors"]]:
    """The best IoU of each prediction with the truths of its image (all cxcywh), and the first truth that has it.

    Where nothing overlaps, it is 0 with truth 0. Zeros as a truth overlap nothing, and neither does NaN.
    """
    flat = tf.reshape(predicted, [predicted.shape[0], -1, 1, 4])  # [batch, predictions, 1, 4]
    best = tf.zeros(flat.shape[:2])
    which = tf.zeros(flat.shape[:2], tf.int32)
    for start in range(0, boxes.shape[1], TRUTHS_AT_ONCE):
        overlap = darknet_boxes.iou(flat, boxes[:, tf.newaxis, start : start + TRUTHS_AT_ONCE])
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


def in_turn(
    claims: Claims, slots: list[Slots], change: Callable[[list[tf.Tensor], tf.Tensor], list[tf.Tensor]]
) -> list[Slots]:
    """What the truths, one after the other, leave of the slots they claim.

    slots: [batch, rows, columns, anchors, _] tensors. change(some, number) gets them for each truth and anchor,
    [batch, truths, anchors, _], and, for the truth that is to change each, its number in the image [batch, truths,
    anchors]; it returns the changed ones.
    """
    truths = claims.claimed.shape[1]
    start = tf.where(claims.first, tf.range(truths)[:, tf.newaxis], truths)  # [batch, truths, anchors]

    def turn(number: tf.Tensor, *some: tf.Tensor) -> list[tf.Tensor]:
        acting = number < truths
        number = tf.minimum(number, truths - 1)
        changed = change(list(some), number)
        some = [tf.where(acting[..., tf.newaxis], new, old) for new, old in zip(changed, some, strict=True)]
        return [tf.where(acting, of_truth(claims.following, number), truths), *some]

    _, *some = tf.while_loop(
        lambda number, *_: tf.reduce_any(number < truths),
        turn,
        [start, *(at_claims(values, claims) for values in slots)],
        maximum_iterations=truths,
    )
    return [_put(values, old, claims) for values, old in zip(some, slots, strict=True)]


def of_truth(
    values: Shaped[tf.Tensor, "batch truths anchors *rest"], number: Int32[tf.Tensor, "batch truths anchors"]
) -> Shaped[tf.Tensor, "batch truths anchors *rest"]:
    """values [batch, truths, anchors, ...] of the truth with this number [batch, truths, anchors], anchor by anchor."""
    moved = tf.experimental.numpy.swapaxes
    picked = tf.gather(moved(values, 1, 2), moved(number, 1, 2), axis=2, batch_dims=2)  # [batch, anchors, truths, ...]
    return moved(picked, 1, 2)


def _put(some: tf.Tensor, slots: tf.Tensor, claims: Claims) -> tf.Tensor:
    """The slots with those that are claimed replaced; each has exactly one `first` claim."""
    count = slots.shape[0] * slots.shape[1] * slots.shape[2] * slots.shape[3]
    mine = claims.first[..., tf.newaxis]
    new = tf.math.unsorted_segment_sum(tf.where(mine, some, 0.0), claims.slot, count)
    return tf.where(is_claimed(claims, slots.shape)[..., tf.newaxis], tf.reshape(new, slots.shape), slots)


def is_claimed(claims: Claims, shape: tf.TensorShape) -> Bool[tf.Tensor, "batch rows columns anchors"]:
    """Whether any truth claims each slot. shape: that of the slots, from the batch to the anchors."""
    batch, rows, columns, anchors = shape[:4]
    count = tf.math.unsorted_segment_sum(
        tf.cast(claims.claimed, tf.int32), claims.slot, batch * rows * columns * anchors
    )
    return tf.reshape(count > 0, [batch, rows, columns, anchors])
