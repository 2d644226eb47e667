"""Learning-rate schedules as functions of the step's number. The first update has number 1, as in Darknet."""

import math
from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Float32, Int64

from official.core.config import Constant, Cosine, Duration, Steps

LearningRate = Callable[[tf.Tensor], tf.Tensor]


def build_schedule(
    config: Constant | Steps | Cosine, total_steps: int, to_steps: Callable[[Duration], int]
) -> LearningRate:
    """The schedule as a function from step number (int64 scalar, 1 .. total_steps) to learning rate (float32 scalar).

    Source of burn-in and steps: Darknet network.c get_current_rate.
    """
    burn_in = to_steps(config.burn_in.length) if config.burn_in else 0
    main = _MAIN[type(config)](config, burn_in, total_steps, to_steps)

    def learning_rate(step: Int64[tf.Tensor, ""]) -> Float32[tf.Tensor, ""]:
        number = tf.cast(step, tf.float32)
        rate = main(number)
        if config.burn_in is None:
            return rate
        warming = config.learning_rate * (number / burn_in) ** config.burn_in.power
        return tf.where(number < burn_in, warming, rate)

    return learning_rate


def _constant(config: Constant, burn_in: int, total_steps: int, to_steps: Callable[[Duration], int]) -> LearningRate:
    return lambda number: tf.constant(config.learning_rate, tf.float32)


def _steps(config: Steps, burn_in: int, total_steps: int, to_steps: Callable[[Duration], int]) -> LearningRate:
    drops = [(to_steps(drop.at), drop.scale) for drop in config.drops]

    def rate(number: tf.Tensor) -> tf.Tensor:
        value = tf.constant(config.learning_rate, tf.float32)
        for at, scale in drops:
            value = tf.where(number >= at, value * scale, value)
        return value

    return rate


def _cosine(config: Cosine, burn_in: int, total_steps: int, to_steps: Callable[[Duration], int]) -> LearningRate:
    span = max(1, total_steps - burn_in)

    def rate(number: tf.Tensor) -> tf.Tensor:
        progress = tf.clip_by_value((number - burn_in) / span, 0.0, 1.0)
        share = 0.5 * (1 + tf.cos(math.pi * progress))
        return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * share)

    return rate


_MAIN = {Constant: _constant, Steps: _steps, Cosine: _cosine}
