"""Activations by their Darknet names (Darknet activations.c and activations.h)."""

from collections.abc import Callable
from typing import no_type_check

import keras
import tensorflow as tf

from modeling.layers.gradients import hand_gradient

Tensor = tf.Tensor
EPSILON = 1e-4  # in the sums that the normalize_channels activations divide by


def _by_output(forward: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]) -> Callable:
    """`forward`, with the derivative taken at the output, as Darknet's `gradient` does."""
    return hand_gradient(forward, lambda inputs, outputs, upstream: upstream * derivative(outputs))


_LARGEST = 20.0  # beyond it, mish(x) is x in float32


def _exponentials(x):
    """e^x, n and n + 2, of which tanh(softplus(x)) = n / (n + 2); finite for all x."""
    e = tf.exp(tf.minimum(x, _LARGEST))
    n = e * (e + 2)
    return e, n, n + 2


def _mish(x):
    """x * tanh(softplus(x)), in another form: TensorFlow fuses that one with batch-norm and then cannot compute it."""
    _, n, more = _exponentials(x)
    return x * (n / more)


def _mish_gradient(inputs, outputs, upstream):
    """From the inputs alone, so that nothing else is kept for the backward pass."""
    e, n, more = _exponentials(inputs)
    return upstream * (n / more + tf.minimum(inputs, _LARGEST) * (4 * e / more) * ((e + 1) / more))


def _selu(x):
    return tf.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * tf.math.expm1(tf.minimum(x, 0.0)))


def _gelu(x):
    return 0.5 * x * (1 + tf.tanh(0.797885 * x + 0.035677 * x**3))


def _gelu_derivative(y):
    """GELU's derivative at an input y; Darknet evaluates it at the output."""
    cube = y**3
    inner = 0.0356774 * cube + 0.797885 * y
    return 0.5 * tf.tanh(inner) + (0.0535161 * cube + 0.398942 * y) / tf.square(tf.cosh(inner)) + 0.5


def _plse(x):
    outside = tf.where(x < -4, 0.01 * (x + 4), 0.01 * (x - 4) + 1)
    return tf.where(tf.abs(x) > 4, outside, 0.125 * x + 0.5)


def _stair(x):
    below = tf.floor(x)
    half = tf.floor(x / 2)
    return tf.where(tf.math.floormod(below, 2.0) == 0, half, x - below + half)


def _one_between(low, high, outside):
    return lambda y: tf.where((y > low) & (y < high), tf.ones_like(y), outside)


def _hard_mish(x):
    return tf.where(x > 0, x, tf.where(x > -2, x * x / 2 + x, 0.0))


def _shares(values):
    return values / (tf.reduce_sum(values, axis=-1, keepdims=True) + EPSILON)


def _exponential_shares(x):
    return _shares(tf.exp(x))


def _exponential_shares_of_largest(x):
    return _shares(tf.exp(x - tf.reduce_max(x, axis=-1, keepdims=True)))


def _share_gradient(inputs, outputs, upstream):
    """Not the derivative: every channel's gradient times the sum over channels of output * gradient."""
    return upstream * tf.reduce_sum(outputs * upstream, axis=-1, keepdims=True)


def _positive_share_gradient(inputs, outputs, upstream):
    return tf.where(outputs > 0, _share_gradient(inputs, outputs, upstream), upstream)


# What is not wrapped has the same derivative at input and output; kernel fusions know only the plain operations.
ACTIVATIONS = {
    "leaky": lambda x: tf.nn.leaky_relu(x, alpha=0.1),  # the usual defaults, 0.2 and 0.3, are not Darknet's
    "revleaky": lambda x: tf.nn.leaky_relu(x, alpha=0.1),
    "mish": hand_gradient(_mish, _mish_gradient),
    "hard_mish": _hard_mish,
    "swish": tf.nn.silu,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,  # Darknet's CPU build computes 0 here, its GPU build this
    "relie": lambda x: tf.nn.leaky_relu(x, alpha=0.01),
    "ramp": lambda x: tf.nn.relu(x) + 0.1 * x,
    "elu": tf.nn.elu,
    "selu": _selu,
    "gelu": _by_output(_gelu, _gelu_derivative),
    "logistic": tf.nn.sigmoid,
    "loggy": lambda x: 2 * tf.nn.sigmoid(x) - 1,
    "tanh": lambda x: 2 * tf.nn.sigmoid(2 * x) - 1,  # as Darknet does; what is said of mish holds for tf.tanh too
    "linear": tf.identity,
    "plse": _plse,
    "stair": _by_output(_stair, lambda y: tf.cast(tf.floor(y) != y, y.dtype)),
    "hardtan": _by_output(lambda x: tf.clip_by_value(x, -1.0, 1.0), _one_between(-1, 1, 0.0)),
    "lhtan": _by_output(
        lambda x: tf.where(x < 0, 0.001 * x, tf.where(x > 1, 0.001 * (x - 1) + 1, x)), _one_between(0, 1, 0.001)
    ),
    "normalize_channels": hand_gradient(lambda x: _shares(tf.nn.relu(x)), _positive_share_gradient),
    "normalize_channels_softmax": hand_gradient(_exponential_shares, _share_gradient),
    "normalize_channels_softmax_maxval": hand_gradient(_exponential_shares_of_largest, _share_gradient),
}


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Activation(keras.layers.Layer):
    """Applies `ACTIVATIONS[activation]` to a tensor of any shape; the normalize_channels ones act on the last axis."""

    def __init__(self, activation: str, **kwargs):
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"layer {self.name}: no activation {activation!r}; there are {sorted(ACTIVATIONS)}")
        self.activation = activation

    def call(self, inputs):
        return ACTIVATIONS[self.activation](inputs)

    def compute_output_shape(self, input_shape):
        return input_shape
