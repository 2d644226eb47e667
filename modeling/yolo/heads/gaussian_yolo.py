"""What the raw numbers of a [Gaussian_yolo] head mean: each coordinate of a box comes with how uncertain it is."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32

from configs.yolo.heads import GaussianYoloHead, GaussianYoloLevel
from modeling.yolo.heads.yolo import centres_of, check_levels, check_raw, joined, relative_anchors, scaled, size_factors


class DecodedGaussian(NamedTuple):
    """The predictions of one head level, per cell (row, column) and anchor of the level."""

    boxes: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    sigmas: Float32[tf.Tensor, "batch rows columns anchors cxcywh=4"]  # 0..1, of x, y, width and height
    objectness: Float32[tf.Tensor, "batch rows columns anchors"]  # 0..1
    class_probabilities: Float32[tf.Tensor, "batch rows columns anchors classes"]  # 0..1, independent of each other
    offsets: Float32[tf.Tensor, "batch rows columns anchors 2"]  # of the centre (x, y) from its cell's corner, in cells


def decode_level(
    raw: Float32[tf.Tensor, "batch rows columns anchors channels"],
    anchors: Sequence[tuple[float, float]],
    level: GaussianYoloLevel,
    input_size: tuple[int, int],
) -> DecodedGaussian:
    """Decode the logits of one level (Darknet gaussian_yolo_layer.c forward_gaussian_yolo_layer).

    raw: x, y, width, height, each before its sigma, then objectness and classes. The rest as in yolo.decode_level.
    """
    check_raw(raw, len(anchors), 9)
    offsets = scaled(tf.sigmoid(raw[..., 0:4:2]), level.scale_x_y)
    sizes = size_factors(raw[..., 4:8:2]) * relative_anchors(anchors, input_size)
    boxes = tf.concat([centres_of(offsets), sizes], axis=-1)
    probabilities = tf.sigmoid(raw[..., 8:])
    return DecodedGaussian(boxes, tf.sigmoid(raw[..., 1:8:2]), probabilities[..., 0], probabilities[..., 1:], offsets)


def decode(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]], head: GaussianYoloHead, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Every prediction of all levels: yxyx boxes relative to the network input, and scores.

    A score is objectness * class * (1 - mean of the sigmas). Boxes are ordered by level, row, column, anchor.
    """
    check_levels(outputs, len(head.levels))
    boxes, scores = [], []
    for raw, level in zip(outputs, head.levels, strict=True):
        decoded = decode_level(tf.cast(raw, tf.float32), head.anchors_of(level), level, input_size)
        certain = 1 - tf.reduce_mean(decoded.sigmas, axis=-1, keepdims=True)  # [batch, rows, columns, anchors, 1]
        boxes.append(decoded.boxes)
        scores.append(decoded.objectness[..., tf.newaxis] * decoded.class_probabilities * certain)
    return joined(boxes, scores)
