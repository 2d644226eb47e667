"""A convolution with groups or gaps whose gradient exists on every device."""

import functools
from typing import Literal

import tensorflow as tf
from jaxtyping import Float

Images = Float[tf.Tensor, "batch height width channels"]
Kernel = Float[tf.Tensor, "rows columns channels_of_group filters"]


def convolve(
    inputs: Images,
    kernel: Kernel,
    stride: tuple[int, int],
    padding: Literal["SAME", "VALID"],
    dilation: int,
) -> Float[tf.Tensor, "batch rows_out columns_out filters"]:
    """tf.nn.conv2d; channels / channels_of_group groups, and `dilation` - 1 zeros between a kernel's places.

    On a CPU, TensorFlow has the gradients of both only with oneDNN, which by itself it takes on some processors (those
    with AVX-512) and not on others. Where they lack, they are those of the same numbers from plain convolutions.
    """
    plain = inputs.shape[-1] == kernel.shape[2] and dilation == 1

    def forward(inputs: Images, kernel: Kernel) -> tf.Tensor:
        return tf.nn.conv2d(inputs, kernel, stride, padding, dilations=dilation)

    if plain or _has_gradients(inputs.dtype):
        return forward(inputs, kernel)

    @tf.custom_gradient
    def function(inputs: Images, kernel: Kernel):
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                outputs = _by_plain_convolutions(inputs, kernel, stride, padding, dilation)
            return tape.gradient(outputs, [inputs, kernel], upstream)

        return forward(inputs, kernel), gradient

    return function(inputs, kernel)


def _has_gradients(dtype: tf.DType) -> bool:
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return True
    return dtype != tf.float64 and _cpu_has_gradients()  # oneDNN has no float64


@functools.cache
def _cpu_has_gradients() -> bool:
    """Tried, since TensorFlow does not say."""
    with tf.init_scope(), tf.device("CPU:0"):
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 5, 5, 4],
                filter=tf.zeros([3, 3, 2, 2]),
                out_backprop=tf.zeros([1, 1, 1, 2]),
                strides=[1, 1, 1, 1],
                padding="VALID",
                dilations=[1, 2, 2, 1],
            )
        except tf.errors.OpError:
            return False
    return True


def _by_plain_convolutions(
    inputs: Images, kernel: Kernel, stride: tuple[int, int], padding: str, dilation: int
) -> tf.Tensor:
    groups = inputs.shape[-1] // kernel.shape[2]
    kernel = _with_gaps(kernel, dilation)
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, stride, padding) for part, own in parts], -1)


def _with_gaps(kernel: Kernel, dilation: int) -> tf.Tensor:
    """[r, c, ...] -> [(r - 1) * dilation + 1, (c - 1) * dilation + 1, ...], zeros between."""
    rows, columns, *rest = kernel.shape
    gap = [0, dilation - 1]
    spread = kernel[:, None, :, None]  # [r, 1, c, 1, ...]
    spread = tf.pad(spread, [[0, 0], gap, [0, 0], gap, [0, 0], [0, 0]])  # [r, dilation, c, dilation, ...]
    spread = tf.reshape(spread, [rows * dilation, columns * dilation, *rest])
    return spread[: (rows - 1) * dilation + 1, : (columns - 1) * dilation + 1]
