"""The layers of a cfg in evaluation and training: what one computes of its inputs.

Sources: AlexeyAB convolutional_layer.c, blas.c normalize_cpu, activations.h. Maps are [image, channel, row, column],
weights [filters, channels / groups, rows, columns]; pads are (top, left, bottom, right).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Shaped

EPSILON, MOMENTUM = 1e-5, 0.99
Maps = Shaped[np.ndarray, "images channels rows columns"]
PerChannel = Float[np.ndarray, " channels"]
Numbers = Shaped[np.ndarray, "..."]
Pads = tuple[int, int, int, int]


def softplus(x: Numbers) -> Numbers:
    """log(1 + e^x)."""
    return np.logaddexp(0, x)


def leaky(slope: float) -> Callable[[Numbers], Numbers]:
    """ReLU with this slope below 0."""
    return lambda x: np.where(x > 0, x, slope * x)


def logistic(x: Numbers) -> Numbers:
    """The sigmoid; it does not overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


ACTIVATIONS: Mapping[str, Callable[[Numbers], Numbers]] = {
    "linear": lambda x: x,
    "leaky": leaky(0.1),
    "relu": leaky(0.0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "logistic": logistic,
    "tanh": np.tanh,
    "swish": lambda x: x * logistic(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
}


def convolved(
    x: Maps,
    weights: Float[np.ndarray, "filters inputs side side"],
    strides: tuple[int, int],
    pads: Pads,
    dilation: int = 1,
    groups: int = 1,
) -> Shaped[np.ndarray, "images filters _ _"]:
    """The convolution alone. strides: (down, across)."""
    reach = (weights.shape[2] - 1) * dilation + 1
    views = windows(x, reach, strides, pads, 0.0)[..., ::dilation, ::dilation]  # [b, c, rows, columns, side, side]
    parts = [
        np.tensordot(part, kernel, axes=((1, 4, 5), (1, 2, 3)))  # [b, rows, columns, filters / groups]
        for part, kernel in zip(np.split(views, groups, 1), np.split(weights, groups), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)


def windows(
    x: Maps, side: int, strides: tuple[int, int], pads: Pads, value: float
) -> Shaped[np.ndarray, "images channels _ _ side side"]:
    """The window of every output place, a view. value: of the padding."""
    top, left, bottom, right = pads
    padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=value)
    views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1]]


def moments(maps: Maps) -> tuple[PerChannel, PerChannel]:
    """(mean, biased variance) of each channel over the batch."""
    return maps.mean(axis=(0, 2, 3)), maps.var(axis=(0, 2, 3))


def normalised(maps: Maps, mean: PerChannel, variance: PerChannel, scales: PerChannel, biases: PerChannel) -> Maps:
    """Batch-norm; its epsilon is inside of the root."""
    factors = scales / np.sqrt(variance + EPSILON)
    return (maps - per_channel(mean)) * per_channel(factors) + per_channel(biases)


def per_channel(values: PerChannel) -> Float[np.ndarray, "channels 1 1"]:
    """To be broadcast to maps."""
    return values[:, np.newaxis, np.newaxis]


def resized(x: Numbers, size: tuple[int, int], rule: str) -> Numbers:
    """Bilinear resize of [..., rows, columns], corners aligned (rule `align_corners`) or centres (`half_pixel`)."""
    for axis, new in ((-2, size[0]), (-1, size[1])):
        old = x.shape[axis]
        at = np.arange(new) * ((old - 1) / max(1, new - 1)) if rule == "align_corners" else None
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1) if at is None else at
        low = np.minimum(at.astype(int), old - 1)
        share = (at - low).reshape(-1, *[1] * (-axis - 1))
        high = np.minimum(low + 1, old - 1)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x
