"""Exponential moving average of weights."""

from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Float32, Int64

from official.core.config import MovingAverage


def update_average(
    config: MovingAverage,
    average: Sequence[Float32[tf.Tensor, "..."]],
    values: Sequence[Float32[tf.Tensor, "..."]],
    step: Int64[tf.Tensor, ""],
) -> list[Float32[tf.Tensor, "..."]]:
    """average + (1 - decay) * (value - average), the decay warmed up as min(decay, (1 + step) / (10 + step)) if asked.

    Args:
        config: decay and warm-up.
        average: float32 tensors.
        values: same shapes; the weights after update number `step`.
        step: int64 scalar, from 1.
    """
    decay = tf.constant(config.decay, tf.float32)
    if config.warm_up:
        number = tf.cast(step, tf.float32)
        decay = tf.minimum(decay, (1 + number) / (10 + number))
    return [old + (1 - decay) * (value - old) for old, value in zip(average, values, strict=True)]
