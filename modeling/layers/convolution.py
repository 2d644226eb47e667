"""Convolution with Darknet's padding and initial weights, and the block of convolution, norm and activation."""

import dataclasses
import zlib
from typing import Literal, no_type_check

import keras
import tensorflow as tf

from modeling.layers.activations import Activation
from modeling.layers.batch_norm import BatchNorm


@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Convolution(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, ceil(height / stride), ceil(width / stride), filters].

    `size // 2` zeros on all four sides at every stride (Darknet's `pad=1`; `SAME` pads right and bottom only at
    stride 2). `size` is odd. Kernel [size, size, channels, filters], from U(-1, 1) * sqrt(2 / fan_in) (Darknet
    convolutional_layer.c make_convolutional_layer). `bias` is its initial value, one for all filters or one for each
    (Darknet: 0); None: no bias.
    """

    def __init__(
        self, filters: int, size: int, stride: int = 1, *, bias: float | list[float] | None, seed: int, **kwargs
    ):
        super().__init__(**kwargs)
        if size % 2 == 0:
            raise ValueError(f"layer {self.name}: the kernel's size must be odd, got {size}")
        self.filters, self.size, self.stride, self.initial_bias, self.seed = filters, size, stride, bias, seed
        self.bias = None

    def build(self, input_shape):
        # Variance 2 / (3 fan_in), uniform: limits +- sqrt(2 / fan_in).
        initial = keras.initializers.VarianceScaling(2 / 3, mode="fan_in", distribution="uniform", seed=self.seed)
        shape = (self.size, self.size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initial)
        if self.initial_bias is not None:
            constant = keras.initializers.Constant(self.initial_bias)
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=constant)

    def call(self, inputs):
        sides = [self.size // 2] * 2
        # At stride 1 and odd size SAME is the same zeros; exporters and kernel fusions know it best.
        padding = "SAME" if self.stride == 1 else [[0, 0], sides, sides, [0, 0]]
        outputs = tf.nn.conv2d(inputs, tf.convert_to_tensor(self.kernel), self.stride, padding)
        return outputs if self.bias is None else tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return batch, *((side and -(-side // self.stride)) for side in (height, width)), self.filters


@dataclasses.dataclass(frozen=True)
class ConvStyle:
    """What all convolution blocks of a network share. `folded`: batch-norm's scale and shift are in kernel and bias."""

    activation: str
    norm: Literal["local", "sync", "folded"]
    norm_momentum: float
    seed: int

    def seed_of(self, name: str) -> int:
        """A layer's own seed, which does not depend on the layers around it."""
        return zlib.crc32(f"{self.seed}/{name}".encode()) & 0x7FFFFFFF


def conv_block(
    inputs: keras.KerasTensor, filters: int, size: int, stride: int = 1, *, name: str, style: ConvStyle
) -> keras.KerasTensor:
    """Convolution (layer `name`), batch-norm (`name`_norm, unless folded), activation (`name`_activation)."""
    folded = style.norm == "folded"
    x = Convolution(filters, size, stride, bias=0.0 if folded else None, seed=style.seed_of(name), name=name)(inputs)
    if not folded:
        x = BatchNorm(style.norm_momentum, sync=style.norm == "sync", name=f"{name}_norm")(x)
    return Activation(style.activation, name=f"{name}_activation")(x)


def scaled(filters: float) -> int:
    """A number of filters rounded to the nearest multiple of 8, at least 8."""
    return max(8, int(filters / 8 + 0.5) * 8)
