"""Learning-rate schedules as functions of the step's number. The first update has number 1, as in Darknet.

Source: Darknet network.c get_current_rate, policy by policy; `cosine` is ours. A rate is one scalar and costs nothing,
so it is computed in float64 like Darknet's, whatever the device; only its result is float32.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Float64, Int64

from official.core.config import (
    Constant,
    Cosine,
    Duration,
    Exponential,
    Policy,
    Polynomial,
    Random,
    Sgdr,
    Sigmoid,
    Step,
    Steps,
)

LearningRate = Callable[[Int64[tf.Tensor, ""]], Float32[tf.Tensor, ""]]
Number = Float64[tf.Tensor, ""]
Rate = Callable[[Number], Number]
ToSteps = Callable[[Duration], int]


class _Run(NamedTuple):
    total_steps: int
    burn_in: int
    to_steps: ToSteps
    seed: int


def build_schedule(config: Policy, total_steps: int, to_steps: ToSteps, seed: int) -> LearningRate:
    """The schedule as a function from step number (int64 scalar, 1 .. total_steps) to learning rate (float32 scalar).

    Args:
        config: one of the schedules.
        total_steps: of the run, where the policy reaches its end.
        to_steps: turns a duration of the config into steps.
        seed: of the run; `random` alone uses it.
    """
    burn_in = to_steps(config.burn_in.length) if config.burn_in else 0
    rate = _POLICIES[type(config)](config, _Run(total_steps, burn_in, to_steps, seed))

    def learning_rate(step: Int64[tf.Tensor, ""]) -> Float32[tf.Tensor, ""]:
        number = tf.cast(step, tf.float64)
        value = rate(number)
        if config.burn_in is not None:
            warming = config.learning_rate * (number / burn_in) ** config.burn_in.power
            value = tf.where(number < burn_in, warming, value)
        return tf.cast(value, tf.float32)

    return learning_rate


def _constant(config: Constant, run: _Run) -> Rate:
    return lambda number: tf.constant(config.learning_rate, tf.float64)


def _steps(config: Steps, run: _Run) -> Rate:
    begins = itertools.accumulate(
        [run.to_steps(drop.at) for drop in config.drops], max
    )  # each waits for those before it
    rates = itertools.accumulate([config.learning_rate, *(drop.scale for drop in config.drops)], lambda a, b: a * b)
    first, *others = rates
    plan = list(zip(begins, others, strict=True))

    def rate(number: Number) -> Number:
        value = tf.constant(first, tf.float64)
        for begin, dropped in plan:
            value = tf.where(number >= begin, tf.constant(dropped, tf.float64), value)
        return value

    return rate


def _step(config: Step, run: _Run) -> Rate:
    every = run.to_steps(config.every)
    return lambda number: config.learning_rate * config.scale ** (number // every)


def _exponential(config: Exponential, run: _Run) -> Rate:
    return lambda number: config.learning_rate * _in_float32(config.gamma) ** number


def _polynomial(config: Polynomial, run: _Run) -> Rate:
    def rate(number: Number) -> Number:
        left = 1 - tf.cast(number / run.total_steps, tf.float32)  # float32 as in Darknet: it shows near the end
        return config.learning_rate * tf.cast(left, tf.float64) ** config.power

    return rate


def _sigmoid(config: Sigmoid, run: _Run) -> Rate:
    middle = run.to_steps(config.middle)
    return lambda number: config.learning_rate / (1 + tf.exp(_in_float32(config.gamma) * (number - middle)))


def _sgdr(config: Sgdr, run: _Run) -> Rate:
    starts, lengths = [0], [run.to_steps(config.cycle)]
    while starts[-1] + lengths[-1] <= run.total_steps:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * config.multiplier)

    def rate(number: Number) -> Number:
        cycle = tf.reduce_sum(tf.cast(number > tf.constant(starts[1:], tf.float64), tf.int32))
        start, length = (tf.gather(tf.constant(each, tf.float64), cycle) for each in (starts, lengths))
        share = 0.5 * (1 + tf.cos(math.pi * (number - start) / length))
        return config.minimum + (config.learning_rate - config.minimum) * share

    return rate


def _random(config: Random, run: _Run) -> Rate:
    def rate(number: Number) -> Number:
        key = tf.stack([tf.constant(run.seed, tf.int64), tf.cast(number, tf.int64)])
        share = tf.random.stateless_uniform([], key, alg="philox")  # the same on every device
        return config.learning_rate * tf.cast(share, tf.float64) ** config.power

    return rate


def _cosine(config: Cosine, run: _Run) -> Rate:
    span = max(1, run.total_steps - run.burn_in)

    held = run.to_steps(config.held) if config.held else None

    def rate(number: Number) -> Number:
        since = number - run.burn_in if held is None else tf.maximum(number - 1 - run.burn_in, 0.0) // held * held
        progress = tf.clip_by_value(since / span, 0.0, 1.0)
        share = 0.5 * (1 + tf.cos(math.pi * progress))
        return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * share)

    return rate


def _in_float32(option: float) -> float:
    """Rounded to float32: raised to the power of the step's number, even that rounding shows."""
    return float(np.float32(option))


_POLICIES: dict[type[Policy], Callable[..., Rate]] = {
    Constant: _constant,
    Steps: _steps,
    Step: _step,
    Exponential: _exponential,
    Polynomial: _polynomial,
    Sigmoid: _sigmoid,
    Sgdr: _sgdr,
    Random: _random,
    Cosine: _cosine,
}
