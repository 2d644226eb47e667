"""Exponential moving average of weights."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Int64

from official.core.config import Duration, MovingAverage
from official.core.config_io import ConfigError

AnyShape = Float[tf.Tensor, "..."]


class Averaged(NamedTuple):
    """What an update leaves."""

    weights: list[AnyShape]  # that the training goes on with
    average: list[AnyShape]  # of these, then of the statistics


Average = Callable[[Sequence[AnyShape], Sequence[AnyShape], Sequence[AnyShape], tf.Tensor], Averaged]


def build_average(config: MovingAverage | None, to_steps: Callable[[Duration], int]) -> Average:
    """The average as a function of (itself, weights and statistics after update number `step`, `step` from 1).

    average + (1 - decay) * (value - average); up to update `start` simply the values. At update `replaces_weights_at`
    the average of the update before takes the weights' place, and from there on the average is the values again
    (Darknet network.c train_network_waitkey, ema_update, ema_apply: from half of max_batches to max_batches - 1000).
    Where statistics are not averaged, the average has them as they are, so that it is always a whole model. Without a
    config nothing is averaged: it is given [] and returns [].

    Args:
        config: decay, its warm-up, start and end, and what is averaged.
        to_steps: turns a duration of the config into steps.

    Raises:
        ConfigError: the weights are to be replaced before the average has begun.
    """
    if config is None:
        return lambda average, weights, statistics, step: Averaged(list(weights), [])
    start = to_steps(config.start) if config.start else 0
    end = to_steps(config.replaces_weights_at) if config.replaces_weights_at else None
    if end is not None and end <= start:
        raise ConfigError(
            f"trainer.moving_average: replaces_weights_at is step {end} and start is step {start}; expected a later "
            "step, or replaces_weights_at: null"
        )

    def update(
        average: Sequence[AnyShape],
        weights: Sequence[AnyShape],
        statistics: Sequence[AnyShape],
        step: Int64[tf.Tensor, ""],
    ) -> Averaged:
        of_weights, of_statistics, dtype = average[: len(weights)], average[len(weights) :], weights[0].dtype
        decay, number = tf.constant(config.decay, dtype), tf.cast(step - start, dtype)
        if config.warm_up:
            decay = tf.minimum(decay, (1 + number) / (10 + number))
        averages = step > start
        if end is not None:
            averages &= step < end
            weights = [tf.where(step == end, old, new) for old, new in zip(of_weights, weights, strict=True)]

        def follow(old: AnyShape, value: AnyShape) -> AnyShape:
            mean = old + (1 - decay) * (value - old)
            return tf.where(averages, mean, value) if start or end is not None else mean

        followed = [follow(old, value) for old, value in zip(of_weights, weights, strict=True)]
        if config.statistics:
            statistics = [follow(old, value) for old, value in zip(of_statistics, statistics, strict=True)]
        return Averaged(list(weights), [*followed, *statistics])

    return update
