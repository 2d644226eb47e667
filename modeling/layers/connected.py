"""Layers with a weight for every place: Darknet's [connected], with its own batch-norm, and [local]."""

import math
from typing import no_type_check

import keras
import tensorflow as tf

from modeling.layers.batch_norm import BatchNorm


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Connected(keras.layers.Layer):
    """[batch, inputs] -> [batch, 1, 1, outputs] (Darknet connected_layer.c make_connected_layer).

    Kernel [inputs, outputs], from U(-1, 1) * sqrt(2 / inputs). `bias` is its initial value; None: no bias.
    """

    def __init__(self, outputs: int, *, bias: float | None, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.outputs, self.initial_bias, self.seed = outputs, bias, seed
        self.bias = None

    def build(self, input_shape):
        # Variance 2 / (3 fan_in), uniform: limits +- sqrt(2 / fan_in).
        initial = keras.initializers.VarianceScaling(2 / 3, mode="fan_in", distribution="uniform", seed=self.seed)
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.outputs), initializer=initial)
        if self.initial_bias is not None:
            constant = keras.initializers.Constant(self.initial_bias)
            self.bias = self.add_weight(name="bias", shape=(self.outputs,), initializer=constant)

    def call(self, inputs):
        outputs = tf.matmul(inputs, tf.convert_to_tensor(self.kernel))
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return outputs[:, tf.newaxis, tf.newaxis, :]  # [batch, 1, 1, outputs]

    def compute_output_shape(self, input_shape):
        return input_shape[0], 1, 1, self.outputs


@keras.saving.register_keras_serializable("detector")
@no_type_check
class ConnectedNorm(BatchNorm):
    """The batch-norm inside [connected], of [batch, 1, 1, channels] (Darknet connected_layer.c).

    Normalises with the unbiased variance, and moves its statistics by 0.05. The gradient is Darknet's too
    (batchnorm_layer.c normalize_delta_cpu), which differs from the true one by 1 / batch.
    """

    def __init__(self, **kwargs):
        super().__init__(momentum=0.95, **kwargs)

    def call(self, inputs, training=False):
        if not (training and self.trainable):
            return super().call(inputs)
        values = tf.cast(inputs, self.variable_dtype)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], values.dtype)
        mean = tf.reduce_mean(values, [0, 1, 2])
        variance = tf.reduce_sum(tf.square(values - mean), [0, 1, 2]) / tf.maximum(count - 1.0, 1.0)
        self.moving_mean.assign(self.momentum * self.moving_mean + (1 - self.momentum) * mean)
        self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * variance)
        outputs = self.gamma * _normalised(values, mean, variance, count, self.epsilon) + self.beta
        return tf.cast(outputs, inputs.dtype)


def _normalised(values, mean, variance, count, epsilon):
    centred = tf.stop_gradient(values - mean)
    root = tf.stop_gradient(tf.sqrt(variance + epsilon))

    @tf.custom_gradient
    def normalise(values):
        def backward(upstream):
            of_mean = -tf.reduce_sum(upstream, [0, 1, 2]) / root
            of_variance = -0.5 * tf.reduce_sum(upstream * centred, [0, 1, 2]) / root**3
            return upstream / (tf.sqrt(variance) + epsilon) + (of_variance * 2 * centred + of_mean) / count

        return (values - mean) / root, backward

    return normalise(values)


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Local(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, rows, columns, filters]: a convolution with weights of its own at
    every place (Darknet local_layer.c).

    Kernel [rows, columns, size, size, channels, filters], from U(-1, 1) * sqrt(2 / (size^2 * channels)) everywhere
    (Darknet leaves all but the first place at 0). Bias [rows, columns, filters], initially 0. The input's height and
    width must be known, and stay.
    """

    def __init__(self, filters: int, size: int, stride: int = 1, *, padding: int, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.size, self.stride, self.padding, self.seed = filters, size, stride, padding, seed

    def build(self, input_shape):
        _, rows, columns, _ = self.compute_output_shape(input_shape)
        channels = input_shape[-1]
        limit = math.sqrt(2 / (self.size**2 * channels))
        initial = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)
        shape = (rows, columns, self.size, self.size, channels, self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer=initial)
        self.bias = self.add_weight(name="bias", shape=(rows, columns, self.filters), initializer="zeros")

    def call(self, inputs):
        sides = [self.padding, self.padding]
        padded = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
        kernel, step = tf.convert_to_tensor(self.kernel), self.stride
        rows, columns = kernel.shape[:2]
        bottom, right = (rows - 1) * step + 1, (columns - 1) * step + 1
        outputs = tf.convert_to_tensor(self.bias)
        for i in range(self.size):
            for j in range(self.size):
                seen = padded[:, i : i + bottom : step, j : j + right : step]  # [batch, rows, columns, channels]
                outputs += tf.einsum("bhwc,hwcf->bhwf", seen, kernel[:, :, i, j])
        return outputs

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        return batch, *((side + 2 * self.padding - self.size) // self.stride + 1 for side in sides), self.filters
