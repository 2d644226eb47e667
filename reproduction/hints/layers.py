"""What a Darknet layer would give with a known mistake in it: the layer once more, in NumPy, away from the product.

Arrays are Darknet's: maps [image, channel, row, column], weights [filters, channels / groups, rows, columns]. Each
alternative is `cause` or `cause` and a variant, such as `batch_norm_epsilon 1e-3`, as `Clue.alternatives` takes them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modeling.darknet import sections
from modeling.darknet.options import Layer
from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]
Parameters = Mapping[str, Array]  # by Darknet's names: weights, biases, scales, rolling_mean, rolling_variance
EPSILON, MOMENTUM = 1e-5, 0.99
_INFINITE = float(np.finfo(np.float32).max)


def _softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def leaky(slope: float) -> Callable[[Array], Array]:
    return lambda x: np.where(x > 0, x, slope * x)


def logistic(x: Array) -> Array:
    """Of any shape; it does not overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "leaky": leaky(0.1),
    "relu": leaky(0.0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "logistic": logistic,
    "tanh": np.tanh,
    "swish": lambda x: x * logistic(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
}


def layer_alternatives(section: Layer, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    """In evaluation mode.

    inputs: of the layers it reads, as recorded: the one before, then those of `from`; of a route those it joins.
    Empty for sections of which no mistake is known, and for activations that this file lacks.
    """
    return _TABLE.get(type(section), _nothing)(section, inputs, parameters)


def activation_alternatives(name: str, inputs: Array) -> Alternatives:
    """Of an activation alone; of one that this file lacks, none."""
    return _activations(name, lambda: inputs) if name in ACTIVATIONS else {}


def training_alternatives(section: Layer, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    """In training mode: batch-norm takes the batch's mean and biased variance. Without one, as in evaluation."""
    if not (isinstance(section, sections.Convolutional) and section.batch_normalize):
        return layer_alternatives(section, inputs, parameters)
    return _convolutional(section, inputs, parameters, of_batch=True)


def statistics_alternatives(
    section: sections.Convolutional, inputs: Sequence[Array], parameters: Parameters
) -> Mapping[str, Alternatives]:
    """Of `rolling_mean` and `rolling_variance` after one forward pass in training."""
    mean, biased, count = _moments(_convolve(section, inputs[0], parameters["weights"]))
    batch = {"rolling_mean": mean, "rolling_variance": biased * count / (count - 1)}

    def moved(name: str, new: Array, share: float) -> Callable[[], Array]:
        return lambda: share * parameters[name] + (1 - share) * new

    found = {}
    for name, new in batch.items():
        shares = {
            f"batch_norm_momentum {share}": moved(name, new, share) for share in (1 - MOMENTUM, 0.9, 0.1, 0.97, 0.03)
        }
        shares["batch_norm_training_mode not moved"] = moved(name, new, 1.0)
        found[name] = shares
    found["rolling_variance"]["batch_norm_variance biased"] = moved("rolling_variance", biased, MOMENTUM)
    return found


class _Convolved(NamedTuple):
    """A convolutional layer's steps, each of which may have a mistake."""

    section: sections.Convolutional
    parameters: Parameters
    maps: Array  # after the convolution
    statistics: tuple[np.ndarray, Array]

    def normalised(self, scale: Callable[[Array], Array]) -> Array:
        """scale: variance -> what the difference to the mean is multiplied by."""
        values, (mean, variance) = self.parameters, self.statistics
        if not self.section.batch_normalize:
            return self.maps + _channel(values["biases"])
        centred = (self.maps - _channel(mean)) * _channel(scale(variance))
        return centred * _channel(values["scales"]) + _channel(values["biases"])

    def without_bias(self) -> Array:
        return self.right() - _channel(self.parameters["biases"])

    def right(self) -> Array:
        return self.normalised(inside(EPSILON))


def inside(epsilon: float) -> Callable[[Array], Array]:
    return lambda variance: 1 / np.sqrt(variance + epsilon)


def outside(epsilon: float) -> Callable[[Array], Array]:
    return lambda variance: 1 / (np.sqrt(variance) + epsilon)


def _convolutional(
    section: sections.Convolutional, inputs: Sequence[Array], parameters: Parameters, of_batch: bool = False
) -> Alternatives:
    if section.activation not in ACTIVATIONS or section.xnor or not set(parameters) >= {"weights", "biases"}:
        return {}
    (image,) = inputs
    weights, act = parameters["weights"], ACTIVATIONS[section.activation]
    stored = parameters.get("rolling_mean"), parameters.get("rolling_variance")

    @functools.cache
    def steps(pads: tuple[int, ...] | None = None) -> _Convolved:
        return made(image, weights, pads)

    def made(image: Array, weights: Array, pads: tuple[int, ...] | None = None) -> _Convolved:
        maps = _convolve(section, image, weights, pads)
        return _Convolved(section, parameters, maps, _moments(maps)[:2] if of_batch else stored)

    found: dict[str, Callable[[], Array]] = {}
    if section.index == 0 and image.shape[1] == 3:
        found["channels_reversed"] = lambda: act(made(image[:, ::-1], weights).right())
    for name, turned in {
        "rows and columns exchanged": weights.swapaxes(2, 3),
        "turned by 180 degrees": weights[:, :, ::-1, ::-1],
        "input channels reversed": weights[:, ::-1],
    }.items():
        if section.size > 1 or "channels" in name:
            found[f"weights_layout {name}"] = lambda turned=turned: act(made(image, turned).right())
    same = _same_pads(section, image.shape[2:])
    usual = _usual_pads(section)
    if same != usual:
        found["padding_same"] = lambda: act(steps(same).right())
    top = usual[0]
    if top:
        found["stride_alignment padded one less before, one more after"] = lambda: act(
            steps((top - 1, top - 1, top + 1, top + 1)).right()
        )
        found["stride_alignment padded one more before, one less after"] = lambda: act(
            steps((top + 1, top + 1, top - 1, top - 1)).right()
        )
    found |= _norms(section, steps, act, stored, of_batch)
    found["bias_missing"] = lambda: act(steps().without_bias())
    return found | _activations(section.activation, lambda: steps().right())


def _norms(section, steps, act, stored, of_batch) -> Alternatives:
    """Batch-norm's mistakes."""
    if not section.batch_normalize:
        return {}
    found: dict[str, Callable[[], Array]] = {}
    for epsilon in (1e-3, 1e-6, 1e-4, 2e-5):
        found[f"batch_norm_epsilon {epsilon:g}"] = lambda e=epsilon: act(steps().normalised(inside(e)))
    for epsilon in (1e-6, EPSILON, 1e-3):
        found[f"batch_norm_epsilon_outside {epsilon:g}"] = lambda e=epsilon: act(steps().normalised(outside(e)))

    def other_mode() -> Array:
        statistics = stored if of_batch else _moments(steps().maps)[:2]
        return act(steps()._replace(statistics=statistics).right())

    found["batch_norm_training_mode"] = other_mode

    def other_variance() -> Array:
        mean, variance = steps().statistics
        count = _moments(steps().maps)[2]
        factor = count / (count - 1) if of_batch else (count - 1) / count
        return act(steps()._replace(statistics=(mean, variance * factor)).right())

    found[f"batch_norm_variance {'unbiased' if of_batch else 'biased'}"] = other_variance
    return found


def _activations(name: str, before: Callable[[], Array]) -> Alternatives:
    """The activation's mistakes; `before` computes what goes into it."""
    act, found = ACTIVATIONS[name], {}
    if name == "leaky":
        for slope in (0.2, 0.3, 0.01, 0.0):
            found[f"leaky_slope {slope:g}"] = lambda s=slope: leaky(s)(before())
    if name == "mish":
        for limit in (20.0, 10.0, 5.0, 1.0):
            found[f"mish_softplus_clipped at {limit:g}"] = lambda t=limit: (
                before() * np.tanh(np.minimum(_softplus(before()), t))
            )
            found[f"mish_softplus_clipped input at {limit:g}"] = lambda t=limit: (
                before() * np.tanh(_softplus(np.minimum(before(), t)))
            )
    if name != "linear":
        found["activation_missing"] = before
        found["activation_twice"] = lambda: act(act(before()))
    for other, function in ACTIVATIONS.items():
        if other not in (name, "linear") and not {other, name} <= {"leaky", "relu"}:
            found[f"activation_other {other}"] = lambda f=function: f(before())
    return found


def _maxpool(section: sections.Maxpool, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    if section.maxpool_depth:
        return {}
    (x,) = inputs
    strides, total = (section.stride_y, section.stride_x), section.padding
    half = total // 2
    pads = (half, half, total - half, total - half)

    def pooled(pads: tuple[int, ...], value: float = -_INFINITE) -> Array:
        return _windows(x, section.size, strides, pads, value).max(axis=(-2, -1))

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


def _average(section: sections.LocalAvgpool, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    half = section.padding // 2
    pads = (half, half, section.padding - half, section.padding - half)
    strides = section.stride_y, section.stride_x
    return {"average_counts_padding": lambda: _windows(inputs[0], section.size, strides, pads, 0.0).mean(axis=(-2, -1))}


def _upsample(section: sections.Upsample, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    (x,) = inputs
    step = section.stride
    if step < 1:
        return {}
    rows, columns = (side * step for side in x.shape[2:])
    found = {
        f"upsample_bilinear {rule}": lambda rule=rule: section.scale * resized(x, (rows, columns), rule)
        for rule in ("half_pixel", "align_corners")
    }
    found["upsample_scale"] = lambda: x.repeat(step, 2).repeat(step, 3)
    return found


def _route(section: sections.Route, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    found: dict[str, Callable[[], Array]] = {}
    groups = section.groups

    def joined(parts: Sequence[Array], group: int) -> Array:
        return np.concatenate([np.split(part, groups, axis=1)[group] for part in parts], axis=1)

    for other in range(groups):
        if other != section.group_id:
            found[f"route_groups group {other}"] = lambda other=other: joined(inputs, other)
    if groups > 1:
        found["route_groups every second channel"] = lambda: np.concatenate(
            [part[:, section.group_id :: groups] for part in inputs], axis=1
        )
    if len(inputs) > 1:
        found["route_order"] = lambda: joined(inputs[::-1], section.group_id)
    return found


def _shortcut(section: sections.Shortcut, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    if section.weights_type != "none" or section.activation not in ACTIVATIONS:
        return {}
    act, first = ACTIVATIONS[section.activation], inputs[0]
    channels = first.shape[1]

    def fitted(x: Array) -> Array:
        return np.pad(x[:, :channels], [(0, 0), (0, max(0, channels - x.shape[1])), (0, 0), (0, 0)])

    def last(x: Array) -> Array:
        """As `fitted`, from the other end."""
        return np.pad(x[:, -channels:], [(0, 0), (max(0, channels - x.shape[1]), 0), (0, 0), (0, 0)])

    rest = [fitted(x) for x in inputs[1:]]
    found = {
        "shortcut_missing the first input alone": lambda: act(first),
        "shortcut_missing the first input left out": lambda: act(sum(rest)),
        "shortcut_missing the first input twice": lambda: act(first + sum(rest) + first),
    }
    if any(x.shape[1] != channels for x in inputs[1:]):
        found["shortcut_channels zeros or cut before"] = lambda: act(first + sum(last(x) for x in inputs[1:]))
        found["shortcut_channels repeated"] = lambda: act(
            first + sum(np.take(x, np.arange(channels) % x.shape[1], axis=1) for x in inputs[1:])
        )
        few = min(x.shape[1] for x in inputs)
        found["shortcut_channels the rest lost"] = lambda: act(
            np.concatenate([(first + sum(rest))[:, :few], 0 * first[:, few:]], axis=1)
        )
    if section.activation != "linear":
        found["shortcut_activation missing"] = lambda: first + sum(rest)
        found["shortcut_activation before the sum"] = lambda: act(first) + sum(act(x) for x in rest)
    return found


def _reorg(section: sections.Reorg, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    (x,) = inputs
    step, (batch, channels, height, width) = section.stride, x.shape
    if getattr(section, "reverse", 0) or height % step or width % step:
        return {}
    blocks = x.reshape(batch, channels, height // step, step, width // step, step)
    shape = (batch, channels * step**2, height // step, width // step)
    return {
        "reorg_order (row, column, channel)": lambda: blocks.transpose(0, 3, 5, 1, 2, 4).reshape(shape),
        "reorg_order (channel, row, column)": lambda: blocks.transpose(0, 1, 3, 5, 2, 4).reshape(shape),
        "reorg_order (column, row, channel)": lambda: blocks.transpose(0, 5, 3, 1, 2, 4).reshape(shape),
    }


def _connected(section: sections.Connected, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    if section.batch_normalize or section.activation not in ACTIVATIONS:
        return {}
    (x,), act = inputs, ACTIVATIONS[section.activation]
    weights, biases = parameters["weights"].reshape(section.output, -1), parameters["biases"].ravel()

    def multiplied(x: Array) -> Array:
        return (x.reshape(len(x), -1) @ weights.T)[:, :, np.newaxis, np.newaxis]

    found = {"bias_missing": lambda: act(multiplied(x))}
    if x.ndim == 4:
        found["flatten_order"] = lambda: act(multiplied(x.transpose(0, 2, 3, 1)) + _channel(biases))
    return found | _activations(section.activation, lambda: multiplied(x) + _channel(biases))


def _nothing(section: Layer, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    return {}


_TABLE: Mapping[type, Callable[..., Alternatives]] = {
    sections.Convolutional: _convolutional,
    sections.Maxpool: _maxpool,
    sections.LocalAvgpool: _average,
    sections.Upsample: _upsample,
    sections.Route: _route,
    sections.Shortcut: _shortcut,
    sections.Reorg: _reorg,
    sections.Reorg3d: _reorg,
    sections.Connected: _connected,
}


def resized(x: Array, size: tuple[int, int], rule: str) -> Array:
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


def _convolve(section: sections.Convolutional, x: Array, weights: Array, pads: tuple[int, ...] | None = None) -> Array:
    """pads: (top, left, bottom, right); by default Darknet's."""
    pads = _usual_pads(section) if pads is None else pads
    reach = (section.size - 1) * section.dilation + 1
    views = _windows(x, reach, (section.stride_y, section.stride_x), pads, 0.0)
    views = views[..., :: section.dilation, :: section.dilation]  # [b, c, rows, columns, size, size]
    parts = [
        np.tensordot(part, kernel, axes=((1, 4, 5), (1, 2, 3)))  # [b, rows, columns, filters / groups]
        for part, kernel in zip(np.split(views, section.groups, 1), np.split(weights, section.groups), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)


def _windows(x: Array, size: int, strides: tuple[int, int], pads: tuple[int, ...], value: float) -> Array:
    """[b, c, rows, columns, size, size]: the window of every output place, a view."""
    top, left, bottom, right = pads
    padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], constant_values=value)
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1]]


def _usual_pads(section: sections.Convolutional) -> tuple[int, ...]:
    """Darknet's (top, left, bottom, right): a dilated kernel's padding is dilated, too (im2col_cpu_ext)."""
    return (section.padding * section.dilation,) * 4


def _same_pads(section: sections.Convolutional, sides: tuple[int, ...]) -> tuple[int, ...]:
    return _same(sides, (section.size - 1) * section.dilation + 1, (section.stride_y, section.stride_x))


def _same(sides: tuple[int, ...], reach: int, strides: tuple[int, int]) -> tuple[int, ...]:
    """TensorFlow's SAME as (top, left, bottom, right)."""
    totals = [max((-(-side // step) - 1) * step + reach - side, 0) for side, step in zip(sides, strides, strict=True)]
    return *(total // 2 for total in totals), *(total - total // 2 for total in totals)


def _moments(maps: Array) -> tuple[np.ndarray, Array, int]:
    """(mean, biased variance, numbers) of each channel over the batch."""
    return maps.mean(axis=(0, 2, 3)), maps.var(axis=(0, 2, 3)), maps.size // maps.shape[1]


def _channel(values: Array) -> Array:
    return values[:, np.newaxis, np.newaxis]
