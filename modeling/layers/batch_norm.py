"""Batch normalisation as cuDNN does it, which is what Darknet's published weights were trained with."""

from typing import no_type_check

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class BatchNorm(keras.layers.Layer):
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis of [batch, height, width, channels].

    Training normalises with the batch's mean and biased variance; the unbiased variance goes into the moving one:
    `moving = momentum * moving + (1 - momentum) * batch`. With `sync` the batch is that of all replicas together
    (they must hold equally many examples). Statistics and parameters are float32 whatever the input's type, but for
    a network of float64.

    A layer with `trainable = False` is frozen whole: it normalises with its moving statistics and keeps them.
    """

    # Files of before epsilon was an option have none: theirs is Darknet's and PyTorch's. OpenCV has 1e-6, Keras 1e-3.
    def __init__(self, momentum: float, sync: bool = False, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.momentum, self.sync, self.epsilon = momentum, sync, epsilon

    def build(self, input_shape):
        shape = (input_shape[-1],)
        # No autocast: under a bfloat16 policy these four stay float32 inside `call` too.
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=shape, initializer="zeros", trainable=False, autocast=False
        )
        # Darknet starts at 0, with which an untrained network evaluates to infinities. The start's share fades as
        # momentum ** steps either way.
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=shape, initializer="ones", trainable=False, autocast=False
        )

    def call(self, inputs, training=False):
        if not (training and self.trainable):
            return self._fused(inputs, self.moving_mean, self.moving_variance, is_training=False)[0]
        replicas = _replicas() if self.sync else 1
        if replicas > 1:
            outputs, mean, variance = self._synchronised(inputs, replicas)
        else:
            empty = tf.zeros([0])
            outputs, mean, variance = self._fused(inputs, empty, empty, is_training=True)
        self.moving_mean.assign(self.momentum * self.moving_mean + (1 - self.momentum) * mean)
        self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * variance)
        return outputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def _fused(self, inputs, mean, variance, is_training):
        """Outputs, and in training the batch's mean and unbiased variance.

        The raw op, because `tf.nn.fused_batch_norm` silently raises epsilon to 1.001e-5. It is three times as fast
        on a CPU as the same from `tf.nn.moments`. It has no float64.
        """
        if inputs.dtype == tf.float64:
            return self._in_parts(inputs, mean, variance, is_training)
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.convert_to_tensor(mean),
            variance=tf.convert_to_tensor(variance),
            epsilon=self.epsilon,
            is_training=is_training,
        )
        return outputs.y, outputs.batch_mean, outputs.batch_variance

    def _in_parts(self, inputs, mean, variance, is_training):
        """As `_fused`, in plain operations."""
        mean, variance = tf.nn.moments(inputs, [0, 1, 2]) if is_training else (mean, variance)
        scale = tf.convert_to_tensor(self.gamma) / tf.sqrt(tf.convert_to_tensor(variance) + self.epsilon)
        outputs = (inputs - mean) * scale + tf.convert_to_tensor(self.beta)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
        return outputs, mean, variance * (count / tf.maximum(count - 1, 1))

    def _synchronised(self, inputs, replicas):
        """As `_fused` in training, over the batch of all replicas, with one all-reduce of [2, channels]."""
        values = tf.cast(inputs, self.variable_dtype)
        # Squares around a constant near the mean: E[x^2] - E[x]^2 cancels where |mean| is much above the deviation.
        centre = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        centred = values - centre
        local = tf.stack([tf.reduce_mean(centred, [0, 1, 2]), tf.reduce_mean(tf.square(centred), [0, 1, 2])])
        offset, square = tf.unstack(tf.distribute.get_replica_context().all_reduce("SUM", local) / replicas)
        variance = tf.maximum(square - tf.square(offset), 0.0)
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        outputs = (centred - offset) * scale + self.beta
        count = tf.cast(tf.size(inputs) // inputs.shape[-1] * replicas, values.dtype)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        return tf.cast(outputs, inputs.dtype), centre + offset, unbiased


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1  # no context: across replicas, where nothing is trained


@keras.saving.register_keras_serializable("detector")
@no_type_check
class SharedBatchNorm(BatchNorm):
    """Batch-norm called by several convolutions in turn, with one set of parameters (Darknet `share_index`).

    Darknet's layers share the place where the forward pass leaves mean and variance for the backward pass, so that all
    of them are differentiated with those of the last call. So here; with `sync` the gradient is each call's own.
    """

    def _fused(self, inputs, mean, variance, is_training):
        if not is_training:
            return super()._fused(inputs, mean, variance, is_training)
        outputs, mean, variance = (tf.stop_gradient(x) for x in super()._fused(inputs, mean, variance, is_training))
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], self.variable_dtype)
        biased = variance * (count - 1.0) / count
        self._last_call = (
            mean,
            tf.math.rsqrt(biased + self.epsilon),
        )  # read when the backward pass is built, after them all

        @tf.custom_gradient
        def normalise(values, gamma, beta):
            def backward(upstream):
                upstream = tf.cast(upstream, count.dtype)
                mean, scale = self._last_call
                normalised = (tf.cast(values, count.dtype) - mean) * scale
                of_beta = tf.reduce_sum(upstream, [0, 1, 2])
                of_gamma = tf.reduce_sum(upstream * normalised, [0, 1, 2])
                of_values = gamma * scale * (upstream - (of_beta + normalised * of_gamma) / count)
                return tf.cast(of_values, values.dtype), of_gamma, of_beta

            return tf.identity(outputs), backward

        return normalise(inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)), mean, variance
