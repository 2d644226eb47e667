"""Convolutions with the initial weights of a PyTorch network."""

import math
from typing import Literal, no_type_check

import keras
import tensorflow as tf
from jaxtyping import Float32

from modeling.layers.convolution import Convolution
from modeling.layers.shapes import sides_of

Bias = float | list[float] | Literal["uniform"] | None  # initial value; "uniform" as the kernel; None: no bias


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class TorchConvolution(Convolution):
    """A Convolution that starts as PyTorch's: kernel (and bias) from U(-1, 1) / sqrt(fan_in), or N(0, spread)."""

    def __init__(
        self, filters: int, size: int, stride: int = 1, *, bias: Bias, spread: float | None = None, seed: int, **kwargs
    ):
        super().__init__(filters, size, stride, bias=None, seed=seed, **kwargs)
        self.bias_rule, self.spread = bias, spread

    def build(self, input_shape):
        shape = (self.size, self.size, input_shape[-1], self.filters)
        limit = 1 / math.sqrt(self.size * self.size * input_shape[-1])
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        normal = keras.initializers.RandomNormal(stddev=self.spread, seed=self.seed) if self.spread else uniform
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=normal)
        if self.bias_rule is not None:
            other = keras.initializers.RandomUniform(-limit, limit, seed=self.seed + 1)
            initial = other if self.bias_rule == "uniform" else keras.initializers.Constant(self.bias_rule)
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=initial)


@keras.saving.register_keras_serializable("detector")
@no_type_check
class UpConvolution(keras.layers.Layer):
    """Transposed 4x4 convolution, [batch, rows, columns, channels] -> [batch, 2 rows, 2 columns, filters].

    PyTorch's with padding 1. Kernel [4, 4, filters, channels]; from N(0, 0.001), or with `bilinear` from U(-1, 1) /
    sqrt(16 filters) but for the first filter, which is bilinear interpolation of every channel: so the original of
    ResDCN, whose routine for one-channel kernels fills no more (resnet_dcn.py fill_up_weights).
    """

    def __init__(self, filters: int, *, bilinear: bool, bias: float | None, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.bilinear, self.initial_bias, self.seed = filters, bilinear, bias, seed
        self.bias = None

    def build(self, input_shape):
        limit = 1 / math.sqrt(16 * self.filters)
        uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        normal = keras.initializers.RandomNormal(stddev=0.001, seed=self.seed)

        def first_filter_bilinear(shape, dtype=None):
            first = tf.broadcast_to(bilinear_kernel(4)[:, :, tf.newaxis, tf.newaxis], (4, 4, 1, shape[3]))
            return tf.concat([tf.cast(first, dtype), uniform((4, 4, shape[2] - 1, shape[3]), dtype)], axis=2)

        initial = first_filter_bilinear if self.bilinear else normal
        shape = (4, 4, self.filters, input_shape[-1])
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initial)
        if self.initial_bias is not None:
            constant = keras.initializers.Constant(self.initial_bias)
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=constant)

    def call(self, inputs):
        rows, columns = sides_of(inputs)
        shape = [tf.shape(inputs)[0], 2 * rows, 2 * columns, self.filters]
        outputs = tf.nn.conv2d_transpose(inputs, tf.convert_to_tensor(self.kernel), shape, 2, "SAME")
        return outputs if self.bias is None else tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        return batch, *(side and 2 * side for side in sides), self.filters


@keras.saving.register_keras_serializable("detector")
@no_type_check
class BilinearUp(keras.layers.Layer):
    """Each channel `factor` times as large (even), by a transposed convolution of its own that starts as bilinear.

    PyTorch's with groups, kernel 2 factor, padding factor / 2. Kernel [2 factor, 2 factor, 1, channels], trained.
    """

    def __init__(self, factor: int, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        def bilinear(shape, dtype=None):
            return tf.cast(tf.broadcast_to(bilinear_kernel(shape[0])[:, :, tf.newaxis, tf.newaxis], shape), dtype)

        shape = (2 * self.factor, 2 * self.factor, 1, input_shape[-1])
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=bilinear)

    def call(self, inputs):
        (rows, columns), channels = sides_of(inputs), inputs.shape[3]
        return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=[tf.shape(inputs)[0], rows * self.factor, columns * self.factor, channels],
            filter=tf.transpose(tf.convert_to_tensor(self.kernel), [0, 1, 3, 2]),  # [size, size, channels, 1]
            out_backprop=inputs,
            strides=[1, self.factor, self.factor, 1],
            padding="SAME",
        )

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        return batch, *(side and side * self.factor for side in sides), channels


def bilinear_kernel(size: int) -> Float32[tf.Tensor, "{size} {size}"]:
    """[size, size] float32, size even: weights of a transposed convolution with stride size / 2 that interpolates."""
    half = size // 2
    centre = (2 * half - 1 - half % 2) / (2 * half)
    line = 1 - tf.abs(tf.range(size, dtype=tf.float32) / half - centre)
    return line[:, tf.newaxis] * line
