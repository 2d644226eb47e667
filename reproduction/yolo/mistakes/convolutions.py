"""Convolutions with their batch-norm and activation, pooling and [connected], each with a known mistake.

Arrays are as in reproduction/restated/layers.py.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from modeling.darknet import sections
from reproduction.restated.layers import (
    ACTIVATIONS,
    EPSILON,
    MOMENTUM,
    Maps,
    Pads,
    convolved,
    leaky,
    moments,
    normalised,
    per_channel,
    softplus,
    windows,
)
from reproduction.traces.causes.numbers import moved_alternatives
from reproduction.traces.causes.residual import Alternatives, Array

Parameters = Mapping[str, Array]  # by Darknet's names: weights, biases, scales, rolling_mean, rolling_variance
_INFINITE = float(np.finfo(np.float32).max)


def activation_alternatives(name: str, inputs: Shaped[np.ndarray, "..."]) -> Alternatives:
    """An activation alone with each mistake; none for one that the formulas lack."""
    return _activations(name, lambda: inputs) if name in ACTIVATIONS else {}


def statistics_alternatives(
    section: sections.Convolutional, inputs: Sequence[Maps], parameters: Parameters
) -> Mapping[str, Alternatives]:
    """`rolling_mean` and `rolling_variance` after one forward pass in training, each with each mistake."""
    maps = _convolved(section, inputs[0], parameters["weights"], _usual_pads(section))
    mean, biased = moments(maps)
    batch = {"rolling_mean": mean, "rolling_variance": biased * _unbiased(maps)}
    found = {name: moved_alternatives(parameters[name], new, MOMENTUM) for name, new in batch.items()}
    wrong = MOMENTUM * parameters["rolling_variance"] + (1 - MOMENTUM) * biased
    found["rolling_variance"] |= {"batch_norm_variance biased": lambda: wrong}
    return found


def convolutional(
    section: sections.Convolutional, inputs: Sequence[Maps], parameters: Parameters, of_batch: bool = False
) -> Alternatives:
    """A [convolutional] with each mistake. of_batch: batch-norm takes the statistics of the batch."""
    if section.activation not in ACTIVATIONS or section.xnor or not set(parameters) >= {"weights", "biases"}:
        return {}
    (image,), weights, act, usual = inputs, parameters["weights"], ACTIVATIONS[section.activation], _usual_pads(section)

    @functools.cache
    def maps(pads: Pads = usual) -> Array:
        return _convolved(section, image, weights, pads)

    def shifted(maps: Array, statistics: tuple[Array, Array] | None = None) -> Array:
        """What goes into the activation."""
        if not section.batch_normalize:
            return maps + per_channel(parameters["biases"])
        mean, variance = statistics or (moments(maps) if of_batch else _stored(parameters))
        return normalised(maps, mean, variance, parameters["scales"], parameters["biases"])

    found: dict[str, Callable[[], Array]] = {}
    if section.index == 0 and image.shape[1] == 3:
        found["channels_reversed"] = lambda: act(shifted(_convolved(section, image[:, ::-1], weights, usual)))
    for name, turned in {
        "rows and columns exchanged": weights.swapaxes(2, 3),
        "turned by 180 degrees": weights[:, :, ::-1, ::-1],
        "input channels reversed": weights[:, ::-1],
    }.items():
        if section.size > 1 or "channels" in name:
            found[f"weights_layout {name}"] = lambda turned=turned: act(
                shifted(_convolved(section, image, turned, usual))
            )
    top, reach = usual[0], (section.size - 1) * section.dilation + 1
    pads = {"padding_same": _same(image.shape[2:], reach, (section.stride_y, section.stride_x))}
    if top:
        pads["stride_alignment padded one less before, one more after"] = (top - 1, top - 1, top + 1, top + 1)
        pads["stride_alignment padded one more before, one less after"] = (top + 1, top + 1, top - 1, top - 1)
    found |= {name: lambda p=other: act(shifted(maps(p))) for name, other in pads.items() if other != usual}
    if section.batch_normalize:
        for name, other in _other_statistics(maps, parameters, of_batch).items():
            found[name] = lambda other=other: act(shifted(maps(), other()))
    found["bias_missing"] = lambda: act(shifted(maps()) - per_channel(parameters["biases"]))
    return found | _activations(section.activation, lambda: shifted(maps()))


def _other_statistics(
    maps: Callable[[], Array], parameters: Parameters, of_batch: bool
) -> Mapping[str, Callable[[], tuple[Array, Array]]]:
    """Batch-norm's mistakes, each as the mean and the variance that come to the same."""

    def right() -> tuple[Array, Array]:
        return moments(maps()) if of_batch else _stored(parameters)

    def with_variance(change: Callable[[Array], Array]) -> Callable[[], tuple[Array, Array]]:
        return lambda: (right()[0], change(right()[1]))

    found = {
        f"batch_norm_epsilon {epsilon:g}": with_variance(lambda v, e=epsilon: v + e - EPSILON)
        for epsilon in (1e-3, 1e-6, 1e-4, 2e-5)
    }
    for epsilon in (1e-6, EPSILON, 1e-3):
        outside = with_variance(lambda v, e=epsilon: (np.sqrt(v) + e) ** 2 - EPSILON)
        found[f"batch_norm_epsilon_outside {epsilon:g}"] = outside
    found["batch_norm_training_mode"] = lambda: _stored(parameters) if of_batch else moments(maps())
    power = 1 if of_batch else -1
    other = with_variance(lambda v: v * _unbiased(maps()) ** power)
    return found | {f"batch_norm_variance {'unbiased' if of_batch else 'biased'}": other}


def _stored(parameters: Parameters) -> tuple[Array, Array]:
    return parameters["rolling_mean"].astype(float), parameters["rolling_variance"].astype(float)


def _unbiased(maps: Array) -> float:
    """The factor from the biased variance to the unbiased one."""
    count = maps.size // maps.shape[1]
    return count / (count - 1)


def _convolved(section: sections.Convolutional, x: Array, weights: Array, pads: Pads) -> Array:
    return convolved(x, weights, (section.stride_y, section.stride_x), pads, section.dilation, section.groups)


def _usual_pads(section: sections.Convolutional) -> Pads:
    """Darknet's: a dilated kernel's padding is dilated, too (im2col_cpu_ext)."""
    return (section.padding * section.dilation,) * 4


def _activations(name: str, before: Callable[[], Array]) -> Alternatives:
    """The activation's mistakes; `before` computes what goes into it."""
    act, found = ACTIVATIONS[name], {}
    if name == "leaky":
        for slope in (0.2, 0.3, 0.01, 0.0):
            found[f"leaky_slope {slope:g}"] = lambda s=slope: leaky(s)(before())
    if name == "mish":
        for limit in (20.0, 10.0, 5.0, 1.0):
            found[f"mish_softplus_clipped at {limit:g}"] = lambda t=limit: (
                before() * np.tanh(np.minimum(softplus(before()), t))
            )
            found[f"mish_softplus_clipped input at {limit:g}"] = lambda t=limit: (
                before() * np.tanh(softplus(np.minimum(before(), t)))
            )
    if name != "linear":
        found["activation_missing"] = before
        found["activation_twice"] = lambda: act(act(before()))
    for other, function in ACTIVATIONS.items():
        if other not in (name, "linear") and not {other, name} <= {"leaky", "relu"}:
            found[f"activation_other {other}"] = lambda f=function: f(before())
    return found


def maxpool(section: sections.Maxpool, inputs: Sequence[Maps], parameters: Parameters) -> Alternatives:
    """A [maxpool] with each mistake."""
    if section.maxpool_depth:
        return {}
    (x,) = inputs
    strides, total = (section.stride_y, section.stride_x), section.padding
    half = total // 2
    pads = (half, half, total - half, total - half)

    def pooled(pads: Pads, value: float = -_INFINITE) -> Array:
        return windows(x, section.size, strides, pads, value).max(axis=(-2, -1))

    found = {"maxpool_zero_padding": lambda: pooled(pads, 0.0)}
    others = {
        "the larger half of the padding first": (total - half, total - half, half, half),
        "all padding last": (0, 0, total, total),
        "all padding first": (total, total, 0, 0),
        "as SAME": _same(x.shape[2:], section.size, strides),
    }
    for name, other in others.items():
        if other != pads:
            found[f"pooling_shift {name}"] = lambda other=other: pooled(other)
    return found


def average(section: sections.LocalAvgpool, inputs: Sequence[Maps], parameters: Parameters) -> Alternatives:
    """A [local_avgpool] with each mistake."""
    half = section.padding // 2
    pads = (half, half, section.padding - half, section.padding - half)
    strides = section.stride_y, section.stride_x
    return {"average_counts_padding": lambda: windows(inputs[0], section.size, strides, pads, 0.0).mean(axis=(-2, -1))}


def connected(section: sections.Connected, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    """A [connected] without batch-norm, with each mistake."""
    if section.batch_normalize or section.activation not in ACTIVATIONS:
        return {}
    (x,), act = inputs, ACTIVATIONS[section.activation]
    weights, biases = parameters["weights"].reshape(section.output, -1), parameters["biases"].ravel()

    def multiplied(x: Array) -> Array:
        return (x.reshape(len(x), -1) @ weights.T)[:, :, np.newaxis, np.newaxis]

    found = {"bias_missing": lambda: act(multiplied(x))}
    if x.ndim == 4:
        found["flatten_order"] = lambda: act(multiplied(x.transpose(0, 2, 3, 1)) + per_channel(biases))
    return found | _activations(section.activation, lambda: multiplied(x) + per_channel(biases))


def _same(sides: tuple[int, ...], reach: int, strides: tuple[int, int]) -> Pads:
    """TensorFlow's SAME."""
    totals = [max((-(-side // step) - 1) * step + reach - side, 0) for side, step in zip(sides, strides, strict=True)]
    return *(total // 2 for total in totals), *(total - total // 2 for total in totals)
