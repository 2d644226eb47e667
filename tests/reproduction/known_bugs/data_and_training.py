"""Bugs of data and training: entries 10 and 22 to 28."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from pytest import MonkeyPatch

from configs.experiment import Experiment
from dataloaders.augment import colour
from dataloaders.schedule import order
from official.core import layer_rules
from official.core.config_io import load_config
from official.optimization import optimizers, schedules
from reproduction.experiment.subject import Subject
from reproduction.originals import with_original
from reproduction.yolo import functions
from tests.reproduction.known_bugs.bug import Bug

EXPERIMENTS = Path(__file__).parents[3] / "configs" / "experiments"


def yolov4_tiny(*overrides: str) -> Callable[[Path], Subject]:
    """The shipped experiment, with overrides, beside Darknet's traces and cfg."""

    def subject(shared: Path) -> Subject:
        experiment = load_config(str(EXPERIMENTS / "yolov4_tiny_coco.yaml"), Experiment, overrides)
        return with_original(Subject(experiment, (shared / "golden",), shared / "assets"))

    return subject


def _optimizer(**values: float) -> Callable[[MonkeyPatch], None]:
    """SGD with other constants than configured."""

    def plant(patch: MonkeyPatch) -> None:
        right = optimizers._UPDATES["sgd"]
        patch.setitem(
            optimizers._UPDATES, "sgd", lambda config, number: right(config.model_copy(update=values), number)
        )

    return plant


def _decay_everywhere(patch: MonkeyPatch) -> None:
    right = layer_rules.WeightRule
    patch.setattr(layer_rules, "WeightRule", lambda decays, *others: right(True, *others))


def _decay_divided(patch: MonkeyPatch) -> None:
    """By the batch, as if the recorded gradients were sums."""
    right = optimizers._UPDATES["sgd"]

    def divided(config, number):
        return right(config.model_copy(update={"weight_decay": config.weight_decay / 4}), number)

    patch.setitem(optimizers._UPDATES, "sgd", divided)


def _nesterov(patch: MonkeyPatch) -> None:
    def sgd(config, number):
        def update(weight, gradient, slot, decays, rate):
            gradient = gradient + config.weight_decay * weight if decays else gradient
            momentum = config.momentum * slot["momentum"] + gradient
            return weight - rate * (config.momentum * momentum + gradient), {"momentum": momentum}

        return update

    patch.setitem(optimizers._UPDATES, "sgd", sgd)


def _rate_times_batch(patch: MonkeyPatch) -> None:
    """The learning rate is not divided by what the gradient is divided by already (or is multiplied by replicas)."""
    right = optimizers.apply_gradients

    def apply(config, weights, gradients, slots, decayed, rates, step):
        return right(config, weights, gradients, slots, decayed, [4 * rate for rate in rates], step)

    patch.setattr(optimizers, "apply_gradients", apply)


def _linear_warm_up(patch: MonkeyPatch) -> None:
    right = schedules.build_schedule

    def build(config, *rest, **others):
        if config.burn_in:
            config = config.model_copy(update={"burn_in": config.burn_in.model_copy(update={"power": 1.0})})
        return right(config, *rest, **others)

    patch.setattr(schedules, "build_schedule", build)


def _from_zero(patch: MonkeyPatch) -> None:
    right = schedules.build_schedule

    def build(*args, **others):
        rate = right(*args, **others)
        return lambda step: rate(step - 1)

    patch.setattr(schedules, "build_schedule", build)


def _draws(change: Callable) -> Callable[[MonkeyPatch], None]:
    def plant(patch: MonkeyPatch) -> None:
        right = order.seed_at
        patch.setattr(order, "seed_at", lambda position, examples, seed: right(*change(position, examples, seed)))

    return plant


def _never_mirrored(patch: MonkeyPatch) -> None:
    right = functions.apply_colour

    def apply(batch, config):
        return right(batch._replace(draws=batch.draws._replace(flip=tf.zeros_like(batch.draws.flip))), config)

    patch.setattr(functions, "apply_colour", apply)


def _scales_one_way(patch: MonkeyPatch) -> None:
    """Saturation and exposure are never reduced."""
    patch.setattr(colour, "_draw_scale", lambda most, amount, coin: 1.0 + amount * (most - 1.0))


def _nothing(patch: MonkeyPatch) -> None:
    """The mistake is in the experiment."""


_SGD = ("sgd_v4tiny_cudnn_emulated", "learning_rate/steps_burnin")
_STEP = "sgd_v4tiny_cudnn_emulated: it?/after/L0*"
_IMAGES = ("image_ops/flip", "image_ops/resize_16x8")
_BEFORE = ("act_bn_leaky", "iou", "ciou_v4tiny")

BUGS = (
    Bug("weight decay is never applied", (23,), _optimizer(weight_decay=0.0), 7, _SGD, _STEP,
        "weight_decay_missing", before=("act_bn_leaky", "iou"), quick=True),
    Bug("weight decay of biases and batch-norm, too", (23,), _decay_everywhere, 7, _SGD, _STEP,
        "weight_decay_everywhere"),
    Bug("weight decay divided by the batch", (23,), _decay_divided, 7, _SGD, _STEP, "weight_decay_scale"),
    Bug("Nesterov's momentum", (23,), _nesterov, 7, _SGD, _STEP, "momentum_form"),
    Bug("another rate for another number of replicas", (22,), _rate_times_batch, 7, _SGD, _STEP,
        "learning_rate_scale"),
    Bug("a linear warm-up", (25,), _linear_warm_up, 7, _SGD, "learning_rate/steps_burnin: *", "warmup_power"),
    Bug("the first update is number 0", (25,), _from_zero, 7, _SGD, "learning_rate/steps_burnin: *", "first_step_zero"),
    Bug("the original's batch of 64 is 128 here", (26,), _nothing, 1, (), "recipe: task.data.train.batch_size",
        "batch_size", yolov4_tiny("task.data.train.batch_size=128"), sound=yolov4_tiny()),
    Bug("a moving average that the original has not", (26,), _nothing, 1, (), "recipe: trainer.moving_average.decay",
        "moving_average_decay", yolov4_tiny("trainer.moving_average={decay: 0.9998}"), sound=yolov4_tiny()),
    Bug("iou_normalizer left out of the experiment", (18,), _nothing, 1, (), "recipe: task.loss.iou_normalizer",
        "normaliser", yolov4_tiny("task.loss.iou_normalizer=0.75"), sound=yolov4_tiny()),
    Bug("every epoch sees the same draws", (24,), _draws(lambda p, n, seed: (p % n, n, seed)), 8, ("draws",),
        "draws: same draw in the next epoch", "augmentation_repeats", yolov4_tiny(), _BEFORE),
    Bug("the seed is ignored", (28,), _draws(lambda p, n, seed: (p, n, 0)), 8, ("draws",),
        "draws: same draw with another seed", "seed_ignored", yolov4_tiny(), _BEFORE),
    Bug("flips are drawn and not applied", (24,), _never_mirrored, 8, _IMAGES, "image_ops/flip: flip",
        "image_mirrored"),
)  # fmt: skip
