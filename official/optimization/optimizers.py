"""Optimisers as pure functions over lists of tensors: `(weights, gradients, slots, rates, step) -> (weights, slots)`.

Gradients are those of the mean loss over the global batch. `decayed` says which weights decay: convolution kernels,
never biases or batch-norm's scale and offset (Darknet convolutional_layer.c update_convolutional_layer).

Weights are float32 in every run. Everything here is computed in their own type, so that a comparison can use float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Int64

from official.core.config import Adam, AdamW, Sgd

AnyShape = Float[tf.Tensor, "..."]
Rate = Float[tf.Tensor, ""]
Tensors = list[AnyShape]
Optimizer = Sgd | Adam | AdamW
MOMENTS = ("first_moment", "second_moment")


class Update(NamedTuple):
    weights: Tensors
    slots: dict[str, Tensors]


def slot_names(config: Optimizer) -> tuple[str, ...]:
    """What the optimiser remembers of each weight; every slot starts at zero and has the weight's shape."""
    return {"sgd": ("momentum",), "adam": MOMENTS, "adamw": MOMENTS}[config.type]


def apply_gradients(
    config: Optimizer,
    weights: Sequence[AnyShape],
    gradients: Sequence[AnyShape],
    slots: dict[str, Sequence[AnyShape]],
    decayed: Sequence[bool],
    learning_rates: Sequence[Rate],
    step: Int64[tf.Tensor, ""],
    momentum: Rate | None = None,
) -> Update:
    """One update.

    Args:
        config: which optimiser, and its constants.
        weights: any shapes.
        gradients: same shapes and type as `weights`.
        slots: for each of `slot_names(config)`, tensors shaped as `weights`.
        decayed: per weight, whether weight decay applies (but for Adam, whose decay leaves nothing out).
        learning_rates: per weight, scalars.
        step: int64 scalar, number of this update, from 1.
        momentum: of SGD in this update, scalar, where it is not the config's.
    """
    number = tf.cast(step, weights[0].dtype)
    update = _UPDATES[config.type](config, number) if momentum is None else _sgd(config, number, momentum)
    slots = [dict(zip(slots, values, strict=True)) for values in zip(*slots.values(), strict=True)]
    rates = [tf.cast(rate, weight.dtype) for rate, weight in zip(learning_rates, weights, strict=True)]
    updated = [update(*each) for each in zip(weights, gradients, slots, decayed, rates, strict=True)]
    new_slots = {name: [slot[name] for _, slot in updated] for name in slot_names(config)}
    return Update([weight for weight, _ in updated], new_slots)


Slot = dict[str, AnyShape]
Number = Float[tf.Tensor, ""]  # of this update, from 1, in the weights' type
UpdateOne = Callable[[AnyShape, AnyShape, Slot, bool, Rate], tuple[AnyShape, Slot]]


def _sgd(config: Sgd, number: Number, momentum: Rate | None = None) -> UpdateOne:
    """Darknet: buffer += sum_gradient - decay * B * w; w += rate / B * buffer; buffer *= momentum.

    Divided by -B this is v = momentum * v + mean_gradient + decay * w; w -= rate * v. The momentum is multiplied in
    before the step, as in PyTorch (torch.optim.SGD, dampening 0), instead of after the previous one, which is the same
    while the momentum is constant.
    """
    kept = config.momentum if momentum is None else tf.cast(momentum, number.dtype)

    def update(weight, gradient, slot, decays, rate):
        gradient = gradient + config.weight_decay * weight if decays else gradient
        buffer = kept * slot["momentum"] + gradient
        direction = gradient + kept * buffer if config.nesterov else buffer
        return weight - rate * direction, {"momentum": buffer}

    return update


def _adam(config: Adam, number: Number) -> UpdateOne:
    """Darknet blas_kernels.cu adam_update_gpu, divided by the batch. Whatever is trained decays, by its gradient."""
    adapt = _adaptive_direction(config, number)

    def update(weight, gradient, slot, decays, rate):
        direction, slot = adapt(gradient + config.weight_decay * weight, slot)
        return weight - rate * direction, slot

    return update


def _adamw(config: AdamW, number: Number) -> UpdateOne:
    """Loshchilov and Hutter 2019, algorithm 2, with the decay multiplied by the learning rate as in common use."""
    adapt = _adaptive_direction(config, number)

    def update(weight, gradient, slot, decays, rate):
        direction, slot = adapt(gradient, slot)
        return weight - rate * (direction + config.weight_decay * weight if decays else direction), slot

    return update


def _adaptive_direction(config: Adam | AdamW, number: Number) -> Callable[[AnyShape, Slot], tuple[AnyShape, Slot]]:
    """Adam's direction, its moments corrected for their start at zero (Kingma and Ba 2015, algorithm 1).

    Epsilon is beside the root of the corrected second moment, as in PyTorch's Adam; Keras adds it to the root of the
    uncorrected one, which in the first step makes it 1 / sqrt(1 - beta2) times as large.
    """
    # 1 - beta ** number, by expm1: of the plain difference, float32 has five digits in the first step.
    logarithms = (math.log(beta) if beta else -math.inf for beta in (config.beta1, config.beta2))
    correction1, correction2 = (-tf.math.expm1(number * logarithm) for logarithm in logarithms)

    def direction(gradient, slot):
        first = config.beta1 * slot["first_moment"] + (1 - config.beta1) * gradient
        second = config.beta2 * slot["second_moment"] + (1 - config.beta2) * tf.square(gradient)
        moments = {"first_moment": first, "second_moment": second}
        return (first / correction1) / (tf.sqrt(second / correction2) + config.epsilon), moments

    return direction


_UPDATES: dict[str, Callable[..., UpdateOne]] = {"sgd": _sgd, "adam": _adam, "adamw": _adamw}
