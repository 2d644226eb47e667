"""Exponential moving average of weights."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Float32, Int64

from official.core.config import Duration, MovingAverage

AnyShape = Float32[tf.Tensor, "..."]
Average = Callable[[Sequence[AnyShape], Sequence[AnyShape], tf.Tensor], list[AnyShape]]


def build_average(config: MovingAverage | None, to_steps: Callable[[Duration], int]) -> Average:
    """The average as a function of (itself, the weights after update number `step`, `step` from 1).

    average + (1 - decay) * (weight - average); up to update `start` simply the weights (Darknet network.c
    train_network_waitkey: start is half of max_batches). Without a config nothing is averaged: it is given [] and
    returns [].

    Args:
        config: decay, its warm-up, and the start.
        to_steps: turns a duration of the config into steps.
    """
    if config is None:
        return lambda average, weights, step: []
    start = to_steps(config.start) if config.start else 0

    def update(average: Sequence[AnyShape], weights: Sequence[AnyShape], step: Int64[tf.Tensor, ""]) -> list[AnyShape]:
        decay, number = tf.constant(config.decay, tf.float32), tf.cast(step - start, tf.float32)
        if config.warm_up:
            decay = tf.minimum(decay, (1 + number) / (10 + number))
        if start:
            decay = tf.where(number > 0, decay, 0.0)
        return [old + (1 - decay) * (weight - old) for old, weight in zip(average, weights, strict=True)]

    return update
