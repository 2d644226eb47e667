"""What losses with Darknet's own gradient share: a head's cost and hand-written gradient, and how a batch adds up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32

Scalar = Float32[tf.Tensor, ""]


class HeadLoss(NamedTuple):
    """What Darknet computes for one head, over all examples given. To be dumped and compared."""

    cost: Scalar  # as Darknet adds it up, see `added_in_turn`; the loss is made of the parts
    parts: dict[str, Scalar]  # `box`, `objectness`, `class`: they add up to the cost
    delta: Float32[tf.Tensor, "batch *outputs"]  # Darknet's: minus the gradient by the raw outputs, in their shape
    targets: Any  # a NamedTuple: what was assigned to what
    diagnostics: dict[str, Scalar]  # sums: `iou` over `matches`; `positives` and `ignored` predictions


def darknet_loss(
    outputs: Sequence[Float[tf.Tensor, "batch ..."]], heads: Sequence[HeadLoss]
) -> tuple[Scalar, dict[str, Scalar]]:
    """Darknet's cost (network.c get_network_cost: the mean over heads) divided by the number of examples.

    Its gradient by `outputs` is not its derivative: it is -delta of each head divided by the number of examples, not
    divided by the number of heads. Beside the parts of the cost, per example: the positive and the ignored predictions;
    and the mean IoU of the positives of this batch with their truths (0 if there are none).
    """
    batch = outputs[0].shape[0]
    means = {name: tf.add_n([head.parts[name] for head in heads]) / (len(heads) * batch) for name in heads[0].parts}
    value = with_gradient(tf.add_n(list(means.values())), outputs, [head.delta / -batch for head in heads])
    sums = {name: tf.add_n([head.diagnostics[name] for head in heads]) for name in heads[0].diagnostics}
    means["iou"] = tf.math.divide_no_nan(sums["iou"], sums["matches"])
    return value, means | {name: sums[name] / batch for name in ("positives", "ignored")}


def with_gradient(
    value: Scalar, inputs: Sequence[Float[tf.Tensor, "..."]], gradients: Sequence[Float32[tf.Tensor, "..."]]
) -> Scalar:
    """The value, whose gradient by each input is what is given, whatever it was computed from."""

    @tf.custom_gradient
    def handwritten(*inputs):
        def gradient(upstream):
            return [tf.cast(upstream * one, given.dtype) for one, given in zip(gradients, inputs, strict=True)]

        return tf.stop_gradient(value), gradient

    return handwritten(*inputs)


def squares(delta: Float32[tf.Tensor, "*shape"]) -> Scalar:
    """The sum of the squares of all numbers."""
    return tf.reduce_sum(tf.square(delta))


def added_in_turn(delta: Float32[tf.Tensor, "batch *outputs"]) -> Scalar:
    """The sum of squares as utils.c mag_array adds it up: one after the other in float32, in Darknet's order.

    What is small beside the sum so far is lost, so that it differs from `squares` in the sixth digit even for a small
    head. On a CPU, and not compiled by XLA, it has Darknet's very bits; where it is not asked for, it costs nothing.
    """
    if delta.shape.rank == 5:
        delta = tf.transpose(delta, [0, 3, 4, 1, 2])  # [batch, anchors, entries, rows, columns]
    total = tf.cumsum(tf.square(tf.reshape(delta, [-1])))[-1]
    return tf.square(tf.sqrt(total))
