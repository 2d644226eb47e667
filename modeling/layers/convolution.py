"""Convolution with Darknet's padding and initial weights."""

from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import keras
import tensorflow as tf

from modeling.layers.convolution_ops import convolve


class Geometry(NamedTuple):
    """Where a kernel is laid: (rows, columns) between two places, zeros on each of the four sides, gaps in the kernel.

    With gaps, `padding` counts dilated rows: padding * dilation zeros.
    """

    stride: tuple[int, int]
    padding: int
    dilation: int

    @classmethod
    def of(cls, size: int, stride: int | Sequence[int] = 1, padding: int | None = None, dilation: int = 1):
        """Of a kernel of `size`; without `padding` it is size // 2 (Darknet's `pad=1`)."""
        rows, columns = (stride, stride) if isinstance(stride, int) else stride
        return cls((rows, columns), size // 2 if padding is None else padding, dilation)

    def output_side(self, side: int | None, size: int, stride: int) -> int | None:
        """The output's height or width, None where the input's is not known (Darknet convolutional_out_height).

        Darknet leaves the dilation out of account, as the padding makes up for it where padding is size // 2.
        """
        return None if side is None else (side + 2 * self.padding - size) // stride + 1


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Convolution(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, rows, columns, filters].

    rows = (height + 2 * padding - size) // stride + 1, columns alike: zeros on all four sides at every stride (`SAME`
    pads right and bottom only at stride 2); see `Geometry`. `groups` parts of the channels are convolved to as many
    parts of the filters. Kernel [size, size, channels / groups, filters], from U(-1, 1) * sqrt(2 / fan_in) (Darknet
    convolutional_layer.c make_convolutional_layer). `bias` is its initial value, one for all filters or one for each
    (Darknet: 0); None: no bias. With `binary` (Darknet `xnor`) the input counts by its sign alone, and a filter's
    weights by their signs and their mean size.

    Called again with a `geometry`, it lays its kernel out in another way (Darknet `share_index`).
    """

    def __init__(
        self,
        filters: int,
        size: int,
        stride: int | Sequence[int] = 1,
        *,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        binary: bool = False,
        bias: float | list[float] | None,
        seed: int,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters, self.size, self.groups, self.binary = filters, size, groups, binary
        self.geometry = Geometry.of(size, stride, padding, dilation)
        self.initial_bias, self.seed = bias, seed
        self.bias = None

    def build(self, input_shape):
        # Variance 2 / (3 fan_in), uniform: limits +- sqrt(2 / fan_in).
        initial = keras.initializers.VarianceScaling(2 / 3, mode="fan_in", distribution="uniform", seed=self.seed)
        shape = (self.size, self.size, input_shape[-1] // self.groups, self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initial)
        if self.initial_bias is not None:
            constant = keras.initializers.Constant(self.initial_bias)
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=constant)

    def call(self, inputs, geometry=None):
        geometry = self.geometry if geometry is None else Geometry(*geometry)
        kernel = tf.convert_to_tensor(self.kernel)
        if self.binary:
            inputs = tf.where(inputs > 0, tf.ones_like(inputs), -1)
            size = tf.reduce_mean(tf.abs(kernel), [0, 1, 2], keepdims=True)
            kernel = tf.where(kernel > 0, size, -size)
        outputs = self._convolve(inputs, kernel, geometry)
        return outputs if self.bias is None else tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))

    def _convolve(self, inputs, kernel, geometry):
        stride, zeros = tuple(geometry.stride), geometry.padding * geometry.dilation
        extent = (self.size - 1) * geometry.dilation
        # At stride 1, SAME is the same zeros where there are as many on both sides; exporters and fusions know it best.
        same = stride == (1, 1) and 2 * zeros == extent
        if zeros and not same:
            # As an operation of its own: with explicit paddings, TensorFlow has no gradient of groups on a CPU, and
            # aborts on depthwise convolutions.
            inputs = tf.pad(inputs, [[0, 0], [zeros, zeros], [zeros, zeros], [0, 0]])
        padding = "SAME" if same else "VALID"
        if inputs.shape[-1] == self.groups > 1 and stride[0] == stride[1] and geometry.dilation == 1:
            # [size, size, 1, filters] -> [size, size, channels, filters / channels]
            kernel = tf.reshape(kernel, [self.size, self.size, self.groups, -1])
            return tf.nn.depthwise_conv2d(inputs, kernel, [1, *stride, 1], padding)
        return convolve(inputs, kernel, stride, padding, geometry.dilation)

    def compute_output_spec(self, inputs, geometry=None):
        geometry = self.geometry if geometry is None else Geometry(*geometry)
        batch, *sides, _ = inputs.shape
        sides = [geometry.output_side(side, self.size, step) for side, step in zip(sides, geometry.stride, strict=True)]
        return keras.KerasTensor((batch, *sides, self.filters), dtype=self.compute_dtype)
