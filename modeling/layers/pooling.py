"""Pooling with Darknet's geometry."""

from typing import no_type_check

import keras
import tensorflow as tf

from modeling.layers.gradients import straight_through


@no_type_check
class _Pool(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, rows, columns, channels].

    rows = (height + padding - size) // stride + 1, columns alike. `padding` is the total of both sides, by default
    size - 1; half of it, rounded down, lies left and top. `stride` may be (rows, columns).
    """

    def __init__(self, size: int, stride: int | tuple[int, int], padding: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
        self.padding = size - 1 if padding is None else padding

    @property
    def pads_like_same(self):
        return self.padding == self.size - 1 and (self.size <= 2 or self.stride == (1, 1))

    def pad(self, inputs, value):
        if not self.padding:
            return inputs
        sides = [self.padding // 2, self.padding - self.padding // 2]
        return tf.pad(inputs, [[0, 0], sides, sides, [0, 0]], constant_values=value)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        spare = self.padding - self.size
        sides = [side and (side + spare) // stride + 1 for side, stride in zip(sides, self.stride, strict=True)]
        return batch, *sides, channels


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class MaxPool(_Pool):
    """The largest of a window; see `_Pool` for its place (Darknet maxpool_layer.c).

    Outside the image is minus infinity: 2/1 pooling looks right and down only, and the border never wins over a
    negative value.
    """

    def call(self, inputs):
        if self.pads_like_same:
            return tf.nn.max_pool2d(inputs, self.size, self.stride, "SAME")
        return tf.nn.max_pool2d(self.pad(inputs, inputs.dtype.min), self.size, self.stride, "VALID")


@keras.saving.register_keras_serializable("detector")
@no_type_check
class LocalAvgPool(_Pool):
    """The mean of what a window has of the image; see `_Pool` for its place (Darknet maxpool_layer.c).

    As in Darknet the gradient divides by the whole window, also at the border.
    """

    def call(self, inputs):
        means = tf.nn.avg_pool2d(self.pad(inputs, 0), self.size, self.stride, "VALID")  # with the zeros outside
        if not self.padding:
            return means
        inside = self.pad(tf.ones_like(inputs[:1, :, :, :1]), 0)
        return straight_through(means, means / tf.nn.avg_pool2d(inside, self.size, self.stride, "VALID"))


@keras.saving.register_keras_serializable("detector")
@no_type_check
class ChannelMaxPool(keras.layers.Layer):
    """Output channel g is the largest of the channels g, g + channels, g + 2 channels ... (Darknet `maxpool_depth`)."""

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, inputs):
        missing = -inputs.shape[-1] % self.channels
        padded = tf.pad(inputs, [[0, 0], [0, 0], [0, 0], [0, missing]], constant_values=inputs.dtype.min)
        return tf.reduce_max(tf.stack(tf.split(padded, padded.shape[-1] // self.channels, axis=-1)), axis=0)

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], self.channels
