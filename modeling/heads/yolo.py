"""What the raw numbers of a YOLO head mean: boxes, objectness and class probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float32

from configs.yolo import YoloHead
from official.vision.boxes import cxcywh_to_yxyx

# The logit of a width or height is not followed beyond this: e^30 times the anchor overlaps nothing any more, so IoU's
# gradient is nil there anyway (mse's comes from the logit itself), while an infinite side would turn its 0 into NaN.
LARGEST_SIZE_LOGIT = 30.0


class DecodedLevel(NamedTuple):
    """The predictions of one head level, per cell (row, column) and anchor of the level."""

    boxes: Float32[tf.Tensor, "batch rows columns anchors 4"]  # cxcywh relative to the network input
    objectness: Float32[tf.Tensor, "batch rows columns anchors"]  # 0..1
    class_probabilities: Float32[tf.Tensor, "batch rows columns anchors classes"]  # 0..1, independent of each other


def relative_anchors(
    anchors: Sequence[tuple[float, float]], input_size: tuple[int, int]
) -> Float32[tf.Tensor, "anchors 2"]:
    """(width, height) of anchors in pixels, as fractions of the network input, whose input_size is (height, width)."""
    height, width = input_size
    return tf.constant(anchors, tf.float32) / tf.constant([width, height], tf.float32)


def decode_level(
    raw: Float32[tf.Tensor, "batch rows columns anchors channels"],
    anchors: Sequence[tuple[float, float]],
    scale_x_y: float,
    input_size: tuple[int, int],
) -> DecodedLevel:
    """Decode the logits of one level (Darknet yolo_layer.c forward_yolo_layer and get_yolo_box).

    raw: x, y, width, height, objectness, classes; rows and columns are static.
    anchors: (width, height) in pixels of the network input, those of this level, in the order of its mask.
    scale_x_y: the offset in the cell is sigmoid(x) * s - (s - 1) / 2, so that s > 1 reaches the cell's border.
    input_size: (height, width) in pixels. The boxes are not clipped to the image, but finite for finite logits: a side
    is at most e^30 times its anchor's (Darknet: unbounded).
    """
    rows, columns, slots, channels = raw.shape[1:]
    if slots != len(anchors) or channels < 6:
        raise ValueError(
            f"decode_level: raw has shape {raw.shape}; expected [batch, rows, columns, {len(anchors)}, 5 + classes], "
            f"for the {len(anchors)} anchors of this level"
        )
    row = tf.range(rows, dtype=tf.float32)[:, tf.newaxis, tf.newaxis]  # [rows, 1, 1]
    column = tf.range(columns, dtype=tf.float32)[:, tf.newaxis]  # [columns, 1]
    offset = tf.sigmoid(raw[..., 0:2]) * scale_x_y - (scale_x_y - 1) / 2
    x = (column + offset[..., 0]) / columns  # [batch, rows, columns, anchors]
    y = (row + offset[..., 1]) / rows
    size = tf.exp(tf.minimum(raw[..., 2:4], LARGEST_SIZE_LOGIT)) * relative_anchors(anchors, input_size)
    probabilities = tf.sigmoid(raw[..., 4:])
    boxes = tf.concat([tf.stack([x, y], axis=-1), size], axis=-1)  # [batch, rows, columns, anchors, 4]
    return DecodedLevel(boxes, probabilities[..., 0], probabilities[..., 1:])


def decode(
    outputs: Sequence[Float32[tf.Tensor, "batch _ _ _ channels"]], head: YoloHead, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch boxes 4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Every prediction of all levels: yxyx boxes relative to the network input, and scores = objectness * class.

    outputs: the raw logits of each level, in the order of head.levels. Boxes are ordered by level, row, column, anchor.
    """
    boxes, scores = [], []
    for raw, level in zip(outputs, head.levels, strict=True):
        anchors = [head.anchors[index] for index in level.mask]
        decoded = decode_level(raw, anchors, level.scale_x_y, input_size)
        cells = raw.shape[1] * raw.shape[2] * raw.shape[3]
        level_scores = decoded.objectness[..., tf.newaxis] * decoded.class_probabilities
        boxes.append(tf.reshape(cxcywh_to_yxyx(decoded.boxes), [-1, cells, 4]))  # [batch, cells, 4]
        scores.append(tf.reshape(level_scores, [-1, cells, raw.shape[4] - 5]))  # [batch, cells, classes]
    return tf.concat(boxes, axis=1), tf.concat(scores, axis=1)
