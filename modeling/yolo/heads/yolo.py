"""What the raw numbers of a [yolo] head mean: boxes, objectness and class probabilities."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32

from configs.yolo.heads import YoloHead, YoloLevel
from official.core.errors import UserError
from official.vision.boxes import cxcywh_to_yxyx

# The logit of a width or height is not followed beyond this: e^30 times the anchor overlaps nothing any more, so IoU's
# gradient is nil there anyway (mse's comes from the logit itself), while an infinite side would turn its 0 into NaN.
LARGEST_SIZE_LOGIT = 30.0


class DecodedLevel(NamedTuple):
    """The predictions of one head level, per cell (row, column) and anchor of the level."""

    boxes: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float32[tf.Tensor, "batch rows columns anchors"]  # 0..1
    class_probabilities: Float32[tf.Tensor, "batch rows columns anchors classes"]  # 0..1, independent of each other
    offsets: Float32[tf.Tensor, "batch rows columns anchors 2"]  # of the centre (x, y) from its cell's corner, in cells


def relative_anchors(
    anchors: Sequence[tuple[float, float]], input_size: tuple[int, int]
) -> Float32[tf.Tensor, "anchors 2"]:
    """(width, height) of anchors in pixels, as fractions of the network input, whose input_size is (height, width)."""
    height, width = input_size
    return tf.constant(anchors, tf.float32) / tf.constant([width, height], tf.float32)


def decode_level(
    raw: Float32[tf.Tensor, "batch rows columns anchors channels"],
    anchors: Sequence[tuple[float, float]],
    level: YoloLevel,
    input_size: tuple[int, int],
) -> DecodedLevel:
    """Decode the raw outputs of one level (Darknet yolo_layer.c forward_yolo_layer and get_yolo_box).

    raw: x, y, width, height, objectness, classes; rows and columns are static. They are logits, or with new_coords
    numbers in 0..1.
    anchors: (width, height) in pixels of the network input, those of this level, in the order of its mask.
    level: of scale_x_y s, the offset in the cell is sigmoid(x) * s - (s - 1) / 2, so that s > 1 reaches its border.
    input_size: (height, width) in pixels. The boxes are not clipped to the image, but finite for finite logits: a side
    is at most e^30 times its anchor's (Darknet: unbounded).
    """
    check_raw(raw, len(anchors), 5)
    if level.new_coords:
        near, factors, probabilities = raw[..., :2], 4 * tf.square(raw[..., 2:4]), raw[..., 4:]
    else:
        near, factors, probabilities = tf.sigmoid(raw[..., :2]), size_factors(raw[..., 2:4]), tf.sigmoid(raw[..., 4:])
    offsets = scaled(near, level.scale_x_y)
    centres = centres_of(offsets)
    boxes = tf.concat([centres, factors * relative_anchors(anchors, input_size)], axis=-1)
    return DecodedLevel(boxes, probabilities[..., 0], probabilities[..., 1:], offsets)


def check_levels(outputs: Sequence[Float[tf.Tensor, "batch ..."]], levels: int) -> None:
    """Raises a UserError unless there is one output for each level of a head."""
    if tf.is_tensor(outputs) or len(outputs) != levels:
        given = "one tensor" if tf.is_tensor(outputs) else f"{len(outputs)} tensors"
        raise UserError(f"outputs: {given}; expected a list of {levels}, one for each level of the head")


def check_raw(raw: Float[tf.Tensor, "..."], anchors: int, entries: int) -> None:
    """Raises a UserError unless raw is [batch, rows, columns, anchors, entries + at least one class]."""
    if raw.shape.rank != 5 or raw.shape[3] != anchors or raw.shape[4] <= entries:
        raise UserError(
            f"raw has shape {raw.shape}; expected [batch, rows, columns, {anchors}, {entries} + classes], "
            f"for the {anchors} anchors of this level"
        )


def size_factors(logits: Float32[tf.Tensor, "*slots"]) -> Float32[tf.Tensor, "*slots"]:
    """How many times its anchor's a side is."""
    return tf.exp(tf.minimum(logits, LARGEST_SIZE_LOGIT))


def scaled(near: Float32[tf.Tensor, "*slots"], scale_x_y: float) -> Float32[tf.Tensor, "*slots"]:
    """Offsets in 0..1, stretched about the middle of the cell."""
    return near * scale_x_y - (scale_x_y - 1) / 2


def centres_of(
    offsets: Float32[tf.Tensor, "batch rows columns anchors 2"],
) -> Float32[tf.Tensor, "batch rows columns anchors 2"]:
    """(x, y) relative to the grid, from offsets in cells from each cell's corner."""
    rows, columns = offsets.shape[1:3]
    row = tf.range(rows, dtype=tf.float32)[:, tf.newaxis, tf.newaxis]  # [rows, 1, 1]
    column = tf.range(columns, dtype=tf.float32)[:, tf.newaxis]  # [columns, 1]
    # [batch, rows, columns, anchors] each
    return tf.stack([(column + offsets[..., 0]) / columns, (row + offsets[..., 1]) / rows], axis=-1)


def joined(
    boxes: Sequence[Float32[tf.Tensor, "batch _ _ _ cxcywh=4"]],
    scores: Sequence[Float32[tf.Tensor, "batch _ _ _ classes"]],
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """cxcywh boxes and scores of all levels as yxyx boxes and scores in one row: by level, row, column, anchor."""

    def in_one_row(parts: Sequence[tf.Tensor]) -> tf.Tensor:
        # [batch, boxes of all levels, _]
        return tf.concat(
            [tf.reshape(part, [-1, math.prod(part.shape[1:-1]), part.shape[-1]]) for part in parts], axis=1
        )

    return in_one_row([cxcywh_to_yxyx(part) for part in boxes]), in_one_row(scores)


def decode(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]], head: YoloHead, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Every prediction of all levels: yxyx boxes relative to the network input, and scores = objectness * class.

    outputs: the raw logits of each level, in the order of head.levels. Boxes are ordered by level, row, column, anchor.
    """
    check_levels(outputs, len(head.levels))
    levels = [
        decode_level(tf.cast(raw, tf.float32), head.anchors_of(level), level, input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]
    scores = [level.objectness[..., tf.newaxis] * level.class_probabilities for level in levels]
    return joined([level.boxes for level in levels], scores)
