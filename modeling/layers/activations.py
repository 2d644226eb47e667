"""Activations by their Darknet names (Darknet activations.c)."""

from typing import no_type_check

import keras
import tensorflow as tf

ACTIVATIONS = {
    "leaky": lambda x: tf.nn.leaky_relu(x, alpha=0.1),  # the usual defaults, 0.2 and 0.3, are not Darknet's
    "mish": lambda x: x * tf.tanh(tf.nn.softplus(x)),
    "swish": tf.nn.silu,
    "relu": tf.nn.relu,
    "logistic": tf.nn.sigmoid,
    "linear": tf.identity,
}


@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class Activation(keras.layers.Layer):
    """Applies `ACTIVATIONS[activation]` to a tensor of any shape."""

    def __init__(self, activation: str, **kwargs):
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"layer {self.name}: no activation {activation!r}; there are {sorted(ACTIVATIONS)}")
        self.activation = activation

    def call(self, inputs):
        return ACTIVATIONS[self.activation](inputs)

    def compute_output_shape(self, input_shape):
        return input_shape
