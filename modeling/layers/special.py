"""Darknet's rarer layers ([dropout], [softmax], [normalization]), and what only training sees."""

from typing import no_type_check

import keras
import numpy as np
import tensorflow as tf

from modeling.layers.gradients import straight_through
from official.core.errors import UserError


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Dropout(keras.layers.Layer):
    """In training each number is 0 with `probability`, else divided by 1 - probability (Darknet dropout_layer.c).

    Which ones follows from `seed` and the numbers themselves: the layer keeps no state, and the same step on the same
    batch drops the same.
    """

    def __init__(self, probability: float, *, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.probability, self.seed = probability, seed

    def call(self, inputs, training=False):
        if not training or not self.probability:
            return inputs
        fingerprint = tf.bitcast(tf.reduce_sum(tf.cast(inputs, tf.float32)), tf.int32)
        draw = tf.random.stateless_uniform(tf.shape(inputs), tf.stack([self.seed, fingerprint]))
        kept = tf.cast(draw >= self.probability, inputs.dtype)
        return inputs * kept / (1 - self.probability)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Softmax(keras.layers.Layer):
    """[batch, n] -> [batch, n]: softmax of x / temperature in each of `groups` parts (Darknet softmax_layer.c).

    Its gradient passes unchanged: in Darknet what arrives is already that of softmax and cross-entropy together.
    """

    def __init__(self, groups: int = 1, temperature: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.groups, self.temperature = groups, temperature

    def call(self, inputs):
        parts = tf.reshape(inputs, [-1, self.groups, inputs.shape[-1] // self.groups])
        return straight_through(inputs, tf.reshape(tf.nn.softmax(parts / self.temperature), tf.shape(inputs)))

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("detector")
@no_type_check
class LocalResponseNorm(keras.layers.Layer):
    """x / (kappa + alpha * sum of the squares of neighbouring channels) ** beta (Darknet normalization_layer.c).

    The sum is Darknet's: begun with the first size // 2 squares, then moved, so that square size // 2 is never added,
    yet taken away in time. As in Darknet the gradient takes the divisor as given.
    """

    def __init__(self, size: int, alpha: float, beta: float, kappa: float, **kwargs):
        super().__init__(**kwargs)
        self.size, self.alpha, self.beta, self.kappa = size, alpha, beta, kappa

    def call(self, inputs):
        neighbours = tf.constant(_neighbours(inputs.shape[-1], self.size), inputs.dtype)
        sums = tf.tensordot(tf.square(inputs), neighbours, 1)
        return inputs * tf.stop_gradient((self.kappa + self.alpha * sums) ** -self.beta)

    def compute_output_shape(self, input_shape):
        return input_shape


def _neighbours(channels, size):
    """[channels, channels]: how often the square of a channel (row) is in the sum of another (column)."""
    columns = np.zeros((channels, channels))
    columns[0, : size // 2] = 1
    for channel in range(1, channels):
        columns[channel] = columns[channel - 1]
        leaving, coming = channel - (size - 1) // 2 - 1, channel + size // 2
        if leaving >= 0:
            columns[channel, leaving] -= 1
        if coming < channels:
            columns[channel, coming] += 1
    return columns.T


@keras.saving.register_keras_serializable("detector")
@no_type_check
class StopGradient(keras.layers.Layer):
    """Passes its input on, and no gradient back."""

    def call(self, inputs):
        return tf.stop_gradient(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("detector")
@no_type_check
class InferenceOnly(keras.layers.Layer):
    """Passes its input on; in training it raises UserError with `reason`, before the first step is taken."""

    def __init__(self, reason: str, **kwargs):
        super().__init__(**kwargs)
        self.reason = reason

    def call(self, inputs, training=False):
        if training:
            error = UserError(self.reason)
            error._keras_call_info_injected = True  # else Keras wraps the message in one of its own
            raise error
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape
