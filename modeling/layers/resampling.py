"""Other sizes from the same numbers: Darknet's [upsample], [reorg], [reorg3d] and [crop]."""

from typing import no_type_check

import keras
import tensorflow as tf

from modeling.layers.gradients import hand_gradient


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Upsample(keras.layers.Layer):
    """Every number `stride` times in height and width, times `scale` (Darknet upsample_layer.c).

    A negative stride goes the other way: the sum of each block of -stride by -stride, times `scale`.
    """

    def __init__(self, stride: int = 2, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.stride, self.scale = stride, scale

    def call(self, inputs):
        if self.stride < 0:
            return tf.nn.avg_pool2d(inputs, -self.stride, -self.stride, "VALID") * (self.stride**2 * self.scale)
        outputs = hand_gradient(self._enlarge, self._sum_of_blocks)(inputs)
        return outputs if self.scale == 1 else outputs * self.scale

    def _enlarge(self, inputs):
        outputs = tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=tf.shape(inputs)[1:3] * self.stride)
        return tf.ensure_shape(outputs, self.compute_output_shape(inputs.shape))  # which the size as a tensor hides

    def _sum_of_blocks(self, inputs, outputs, upstream):
        """XLA has no gradient of that operation."""
        return tf.nn.avg_pool2d(upstream, self.stride, self.stride, "VALID") * self.stride**2

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        step = self.stride
        return batch, *((side and (side * step if step > 0 else side // -step)) for side in sides), channels


@keras.saving.register_keras_serializable("detector")
@no_type_check
class SpaceToDepth(keras.layers.Layer):
    """Blocks of stride by stride become channels: (row of the block, its column, channel) (Darknet [reorg3d])."""

    def __init__(self, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs):
        return inputs if self.stride == 1 else tf.nn.space_to_depth(inputs, self.stride)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        return batch, *(side and side // self.stride for side in sides), channels * self.stride**2


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Reorg(keras.layers.Layer):
    """Darknet's [reorg] (reorg_old_layer.c): [b, h, w, c] -> [b, h / stride, w / stride, c * stride^2], or `reverse`.

    Not a space-to-depth: forward it reads its input, in the order channel, row, column, as if that were an image of
    c / stride^2 channels and stride times the sides, and its output as if it had the input's shape. The published
    weights of YOLOv2 were trained with this.
    """

    def __init__(self, stride: int, reverse: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.stride, self.reverse = stride, reverse

    def call(self, inputs):
        step = self.stride
        height, width, channels = inputs.shape[1:]
        if height is None or width is None:
            _, height, width, _ = tf.unstack(tf.shape(inputs))
        planar = tf.transpose(inputs, [0, 3, 1, 2])  # [b, c, h, w]
        if self.reverse:
            blocks = tf.reshape(planar, [-1, step, step, channels // step**2, height, width])
            image = tf.transpose(blocks, [0, 3, 4, 1, 5, 2])  # [b, c / step^2, h, step, w, step]
            outputs = tf.reshape(image, [-1, channels // step**2, height * step, width * step])
        else:
            image = tf.reshape(planar, [-1, channels // step**2, height, step, width, step])
            blocks = tf.transpose(image, [0, 3, 5, 1, 2, 4])  # [b, step, step, c / step^2, h, w]
            outputs = tf.reshape(blocks, [-1, channels * step**2, height // step, width // step])
        return tf.transpose(outputs, [0, 2, 3, 1])  # [b, rows, columns, channels]

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        step = self.stride
        if self.reverse:
            return batch, *(side and side * step for side in sides), channels // step**2
        return batch, *(side and side // step for side in sides), channels * step**2


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Crop(keras.layers.Layer):
    """The middle `height` by `width` of an image, from 0..1 to -1..1 unless `adjust` is off (Darknet crop_layer.c)."""

    def __init__(self, height: int, width: int, adjust: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.height, self.width, self.adjust = height, width, adjust

    def call(self, inputs):
        top, left = (inputs.shape[1] - self.height) // 2, (inputs.shape[2] - self.width) // 2
        middle = inputs[:, top : top + self.height, left : left + self.width]
        return middle * 2 - 1 if self.adjust else middle

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.height, self.width, input_shape[3]
