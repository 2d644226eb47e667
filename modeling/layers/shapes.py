"""Heights and widths that may be unknown until run time: inputs of any size, as evaluation without resizing has."""

import keras
import tensorflow as tf
from jaxtyping import Float, Shaped

Features = Float[keras.KerasTensor, "batch _rows _columns _channels"]  # symbolic, while a network is built


def sides_of(maps: Shaped[tf.Tensor, "batch rows columns ..."]) -> list:
    """(rows, columns) of [batch, rows, columns, ...]: whole numbers where they are static, else scalar tensors."""
    shape = tf.shape(maps)
    return [shape[axis] if maps.shape[axis] is None else maps.shape[axis] for axis in (1, 2)]
