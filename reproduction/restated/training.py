"""What becomes of a step's gradients: their mean, clipping, the update and the moving average, in this order.

Sources: AlexeyAB network.c train_network_waitkey; the arrays of a list follow the model's trainable weights.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from official.core.config import MovingAverage, Trainer
from reproduction.restated.optimisers import Array, Group, Slots, ToSteps, update
from reproduction.restated.schedules import learning_rate, pace

Arrays = list[Array]


class Step(NamedTuple):
    """What one training step leaves behind."""

    weights: Arrays
    slots: dict[str, Arrays]
    average: Arrays  # of weights, then statistics; empty where none is kept
    learning_rate: float  # of kernels, after the warm-up
    gradient_norm: float  # before clipping


def train_step(
    config: Trainer,
    micro_batches: Sequence[Sequence[Array]],
    weights: Sequence[Array],
    statistics: Sequence[Array],
    slots: Slots,
    average: Sequence[Array],
    groups: Sequence[Group],
    step: int,
    to_steps: ToSteps,
) -> Step:
    """One whole step after its gradients are known.

    Args:
        config: optimiser, schedule, clipping and average; `duration` says where a schedule ends.
        micro_batches: for each part of the batch (and each replica), the gradients of that part's mean loss.
        weights: before the step.
        statistics: what is not trained, as this step left it; the average covers it too.
        slots: of the optimiser, before the step.
        average: before the step; empty without `config.moving_average`.
        groups: of each weight.
        step: number of this update, from 1.
        to_steps: turns a duration into steps.
    """
    gradients, norm = step_gradients(config, micro_batches, groups, step)
    return update_step(config, gradients, norm, weights, statistics, slots, average, groups, step, to_steps)


def step_gradients(
    config: Trainer, micro_batches: Sequence[Sequence[Array]], groups: Sequence[Group], step: int
) -> tuple[Arrays, float]:
    """(the gradients that an update is given, how long they were before clipping). Arguments as of `train_step`."""
    gradients = mean_of_micro_batches(micro_batches)
    gradients = [
        np.zeros_like(gradient) if step <= group.waits else gradient
        for gradient, group in zip(gradients, groups, strict=True)
    ]
    return clip(gradients, config.clip_global_norm)


def update_step(
    config: Trainer,
    gradients: Sequence[Array],
    norm: float,
    weights: Sequence[Array],
    statistics: Sequence[Array],
    slots: Slots,
    average: Sequence[Array],
    groups: Sequence[Group],
    step: int,
    to_steps: ToSteps,
) -> Step:
    """The rest of a step: its update and average. Arguments as of `train_step`.

    No element looks at another one: all arrays may hold some elements of theirs alone, the same in each.

    gradients, norm: of `step_gradients`.
    """
    scheduled = learning_rate(config.schedule, step, to_steps(config.duration), to_steps)
    at = pace(config.optimizer, step, scheduled, to_steps)
    rates = [group.rate * (at.bias_rate if group.is_bias else at.rate) for group in groups]
    decays = [group.decays for group in groups]
    weights, slots = update(config.optimizer, weights, gradients, slots, decays, rates, step, at.momentum)
    if config.moving_average is not None:
        weights, average = moving_average(config.moving_average, average, weights, statistics, step, to_steps)
    return Step(weights, slots, list(average), at.rate, norm)


def mean_of_micro_batches(gradients: Sequence[Sequence[Array]]) -> Arrays:
    """The batch's gradients from those of its parts, all of one size: added up, then divided."""
    sums = [np.array(one, float) for one in gradients[0]]
    for part in gradients[1:]:
        for total, gradient in zip(sums, part, strict=True):
            total += gradient
    for total in sums:
        total /= len(gradients)
    return sums


def clip(gradients: Sequence[Array], norm: float | None) -> tuple[Arrays, float]:
    """The gradients, shortened together where they are longer than `norm`, and how long they were."""
    length = math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients))
    if norm is None or length <= norm:
        return list(gradients), length
    return [gradient * (norm / length) for gradient in gradients], length


def moving_average(
    config: MovingAverage,
    average: Sequence[Array],
    weights: Sequence[Array],
    statistics: Sequence[Array],
    step: int,
    to_steps: ToSteps,
) -> tuple[Arrays, Arrays]:
    """(weights, average) after update `step`, from the average before it and the values that the update left.

    Until `start` the average is these values. After it, decay * average + (1 - decay) * value; with `warm_up` the decay
    is at most (1 + n) / (10 + n) in the n-th update after the start. Update `replaces_weights_at` leaves the average so
    far as the weights, and from then on the average is the values again. Statistics that are not averaged stay as they
    are.
    """
    since = step - (to_steps(config.start) if config.start else 0)
    end = to_steps(config.replaces_weights_at) if config.replaces_weights_at else None
    former, former_statistics = average[: len(weights)], average[len(weights) :]
    if step == end:
        weights = [np.array(one) for one in former]
    if since <= 0 or (end is not None and step >= end):
        return list(weights), [np.array(value) for value in (*weights, *statistics)]
    decay = min(config.decay, (1 + since) / (10 + since)) if config.warm_up else config.decay

    def follow(olds: Sequence[Array], news: Sequence[Array]) -> Arrays:
        return [decay * old + (1 - decay) * new for old, new in zip(olds, news, strict=True)]

    kept = follow(former_statistics, statistics) if config.statistics else [np.array(one) for one in statistics]
    return list(weights), [*follow(former, weights), *kept]
