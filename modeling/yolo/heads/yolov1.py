"""What the numbers of a [detection] head mean (YOLOv1): a grid of cells, each with one object and boxes for it."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32

from configs.yolo.heads import DetectionHead
from modeling.yolo.heads.yolo import centres_of, joined

COORDS = 4


class CellPredictions(NamedTuple):
    """The numbers as they are (but for a softmax), per cell (row, column)."""

    classes: Float32[tf.Tensor, "batch side side classes"]
    objectness: Float32[tf.Tensor, "batch side side num"]
    # As cxcywh: x, y in the cell; width and height of the image, or their roots.
    boxes: Float32[tf.Tensor, "batch side side num cxcywh=4"]  # centre x, centre y, width, height


def num_classes(raw: Float[tf.Tensor, "batch numbers"], head: DetectionHead) -> int:
    """How many classes a row of numbers has room for."""
    numbers, rest = divmod(raw.shape[1], head.side * head.side)
    classes = numbers - head.num * (1 + COORDS)
    if rest or classes < 1:
        raise ValueError(
            f"raw has shape {raw.shape}; expected [batch, {head.side} * {head.side} * (classes + {head.num} * 5)]"
        )
    return classes


def split_row(raw: Float32[tf.Tensor, "batch numbers"], head: DetectionHead) -> CellPredictions:
    """One row of numbers for an image, taken apart (Darknet detection_layer.c forward_detection_layer).

    raw: the classes of all cells, row by row, then the objectness of all boxes, then x, y, width, height of each.
    """
    cells, classes = head.side * head.side, num_classes(raw, head)
    per_class, objectness, boxes = tf.split(raw, [cells * n for n in (classes, head.num, head.num * COORDS)], axis=1)
    shape = [-1, head.side, head.side]
    per_class = tf.reshape(per_class, [*shape, classes])
    return CellPredictions(
        tf.nn.softmax(per_class) if head.softmax else per_class,
        tf.reshape(objectness, [*shape, head.num]),
        tf.reshape(boxes, [*shape, head.num, COORDS]),
    )


def joined_row(cells: CellPredictions) -> Float32[tf.Tensor, "batch numbers"]:
    """The inverse of `split_row`, but for the softmax."""
    return tf.concat([tf.reshape(part, [part.shape[0], -1]) for part in cells], axis=1)


def sizes_of(boxes: Float32[tf.Tensor, "*slots cxcywh=4"], head: DetectionHead) -> Float32[tf.Tensor, "*slots 2"]:
    """(width, height) relative to the image. boxes: cxcywh as in `CellPredictions`."""
    return tf.square(boxes[..., 2:]) if head.sqrt else boxes[..., 2:]


def decode(
    outputs: Sequence[Float[tf.Tensor, "batch numbers"]], head: DetectionHead, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Every box of every cell: yxyx relative to the network input, and scores = objectness * class of the cell.

    outputs: one tensor. Boxes are ordered by row, column, box (Darknet get_detection_detections). `input_size` is not
    read: everything is relative.
    """
    (raw,) = outputs
    cells = split_row(tf.cast(raw, tf.float32), head)
    boxes = tf.concat([centres_of(cells.boxes[..., :2]), sizes_of(cells.boxes, head)], axis=-1)
    return joined([boxes], [cells.objectness[..., tf.newaxis] * cells.classes[..., tf.newaxis, :]])
