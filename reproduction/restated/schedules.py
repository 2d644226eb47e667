"""Learning rates, and what a warm-up makes of them, as Python numbers of the step. The first update has number 1.

Sources: AlexeyAB network.c get_current_rate; WongKinYiu ScaledYOLOv4 and yolov7, train.py train.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from official.core import config as of
from official.core.config import Adam, AdamW, Duration, Policy, Sgd

ToSteps = Callable[[Duration], int]


class Pace(NamedTuple):
    """Of one update."""

    rate: float  # of kernels and batch-norm's scales
    bias_rate: float  # of biases and batch-norm's offsets
    momentum: float | None  # None: the optimiser's own


def learning_rate(config: Policy, step: int, total_steps: int, to_steps: ToSteps) -> float:
    """The schedule's rate at update `step` of a run of `total_steps`.

    Raises:
        NotImplementedError: policy random, whose rates only its own generator knows.
    """
    if config.burn_in is not None and step < (length := to_steps(config.burn_in.length)):
        return config.learning_rate * (step / length) ** config.burn_in.power
    base = config.learning_rate
    match config:
        case of.Constant():
            return base
        case of.Steps():
            return _dropped(config, step, to_steps)
        case of.Step():
            return base * config.scale ** (step // to_steps(config.every))
        case of.Exponential():
            return base * float(np.float32(config.gamma)) ** step  # the original keeps its options in float
        case of.Polynomial():
            left = np.float32(1) - np.float32(step) / np.float32(total_steps)  # so written, C computes it in float
            return base * float(left) ** config.power
        case of.Sigmoid():
            return base / (1 + math.exp(float(np.float32(config.gamma)) * (step - to_steps(config.middle))))
        case of.Sgdr():
            return _restarted(config, step, to_steps)
        case of.Cosine():
            return _cosine(config, step, total_steps, to_steps)
        case of.Random():
            raise NotImplementedError("learning_rate: policy random draws each rate; there is no formula to compare")
    raise TypeError(f"learning_rate: {type(config).__name__} is no policy that is known here")


def _dropped(config: of.Steps, step: int, to_steps: ToSteps) -> float:
    """The original goes through the list and stops at the first drop that is still ahead."""
    rate = config.learning_rate
    for drop in config.drops:
        if to_steps(drop.at) > step:
            return rate
        rate *= drop.scale
    return rate


def _restarted(config: of.Sgdr, step: int, to_steps: ToSteps) -> float:
    """A cycle's last step has its minimum; the next begins after it (Loshchilov and Hutter 2017, equation 5)."""
    start, length = 0, to_steps(config.cycle)
    while start + length < step:
        start, length = start + length, length * config.multiplier
    share = (1 + math.cos((step - start) * math.pi / length)) / 2
    return config.minimum + (config.learning_rate - config.minimum) * share


def _cosine(config: of.Cosine, step: int, total_steps: int, to_steps: ToSteps) -> float:
    """From the full rate at the burn-in's end to `final_fraction` of it at the run's end.

    Held, an epoch's rate is that of the updates done before the epoch began, as PyTorch's schedulers count.
    """
    warm = to_steps(config.burn_in.length) if config.burn_in else 0
    done = step - warm
    if config.held is not None:
        held = to_steps(config.held)
        done = max(done - 1, 0) // held * held
    share = (1 + math.cos(math.pi * min(max(done / max(total_steps - warm, 1), 0), 1))) / 2
    return config.learning_rate * (share * (1 - config.final_fraction) + config.final_fraction)


def pace(config: Sgd | Adam | AdamW, step: int, rate: float, to_steps: ToSteps) -> Pace:
    """Both rates and the momentum of update `step`, where the schedule's rate is `rate`.

    The original interpolates over its count of batches, from 0, by np.interp.
    """
    if not isinstance(config, Sgd) or config.warm_up is None:
        return Pace(rate, rate, None)
    warm, count = config.warm_up, [0, to_steps(config.warm_up.length)]
    starts_ends = ((0.0, rate), (warm.bias_learning_rate, rate), (warm.momentum, config.momentum))
    return Pace(*(float(np.interp(step - 1, count, line)) for line in starts_ends))
