"""How layers are taken apart and joined: Darknet's [route], [shortcut] and the reshaping before its heads."""

import functools
import math
from typing import Literal, no_type_check

import keras
import tensorflow as tf

from modeling.layers.gradients import straight_through

EPSILON = 1e-4  # in the sum that weights are divided by


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class ChannelSlice(keras.layers.Layer):
    """Part `index` of `groups` equal parts of the channels (Darknet [route] with groups and group_id)."""

    def __init__(self, groups: int, index: int, **kwargs):
        super().__init__(**kwargs)
        self.groups, self.index = groups, index

    def call(self, inputs):
        # Not inputs[..., a:b]: the gradient of a strided slice takes six times as long on a CPU.
        return tf.split(inputs, self.groups, axis=-1)[self.index]

    def compute_output_shape(self, input_shape):
        *rest, channels = input_shape
        if channels % self.groups:
            raise ValueError(f"layer {self.name}: {channels} channels do not divide into {self.groups} groups")
        return *rest, channels // self.groups


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Shortcut(keras.layers.Layer):
    """Sum of inputs [batch, height, width, channels], in the shape of the first (Darknet shortcut_layer.c).

    Of the others, channels beyond the first's are left out and missing ones count as 0. With `weights` each input is
    multiplied by a weight, one for all channels or one for each (`kernel`, [inputs, 1 or channels], initially 1),
    which `normalization` makes a share of all: relu(w) / sum of relu(w), or exp(w) / sum of exp(w). As in Darknet
    (blas.c backward_shortcut_multilayer_cpu) a weight's gradient is that of its share.
    """

    def __init__(
        self,
        weights: Literal["none", "per_feature", "per_channel"] = "none",
        normalization: Literal["none", "relu", "softmax"] = "none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.weights_type, self.normalization = weights, normalization

    def build(self, input_shapes):
        if self.weights_type != "none":
            channels = input_shapes[0][-1] if self.weights_type == "per_channel" else 1
            self.kernel = self.add_weight(name="kernel", shape=(len(input_shapes), channels), initializer="ones")

    def call(self, inputs):
        inputs = [_fitted(x, inputs[0].shape[-1]) for x in inputs]
        if self.weights_type != "none":
            shares = tf.unstack(self._shares(tf.convert_to_tensor(self.kernel)))
            inputs = [x * share for x, share in zip(inputs, shares, strict=True)]
        return functools.reduce(tf.add, inputs)

    def _shares(self, weights):
        if self.normalization == "relu":
            parts = tf.nn.relu(weights)
        else:
            parts = tf.exp(weights - tf.reduce_max(weights, axis=0))
        return straight_through(weights, parts / (tf.reduce_sum(parts, axis=0) + EPSILON))

    def compute_output_shape(self, input_shapes):
        return input_shapes[0]


def _fitted(tensor, channels):
    """The first `channels` of a tensor's channels, or zeros after those it has."""
    missing = channels - tensor.shape[-1]
    if missing > 0:
        return tf.pad(tensor, [[0, 0], [0, 0], [0, 0], [0, missing]])
    return tensor if missing == 0 else tensor[..., :channels]


@keras.saving.register_keras_serializable("detector")
@no_type_check
class SplitAnchors(keras.layers.Layer):
    """[batch, rows, columns, anchors * entries] -> [batch, rows, columns, anchors, entries].

    Darknet's channel is anchor * entries + entry. Rows and columns may vary.
    """

    def __init__(self, anchors: int, **kwargs):
        super().__init__(**kwargs)
        self.anchors = anchors

    def call(self, inputs):
        rows, columns, channels = inputs.shape[1:]
        if rows is None or columns is None:
            _, rows, columns, _ = tf.unstack(tf.shape(inputs))
        return tf.reshape(inputs, [-1, rows, columns, self.anchors, channels // self.anchors])

    def compute_output_shape(self, input_shape):
        *rest, channels = input_shape
        return *rest, self.anchors, channels // self.anchors


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Flatten(keras.layers.Layer):
    """[batch, height, width, channels] -> [batch, channels * height * width], channel by channel as in Darknet."""

    def call(self, inputs):
        return tf.reshape(tf.transpose(inputs, [0, 3, 1, 2]), [-1, math.prod(inputs.shape[1:])])

    def compute_output_shape(self, input_shape):
        batch, *sides = input_shape
        return batch, None if None in sides else math.prod(sides)


@keras.saving.register_keras_serializable("detector")
@no_type_check
class Alongside(keras.layers.Layer):
    """Passes the first input on. The others belong to the model too, whose outputs nothing else takes."""

    def call(self, inputs):
        return inputs[0]

    def compute_output_shape(self, input_shapes):
        return input_shapes[0]
