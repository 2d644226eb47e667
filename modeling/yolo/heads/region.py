"""What the raw numbers of a [region] head mean (YOLOv2): boxes, objectness and class probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32

from configs.yolo.heads import RegionHead
from modeling.yolo.heads.yolo import centres_of, check_raw, joined, relative_anchors, size_factors


class DecodedRegion(NamedTuple):
    """The predictions per cell (row, column) and anchor."""

    boxes: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float32[tf.Tensor, "batch rows columns anchors"]  # 0..1
    classes: Float32[tf.Tensor, "batch rows columns anchors classes"]  # with softmax: 0..1, they add up to 1
    offsets: Float32[tf.Tensor, "batch rows columns anchors 2"]  # of the centre (x, y) from its cell's corner, 0..1


def decode_region(raw: Float32[tf.Tensor, "batch rows columns anchors channels"], head: RegionHead) -> DecodedRegion:
    """Decode the logits (Darknet region_layer.c forward_region_layer and get_region_box).

    raw: x, y, width, height, objectness, classes; rows and columns are static.
    """
    check_raw(raw, len(head.anchors), 5)
    rows, columns = raw.shape[1:3]
    offsets = tf.sigmoid(raw[..., :2])
    sizes = size_factors(raw[..., 2:4]) * relative_anchors(head.anchors, (rows, columns))
    classes = tf.nn.softmax(raw[..., 5:]) if head.softmax else raw[..., 5:]
    return DecodedRegion(tf.concat([centres_of(offsets), sizes], axis=-1), tf.sigmoid(raw[..., 4]), classes, offsets)


def decode(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]], head: RegionHead, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Every prediction: yxyx boxes relative to the network input, and scores = objectness * class.

    outputs: one tensor. Boxes are ordered by row, column, anchor. Anchors are in cells, so `input_size` is not read.
    """
    (raw,) = outputs
    decoded = decode_region(tf.cast(raw, tf.float32), head)
    return joined([decoded.boxes], [decoded.objectness[..., tf.newaxis] * decoded.classes])
