"""Convolution and batch-norm with the names and initial weights of a PyTorch network.

Layers are named `backbone_`, `decoder_` or `head_` and then as PyTorch's state dict names the module, dots and all
(`backbone_layer1.0.conv1`): modeling/weights/torch_names.py needs no table.
"""

import dataclasses
import math
import zlib
from typing import Literal, no_type_check

import keras
import tensorflow as tf
from jaxtyping import Float32

from modeling.layers.activations import Activation
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from modeling.layers.shapes import Features, sides_of

Bias = float | Literal["uniform"] | None  # initial value; "uniform" as the kernel; None: no bias


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


@dataclasses.dataclass(frozen=True)
class TorchStyle:
    """What all blocks of a network share. `folded`: batch-norm's scale and shift are in kernel and bias."""

    norm: Literal["local", "sync", "folded"]
    norm_momentum: float
    seed: int
    # Layer name of each batch-norm by that of the convolution before it, which folding takes it into.
    norms: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def bias_before_norm(self) -> Bias:
        return 0.0 if self.norm == "folded" else None

    def seed_of(self, name: str) -> int:
        """A layer's own seed, which does not depend on the layers around it."""
        return zlib.crc32(f"{self.seed}/{name}".encode()) & 0x3FFFFFFF


def convolution_norm(
    inputs: Features, filters: int, size: int, stride: int = 1, *, name: str, norm: str, style: TorchStyle
) -> Features:
    """Convolution (layer `name`, zeros on all sides) and batch-norm (layer `norm`, unless folded)."""
    layer = TorchConvolution(filters, size, stride, bias=style.bias_before_norm, seed=style.seed_of(name), name=name)
    return normalised(layer(inputs), name, norm, style)


def normalised(inputs: Features, name: str, norm: str, style: TorchStyle) -> Features:
    """Batch-norm (layer `norm`, unless folded) of what the convolution `name` puts out."""
    style.norms[name] = norm
    if style.norm == "folded":
        return inputs
    return BatchNorm(style.norm_momentum, sync=style.norm == "sync", name=norm)(inputs)


def relu(inputs: Features, name: str) -> Features:
    return Activation("relu", name=name)(inputs)


def add_relu(one: Features, other: Features, name: str) -> Features:
    """ReLU (layer `name`) of the sum (layer `name`_sum)."""
    return relu(keras.layers.Add(name=f"{name}_sum")([one, other]), name)


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
