"""Optimisers as pure functions over lists of tensors: `(weights, gradients, slots, rate, step) -> (weights, slots)`.

Gradients are those of the mean loss over the global batch. `decayed` says which weights decay: convolution kernels,
never biases or batch-norm's scale and offset (Darknet convolutional_layer.c update_convolutional_layer).
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float32, Int64

from official.core.config import AdamW, Sgd

AnyShape = Float32[tf.Tensor, "..."]
Tensors = list[AnyShape]


class Update(NamedTuple):
    weights: Tensors
    slots: dict[str, Tensors]


def slot_names(config: Sgd | AdamW) -> tuple[str, ...]:
    """What the optimiser remembers of each weight; every slot starts at zero and has the weight's shape."""
    return {"sgd": ("momentum",), "adamw": ("first_moment", "second_moment")}[config.type]


def apply_gradients(
    config: Sgd | AdamW,
    weights: Sequence[AnyShape],
    gradients: Sequence[AnyShape],
    slots: dict[str, Sequence[AnyShape]],
    decayed: Sequence[bool],
    learning_rate: Float32[tf.Tensor, ""],
    step: Int64[tf.Tensor, ""],
) -> Update:
    """One update.

    Args:
        config: which optimiser, and its constants.
        weights: float32, any shapes.
        gradients: same shapes as `weights`.
        slots: for each of `slot_names(config)`, tensors shaped as `weights`.
        decayed: per weight, whether weight decay applies.
        learning_rate: float32 scalar.
        step: int64 scalar, number of this update, from 1.
    """
    return {"sgd": _sgd, "adamw": _adamw}[config.type](config, weights, gradients, slots, decayed, learning_rate, step)


def _sgd(config: Sgd, weights, gradients, slots, decayed, learning_rate, step) -> Update:
    """Darknet: buffer += sum_gradient - decay * B * w; w += rate / B * buffer; buffer *= momentum.

    Divided by -B this is v = momentum * v + mean_gradient + decay * w; w -= rate * v. The momentum is multiplied in
    before the step instead of after the previous one, which is the same while the momentum is constant.
    """
    new_weights, momenta = [], []
    for weight, gradient, momentum, decays in zip(weights, gradients, slots["momentum"], decayed, strict=True):
        momentum = config.momentum * momentum + (gradient + config.weight_decay * weight if decays else gradient)
        momenta.append(momentum)
        new_weights.append(weight - learning_rate * momentum)
    return Update(new_weights, {"momentum": momenta})


def _adamw(config: AdamW, weights, gradients, slots, decayed, learning_rate, step) -> Update:
    """Loshchilov and Hutter 2019, algorithm 2, with the decay multiplied by the learning rate as in common use."""
    number = tf.cast(step, tf.float32)
    correction1, correction2 = 1 - config.beta1**number, 1 - config.beta2**number
    new_weights, firsts, seconds = [], [], []
    moments = zip(slots["first_moment"], slots["second_moment"], strict=True)
    for weight, gradient, (first, second), decays in zip(weights, gradients, moments, decayed, strict=True):
        first = config.beta1 * first + (1 - config.beta1) * gradient
        second = config.beta2 * second + (1 - config.beta2) * tf.square(gradient)
        direction = (first / correction1) / (tf.sqrt(second / correction2) + config.epsilon)
        if decays:
            direction += config.weight_decay * weight
        firsts.append(first)
        seconds.append(second)
        new_weights.append(weight - learning_rate * direction)
    return Update(new_weights, {"first_moment": firsts, "second_moment": seconds})
