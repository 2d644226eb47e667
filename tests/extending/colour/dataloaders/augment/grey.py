"""Colours that go towards grey."""

import tensorflow as tf
from jaxtyping import UInt8

from dataloaders.augment.compiled import unchanged
from dataloaders.batch import ColourDraws


def greyed(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> UInt8[tf.Tensor, "b H W 3"]:
    """The drawn saturation multiplies the distance of each channel from their mean."""
    levels = tf.cast(images, tf.float32)
    grey = tf.reduce_mean(levels, axis=-1, keepdims=True)
    moved = grey + draws.saturation[:, tf.newaxis, tf.newaxis, tf.newaxis] * (levels - grey)
    whole = tf.cast(tf.round(tf.clip_by_value(moved, 0.0, 255.0)), tf.uint8)
    return tf.where(unchanged(draws), images, whole)
