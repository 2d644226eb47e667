"""Layers that join, move or repeat the maps of others, each with a known mistake.

Arrays are as in reproduction/restated/layers.py.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped

from modeling.darknet import sections
from reproduction.restated.layers import ACTIVATIONS, Maps, resized
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.yolo.mistakes.convolutions import Parameters

AnyMaps = Shaped[np.ndarray, "images _channels _rows _columns"]  # of several, each has its own


def upsample(section: sections.Upsample, inputs: Sequence[Maps], parameters: Parameters) -> Alternatives:
    """An [upsample] with each mistake."""
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


def route(section: sections.Route, inputs: Sequence[AnyMaps], parameters: Parameters) -> Alternatives:
    """A [route] with each mistake. inputs: those it joins, in its order."""
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


def shortcut(section: sections.Shortcut, inputs: Sequence[AnyMaps], parameters: Parameters) -> Alternatives:
    """A [shortcut] without weights, with each mistake. inputs: the layer before, then those of `from`."""
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


def reorg(section: sections.Reorg, inputs: Sequence[Maps], parameters: Parameters) -> Alternatives:
    """A [reorg] or [reorg3d] with each mistake."""
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
