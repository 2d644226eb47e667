"""Warm-ups of the optimiser: of the learning rate, for biases another, and of momentum."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float32, Int64

from official.core.config import Duration, Sgd
from official.optimization.optimizers import Optimizer

Scalar = Float32[tf.Tensor, ""]


class Pace(NamedTuple):
    """Of one update."""

    rate: Scalar  # of kernels and batch-norm's scales
    bias_rate: Scalar  # of biases and batch-norm's offsets
    momentum: Scalar | None  # none: the optimiser's own


WarmUp = Callable[[Int64[tf.Tensor, ""], Scalar], Pace]


def build_warm_up(config: Optimizer, to_steps: Callable[[Duration], int]) -> WarmUp:
    """The pace as a function of (number of the update, from 1; the schedule's learning rate there).

    The original counts from 0, so its first update changes no kernel (WongKinYiu ScaledYOLOv4 and yolov7, train.py
    train: np.interp of ni over [0, nw]).

    Args:
        config: the optimiser; without a warm-up both rates are the schedule's.
        to_steps: turns a duration of the config into steps.
    """
    if not isinstance(config, Sgd) or config.warm_up is None:
        return lambda step, rate: Pace(rate, rate, None)
    warm, length = config.warm_up, to_steps(config.warm_up.length)

    def pace(step: Int64[tf.Tensor, ""], rate: Scalar) -> Pace:
        share = tf.minimum(tf.cast(step - 1, tf.float64) / length, 1.0)
        numbers = ((0.0, rate), (warm.bias_learning_rate, rate), (warm.momentum, config.momentum))
        lines = [start + (tf.cast(end, tf.float64) - start) * share for start, end in numbers]
        return Pace(*(tf.cast(line, tf.float32) for line in lines))

    return pace
