"""What the toy's raw numbers mean."""

import tensorflow as tf
from jaxtyping import Float, Float32

from official.vision.boxes import cxcywh_to_yxyx


def decode(
    raw: Float[tf.Tensor, "batch rows columns entries"],
) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
    """Boxes yxyx relative to the input, and scores 0..1; one for each cell, row by row.

    entries: x and y of the centre in the cell, width and height relative to the input, one for each class; all logits.
    """
    rows, columns, entries = raw.shape[1:]
    x, y = tf.meshgrid(tf.range(columns, dtype=tf.float32), tf.range(rows, dtype=tf.float32))
    numbers = tf.sigmoid(tf.cast(raw, tf.float32))
    centre = (numbers[..., :2] + tf.stack([x, y], axis=-1)) / [columns, rows]
    boxes = cxcywh_to_yxyx(tf.concat([centre, numbers[..., 2:4]], axis=-1))  # [batch, rows, columns, 4]
    return tf.reshape(boxes, [-1, rows * columns, 4]), tf.reshape(numbers[..., 4:], [-1, rows * columns, entries - 4])
