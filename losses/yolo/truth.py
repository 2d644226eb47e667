"""What the YOLO losses ask of a `Truth`, and the cell of a head's grid that answers for each object.

Boxes are cxcywh relative to the network input, 0..1.
"""

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

from losses.truth import Truth
from official.core.expect import expect_fields, expect_relative


def check_truth(truth: Truth, batch: int | None) -> None:
    """Raises a TensorError of what is no `Truth` of as many images or, where values are at hand, is in pixels."""
    meanings = {
        "boxes": "cxcywh relative to the network input, 0..1",
        "classes": "contiguous ids from 0",
        "valid": "False for padding",
    }
    expect_fields("labels", truth, Truth, meanings, {"batch": batch})
    expect_relative("labels.boxes", truth.boxes, truth.valid, "cxcywh")


def usable(truth: Truth) -> Bool[tf.Tensor, "batch truths"]:
    """The rows that are no padding and have an area. Darknet's loader lets no smaller box than a pixel pass."""
    without_area = tf.reduce_any(truth.boxes[..., 2:] <= 0, axis=-1)  # [batch, truths]
    return truth.valid & ~without_area


def cells_of(
    boxes: Float32[tf.Tensor, "batch truths cxcywh=4"], rows: int, columns: int
) -> Int32[tf.Tensor, "batch truths 2"]:
    """(row, column) of each cxcywh box's centre, always in range.

    A centre on the far border belongs to the last cell (Darknet: to a cell that is not there).
    """
    cells = tf.cast(boxes[..., 1::-1] * tf.constant([rows, columns], tf.float32), tf.int32)
    return tf.clip_by_value(cells, 0, [rows - 1, columns - 1])
