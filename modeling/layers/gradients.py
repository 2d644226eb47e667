"""Gradients that Darknet defines by hand, where they are not those of the forward computation."""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Float

Tensor = Float[tf.Tensor, "..."]


def hand_gradient(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """`forward`, whose gradient is `backward(inputs, outputs, gradient of the outputs)`."""

    @tf.custom_gradient
    def function(inputs):
        outputs = forward(inputs)
        return outputs, lambda upstream: backward(inputs, outputs, upstream)

    return function


def straight_through(source: Tensor, value: Tensor) -> Tensor:
    """`value`, whose gradient goes to `source` (of the same shape) unchanged, and nowhere else."""
    return hand_gradient(lambda _: tf.stop_gradient(value), lambda *gradient: gradient[-1])(source)
