"""The deformable convolution alone, forward and backward (`dcnv2_*`)."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from modeling.layers.deformable import deformable_convolution
from modeling.weights.torch_names import from_torch, to_torch
from reproduction.centernet.losses import maps
from reproduction.traces.case import Case, Row
from reproduction.traces.compare import OfAbsmax
from reproduction.traces.trace import Trace, relayout

BOUND = OfAbsmax(bound=1e-5)
NAMES = ("input", "offset", "mask", "weight", "bias")


def operator(case: Case) -> Iterator[Row]:
    """The output, and the gradient by everything that goes in."""
    yield from compare_operator(case, *output_and_gradients(operands(case.trace), maps(case.trace, "upstream")))


def operands(trace: Trace) -> tuple[Float32[tf.Tensor, "..."], ...]:
    """inputs, offsets, mask, kernel and bias in our order of axes, float32."""
    weight = trace.array("weight", ("filters", "channels", "size", "size"), np.floating)
    size = weight.shape[2]
    offsets = maps(trace, "offset_yx_interleaved")  # [batch, rows, columns, 2 * taps]
    return (
        maps(trace, "input"),
        tf.reshape(offsets, [*offsets.shape[:3], size * size, 2]),
        maps(trace, "mask"),
        tf.constant(from_torch(weight), tf.float32),
        tf.constant(trace.array("bias", weight.shape[:1], np.floating), tf.float32),
    )


def output_and_gradients(
    parts: Sequence[Float32[tf.Tensor, "..."]], upstream: Float32[tf.Tensor, "batch rows columns filters"]
) -> tuple[Float32[tf.Tensor, "batch rows columns filters"], Sequence[Float32[tf.Tensor, "..."]]]:
    """parts: see `operands`; upstream: the gradient by the output."""
    with tf.GradientTape() as tape:
        tape.watch(parts)
        outputs = tf.nn.bias_add(deformable_convolution(*parts[:4]), parts[4])
    return outputs, tape.gradient(outputs, parts, output_gradients=upstream)


def compare_operator(
    case: Case,
    outputs: Float32[tf.Tensor, "batch rows columns filters"],
    gradients: Sequence[Float32[tf.Tensor, "..."]],
) -> Iterator[Row]:
    """What `output_and_gradients` gives beside the record."""
    yield case.compare("output", relayout(outputs.numpy(), "NHWC", "NCHW"), BOUND)
    for name, gradient in zip(NAMES, gradients, strict=True):
        array = gradient.numpy()
        if name == "offset":
            array = array.reshape(*array.shape[:3], -1)
        array = to_torch(array) if name == "weight" else relayout(array, "NHWC", "NCHW") if array.ndim == 4 else array
        yield case.compare(f"grad_{name}", array, BOUND)
