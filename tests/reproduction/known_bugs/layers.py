"""Bugs of layers: entries 9 to 14."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from pytest import MonkeyPatch

from modeling.darknet import build, loading
from modeling.layers import activations, batch_norm, merging, pooling, resampling
from modeling.layers.convolution import Convolution
from tests.reproduction.known_bugs.bug import Bug


def _epsilon(value: float) -> Callable[[MonkeyPatch], None]:
    def plant(patch: MonkeyPatch) -> None:
        made = batch_norm.BatchNorm
        patch.setattr(build, "BatchNorm", lambda *rest, **options: made(*rest, **{**options, "epsilon": value}))

    return plant


def _epsilon_outside(patch: MonkeyPatch) -> None:
    """(x - mean) / (sqrt(variance) + 1e-6), as in the older Darknet."""
    right = batch_norm.BatchNorm._fused

    def outside(self, inputs, mean, variance, is_training):
        if not is_training:
            variance = tf.square(tf.sqrt(tf.convert_to_tensor(variance)) + 1e-6) - self.epsilon
        return right(self, inputs, mean, variance, is_training)

    patch.setattr(batch_norm.BatchNorm, "_fused", outside)


def _momentum(share_of_old: float) -> Callable[[MonkeyPatch], None]:
    """PyTorch's momentum is the share of the new, Keras's that of the old."""

    def plant(patch: MonkeyPatch) -> None:
        made = batch_norm.BatchNorm
        patch.setattr(build, "BatchNorm", lambda momentum, **options: made(share_of_old, **options))

    return plant


def _biased_moving_variance(patch: MonkeyPatch) -> None:
    """Keras's and TensorFlow's plain batch-norm move the biased variance."""
    right = batch_norm.BatchNorm._fused

    def biased(self, inputs, mean, variance, is_training):
        outputs, mean, variance = right(self, inputs, mean, variance, is_training)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        return outputs, mean, variance * (count - 1) / count if is_training else variance

    patch.setattr(batch_norm.BatchNorm, "_fused", biased)


def _same_padding(patch: MonkeyPatch) -> None:
    def convolve(self, inputs, kernel, geometry):
        return tf.nn.conv2d(inputs, kernel, tuple(geometry.stride), "SAME", dilations=geometry.dilation)

    patch.setattr(Convolution, "_convolve", convolve)


def _max_pool_of_zeros(patch: MonkeyPatch) -> None:
    def call(self, inputs):
        return tf.nn.max_pool2d(self.pad(inputs, 0), self.size, self.stride, "VALID")

    patch.setattr(pooling.MaxPool, "call", call)


def _max_pool_same(patch: MonkeyPatch) -> None:
    """Where Darknet's windows start half of the padding, rounded down, before the image."""
    patch.setattr(
        pooling.MaxPool, "call", lambda self, inputs: tf.nn.max_pool2d(inputs, self.size, self.stride, "SAME")
    )


def _first_half(patch: MonkeyPatch) -> None:
    def call(self, inputs):
        return tf.split(inputs, self.groups, axis=-1)[self.groups - 1 - self.index]

    patch.setattr(merging.ChannelSlice, "call", call)


def _route_reversed(patch: MonkeyPatch) -> None:
    right = keras.layers.Concatenate.call
    patch.setattr(keras.layers.Concatenate, "call", lambda self, inputs: right(self, inputs[::-1]))


def _channels_from_the_end(patch: MonkeyPatch) -> None:
    def fitted(tensor, channels):
        missing = channels - tensor.shape[-1]
        return tf.pad(tensor, [[0, 0], [0, 0], [0, 0], [missing, 0]]) if missing > 0 else tensor[..., -channels:]

    patch.setattr(merging, "_fitted", fitted)


def _bilinear(patch: MonkeyPatch) -> None:
    def enlarge(self, inputs):
        outputs = tf.image.resize(inputs, tf.shape(inputs)[1:3] * self.stride, "bilinear")
        return tf.ensure_shape(outputs, self.compute_output_shape(inputs.shape))

    patch.setattr(resampling.Upsample, "_enlarge", enlarge)


def _activation(name: str, function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[MonkeyPatch], None]:
    return lambda patch: patch.setitem(activations.ACTIVATIONS, name, function)


def _leaky(slope: float) -> Callable[[MonkeyPatch], None]:
    return _activation("leaky", lambda x: tf.nn.leaky_relu(x, alpha=slope))


def _clipped_mish(x: tf.Tensor) -> tf.Tensor:
    """Through a softplus whose argument is cut, as against overflow."""
    return x * tf.tanh(tf.math.log1p(tf.exp(tf.minimum(x, 1.0))))


def _reorg_by_blocks(patch: MonkeyPatch) -> None:
    patch.setattr(resampling.Reorg, "call", lambda self, inputs: tf.nn.space_to_depth(inputs, self.stride))


def _flat_by_rows(patch: MonkeyPatch) -> None:
    patch.setattr(
        merging.Flatten, "call", lambda self, inputs: tf.reshape(inputs, [-1, int(np.prod(inputs.shape[1:]))])
    )


def _kernels_turned(patch: MonkeyPatch) -> None:
    """OIHW read as HWIO with rows and columns exchanged."""
    axes = dict(loading._AXES)
    kernel = (Convolution, "weights")
    rows, columns, *rest = axes[kernel]
    patch.setitem(loading._AXES, kernel, (columns, rows, *rest))


BUGS = (
    Bug("batch-norm's epsilon 1e-3 (Keras)", (9,), _epsilon(1e-3), 2, ("act_bn_leaky",),
        "act_bn_leaky: eval/L000_output", "batch_norm_epsilon", quick=True),
    Bug("batch-norm's epsilon 1e-6 (OpenCV)", (9,), _epsilon(1e-6), 2, ("act_bn_leaky",),
        "act_bn_leaky: eval/L000_output", "batch_norm_epsilon"),
    Bug("batch-norm's epsilon 1e-6 outside the root", (9,), _epsilon_outside, 2, ("act_bn_leaky",),
        "act_bn_leaky: eval/L000_output", "batch_norm_epsilon_outside"),
    Bug("batch-norm's momentum 0.1 meant as PyTorch's", (10,), _momentum(0.1), 6, ("ciou_v4",),
        "ciou_v4: after/L000_rolling_mean", "batch_norm_momentum"),
    Bug("batch-norm's momentum 0.03 meant as PyTorch's", (10,), _momentum(0.03), 6, ("ciou_v4",),
        "ciou_v4: after/L000_rolling_mean", "batch_norm_momentum"),
    Bug("the moving variance is the biased one", (10,), _biased_moving_variance, 6, ("ciou_v4",),
        "ciou_v4: after/L???_rolling_variance", "batch_norm_variance"),
    Bug("padding SAME at stride 2", (11,), _same_padding, 2, ("conv_s2_even",),
        "conv_s2_even: eval/L000_output", "padding_same", quick=True),
    Bug("2/1 max-pooling with zeros outside", (12,), _max_pool_of_zeros, 2, ("maxpool_2s1",),
        "maxpool_2s1: eval/L001_output", "maxpool_zero_padding"),
    Bug("3/2 max-pooling with SAME's offset", (12,), _max_pool_same, 2, ("maxpool_3s2_even",),
        "maxpool_3s2_even: eval/L001_output", "pooling_shift"),
    Bug("a route takes the other half of the channels", (13,), _first_half, 2, ("route_groups2_1",),
        "route_groups2_1: eval/L003_output", "route_groups", quick=True),
    Bug("a route joins in the reverse order", (13,), _route_reversed, 2, ("route_two",),
        "route_two: eval/L00?_output", "route_order"),
    Bug("a shortcut of fewer channels adds them to the last", (13,), _channels_from_the_end, 2,
        ("shortcut_fewer_from",),
        "shortcut_fewer_from: eval/L00?_output", "shortcut_channels"),
    Bug("upsampling interpolates", (13,), _bilinear, 2, ("upsample2",),
        "upsample2: eval/L00?_output", "upsample_bilinear"),
    Bug("mish through a clipped softplus", (14,), _activation("mish", _clipped_mish), 2, ("act_bn_mish",),
        "act_bn_mish: eval/L000_output", "mish_softplus_clipped"),
    Bug("leaky slope 0.2 (TensorFlow)", (14,), _leaky(0.2), 2, ("activations/leaky", "act_bn_leaky"),
        "activations/leaky: leaky", "leaky_slope"),
    Bug("leaky slope 0.3 (Keras), in a network", (14,), _leaky(0.3), 2, ("act_bn_leaky",),
        "act_bn_leaky: eval/L000_output", "leaky_slope"),
    Bug("reorg as a space-to-depth", (13,), _reorg_by_blocks, 2, ("reorg_s2",),
        "reorg_s2: eval/L00?_output", "reorg_order"),
    Bug("maps flattened row by row", (13,), _flat_by_rows, 2, ("connected",),
        "connected: eval/L00?_output", "flatten_order"),
    Bug("kernels with rows and columns exchanged", (1,), _kernels_turned, 2, ("conv_s2_even",),
        "conv_s2_even: eval/L000_output", "weights_layout"),
)  # fmt: skip
