"""Mistakes in what becomes of a gradient: micro-batches, clipping, optimiser, schedule, moving average: gate 7."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pytest import MonkeyPatch

from official.core import layer_rules
from official.core.step import Gradients, TrainStep
from official.optimization import moving_average, optimizers, schedules
from official.optimization.moving_average import Averaged
from tests.reproduction.known_bugs.run_experiments import CELLS, DARKNET, DEMO, PARTS, of_run

Plant = Callable[[MonkeyPatch], None]


def _summed(patch: MonkeyPatch) -> None:
    """Micro-batches are added up and not divided by their number."""
    right = TrainStep._micro_batches

    def sums(self: TrainStep, state: Any, batch: Any) -> Gradients:
        found = right(self, state, batch)
        return found._replace(gradients=[self.config.micro_batches * one for one in found.gradients])

    patch.setattr(TrainStep, "_micro_batches", sums)


def _clipped(clip: Callable[[Any, float], Any]) -> Plant:
    """The gradients clipped by another rule; the norm is told as it is."""

    def plant(patch: MonkeyPatch) -> None:
        right = TrainStep._clip

        def wrong(self: TrainStep, gradients: Any) -> Any:
            return clip(gradients, self.config.clip_global_norm), *right(self, gradients)[1:]

        patch.setattr(TrainStep, "_clip", wrong)

    return plant


def _each(gradients: list[tf.Tensor], norm: float) -> list[tf.Tensor]:
    return [tf.clip_by_norm(one, norm) for one in gradients]


def _optimizer(kind: str, change: Callable[[Any], Any]) -> Plant:
    """An optimiser of this kind, built from another configuration."""

    def plant(patch: MonkeyPatch) -> None:
        right = optimizers._UPDATES[kind]
        patch.setitem(optimizers._UPDATES, kind, lambda config, number: right(change(config), number))

    return plant


def _decay_everywhere(patch: MonkeyPatch) -> None:
    right = layer_rules.WeightRule
    patch.setattr(layer_rules, "WeightRule", lambda decays, *others: right(True, *others))


def _decay_in_gradient(patch: MonkeyPatch) -> None:
    """AdamW is Adam."""
    patch.setitem(optimizers._UPDATES, "adamw", optimizers._adam)


def _decay_without_rate(patch: MonkeyPatch) -> None:
    """AdamW takes its decay off the weight as it is, not times the learning rate."""
    right = optimizers._UPDATES["adamw"]

    def adamw(config: Any, number: Any) -> Any:
        alone = right(config.model_copy(update={"weight_decay": 0.0}), number)

        def update(weight: Any, gradient: Any, slot: Any, decays: bool, rate: Any) -> Any:
            new, slot = alone(weight, gradient, slot, decays, rate)
            return new - config.weight_decay * weight if decays else new, slot

        return update

    patch.setitem(optimizers._UPDATES, "adamw", adamw)


def _dampened(patch: MonkeyPatch) -> None:
    """The buffer is a mean: momentum * buffer + (1 - momentum) * gradient."""

    def sgd(config: Any, number: Any, momentum: Any = None) -> Any:
        def update(weight: Any, gradient: Any, slot: Any, decays: bool, rate: Any) -> Any:
            gradient = gradient + config.weight_decay * weight if decays else gradient
            buffer = config.momentum * slot["momentum"] + (1 - config.momentum) * gradient
            return weight - rate * buffer, {"momentum": buffer}

        return update

    patch.setitem(optimizers._UPDATES, "sgd", sgd)


def _scheduled(change: Callable[[Callable], Callable]) -> Plant:
    """The learning rate as another function of the step."""

    def plant(patch: MonkeyPatch) -> None:
        right = schedules.build_schedule
        patch.setattr(schedules, "build_schedule", lambda *args: change(right(*args)))

    return plant


def _no_burn_in(patch: MonkeyPatch) -> None:
    right = schedules.build_schedule

    def build(config: Any, *rest: Any) -> Any:
        return right(config.model_copy(update={"burn_in": None}), *rest)

    patch.setattr(schedules, "build_schedule", build)


def _averaged(change: Callable[[list, list, list], list]) -> Plant:
    """Another average: a function of (former, new values, the right average)."""

    def plant(patch: MonkeyPatch) -> None:
        right = moving_average.build_average

        def build(config: Any, to_steps: Any) -> Any:
            average = right(config, to_steps)

            def update(former: Any, weights: Any, statistics: Any, step: Any) -> Averaged:
                found = average(former, weights, statistics, step)
                changed = change(list(former), [*weights, *statistics], found.average)
                return found._replace(average=changed)

            return update

        patch.setattr(moving_average, "build_average", build)

    return plant


def _exchanged(former: list, values: list, right: list) -> list:
    """(1 - decay) * average + decay * value."""
    return [old + value - one for old, value, one in zip(former, values, right, strict=True)]


def _statistics_left_out(patch: MonkeyPatch) -> None:
    """They stay what they were at the start."""
    right = moving_average.build_average

    def build(config: Any, to_steps: Any) -> Any:
        average = right(config, to_steps)

        def update(former: Any, weights: Any, statistics: Any, step: Any) -> Averaged:
            found = average(former, weights, statistics, step)
            return found._replace(average=[*found.average[: len(weights)], *former[len(weights) :]])

        return update

    patch.setattr(moving_average, "build_average", build)


_WEIGHTS = "step ? weights: *"
_RATES = "learning_rate"

BUGS = (
    of_run("run: micro-batches summed", _summed, 7, "own_updates", "step 1 gradient_norm", "loss_scale", PARTS),
    of_run("run: the gradient is not clipped", _clipped(lambda gradients, norm: gradients), 7, "own_updates", _WEIGHTS,
           "gradient_clip", DEMO),
    of_run("run: each weight's gradient is clipped alone", _clipped(_each), 7, "own_updates", _WEIGHTS,
           "gradient_clip", DEMO),
    of_run("run: biases decay, too", _decay_everywhere, 7, "own_updates", _WEIGHTS, "weight_decay_everywhere", DEMO),
    of_run("run: SGD's weight decay is missing", _optimizer(
        "sgd", lambda config: config.model_copy(update={"weight_decay": 0.0})), 7, "own_updates",
           "step 1 slot momentum", "weight_decay_missing", DARKNET),
    of_run("run: momentum and what is left of 1 exchanged", _optimizer(
        "sgd", lambda config: config.model_copy(update={"momentum": 1 - config.momentum})), 7, "own_updates",
           _WEIGHTS, "momentum_form", DARKNET),
    of_run("run: SGD's momentum is dampened", _dampened, 7, "own_updates", _WEIGHTS, "momentum_form", DARKNET),
    of_run("run: AdamW's decay goes into the gradient", _decay_in_gradient, 7, "own_updates", _WEIGHTS,
           "weight_decay_form", DEMO),
    of_run("run: AdamW's decay without the rate", _decay_without_rate, 7, "own_updates", _WEIGHTS,
           "weight_decay_scale", CELLS),
    of_run("run: the rate of twice the step", _scheduled(lambda rate: lambda step: rate(2 * step)), 7, "own_rates",
           _RATES, "schedule_position", DARKNET, quick=True),
    of_run("run: the rate of the step before", _scheduled(lambda rate: lambda step: rate(step - 1)), 7, "own_rates",
           _RATES, "first_step_zero", DEMO),
    of_run("run: twice the rate", _scheduled(lambda rate: lambda step: 2 * rate(step)), 7, "own_rates", _RATES,
           "learning_rate_scale", DARKNET),
    of_run("run: the burn-in is ignored", _no_burn_in, 7, "own_rates", _RATES, "warmup_missing", DARKNET),
    of_run("run: decay and 1 - decay of the average exchanged", _averaged(_exchanged), 7, "own_updates",
           "step ? average of weights", "moving_average_decay", DEMO),
    of_run("run: the average is never updated", _averaged(lambda former, values, right: former), 7, "own_updates",
           "step ? average of weights", "moving_average_missing", DEMO),
    of_run("run: the average is the weights themselves", _averaged(lambda former, values, right: values), 7,
           "own_updates", "step ? average of weights", "moving_average_missing", CELLS),
    of_run("run: the average leaves statistics out", _statistics_left_out, 7, "own_updates",
           "step ? average of statistics", "moving_average_statistics", DEMO),
)  # fmt: skip
