"""Heights and widths that may be unknown until run time: inputs of any size, as evaluation without resizing has."""

import tensorflow as tf


def sides_of(maps: tf.Tensor) -> list:
    """(rows, columns) of [batch, rows, columns, ...]: whole numbers where they are static, else scalar tensors."""
    shape = tf.shape(maps)
    return [shape[axis] if maps.shape[axis] is None else maps.shape[axis] for axis in (1, 2)]
