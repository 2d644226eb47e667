"""Max-pooling and channel selection with Darknet's geometry."""

from typing import no_type_check

import keras
import tensorflow as tf


@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class MaxPool(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, ceil(height / stride), ceil(width / stride), channels].

    Pads `size - 1` in all, of which `(size - 1) // 2` left and top, with minus infinity (Darknet maxpool_layer.c):
    2/1 pooling looks right and down only, and the border never wins over a negative value.
    """

    def __init__(self, size: int, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.size, self.stride = size, stride

    def call(self, inputs):
        if self.size == 2 or (self.stride == 1 and self.size % 2 == 1):  # where SAME pads alike
            return tf.nn.max_pool2d(inputs, self.size, self.stride, "SAME")
        before = (self.size - 1) // 2
        sides = [before, self.size - 1 - before]
        padded = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]], constant_values=inputs.dtype.min)
        return tf.nn.max_pool2d(padded, self.size, self.stride, "VALID")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, *((side and -(-side // self.stride)) for side in (height, width)), channels


@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class ChannelSlice(keras.layers.Layer):
    """Part `index` of `groups` equal parts of the channels (Darknet [route] with groups and group_id)."""

    def __init__(self, groups: int, index: int, **kwargs):
        super().__init__(**kwargs)
        self.groups, self.index = groups, index

    def call(self, inputs):
        # Not inputs[..., a:b]: the gradient of a strided slice takes six times as long on a CPU.
        return tf.split(inputs, self.groups, axis=-1)[self.index]

    def compute_output_shape(self, input_shape):
        *rest, channels = input_shape
        if channels % self.groups:
            raise ValueError(f"layer {self.name}: {channels} channels do not divide into {self.groups} groups")
        return *rest, channels // self.groups
