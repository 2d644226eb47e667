"""Blocks of convolutions that several backbones and decoders share.

A file of weights has no names, so convolutions are made in the order in which Darknet's cfgs list them.
"""

from collections.abc import Callable, Sequence

import keras

from modeling.layers.convolution import ConvStyle, conv_block, scaled
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features


def joined(parts: Sequence[Features], name: str) -> Features:
    """[batch, rows, columns, channels of all], in the order of the parts."""
    return keras.layers.Concatenate(name=name)(list(parts)) if len(parts) > 1 else parts[0]


def residual(x: Features, hidden: int, name: str, style: ConvStyle) -> Features:
    """The input plus what a 1x1 and a 3x3 convolution make of it (Darknet-53)."""
    y = conv_block(x, hidden, 1, name=f"{name}_reduce", style=style)
    y = conv_block(y, x.shape[-1], 3, name=f"{name}_expand", style=style)
    return keras.layers.Add(name=f"{name}_add")([y, x])


def cross_stage(
    x: Features,
    main: Callable[[Features], Features],
    hidden: int,
    filters: int,
    *,
    bypass_first: bool = False,
    name: str,
    style: ConvStyle,
) -> Features:
    """What `main` makes of the input, joined with a 1x1 of the input to `hidden`; then a 1x1 to `filters` (CSPNet)."""
    bypass = conv_block(x, hidden, 1, name=f"{name}_bypass", style=style)
    through = main(x)
    parts = [bypass, through] if bypass_first else [through, bypass]
    return conv_block(joined(parts, f"{name}_join"), filters, 1, name=f"{name}_merge", style=style)


def elan(
    x: Features, hidden: int, inner: int, filters: int, join: Sequence[int], *, name: str, style: ConvStyle
) -> Features:
    """Two 1x1 convolutions to `hidden`, after the second 3x3 ones to `inner`; those of `join`, then a 1x1 to `filters`.

    join: 0 and 1 are the 1x1 convolutions, 2, 3, ... the 3x3 ones, in the order in which their channels follow.
    """
    made = [conv_block(x, hidden, 1, name=f"{name}_{number}", style=style) for number in range(2)]
    for number in range(2, max(join) + 1):
        made.append(conv_block(made[-1], inner, 3, name=f"{name}_{number}", style=style))
    return conv_block(
        joined([made[number] for number in join], f"{name}_join"), filters, 1, name=f"{name}_merge", style=style
    )


def spp(x: Features, windows: Sequence[int], name: str) -> Features:
    """Max-pools of several windows at stride 1, joined in this order; window 1 is the input itself (SPP)."""
    pooled = [x if window == 1 else MaxPool(window, 1, name=f"{name}_{window}")(x) for window in windows]
    return joined(pooled, f"{name}_join")


def chain(
    x: Features,
    layers: Sequence[int | str],
    filters: dict[int, int],
    windows: Sequence[int],
    *,
    name: str,
    style: ConvStyle,
) -> Features:
    """Convolutions one after the other, of these sizes, `filters` by size; "spp" among them is `spp` of `windows`."""
    for number, layer in enumerate(layers):
        if layer == "spp":
            x = spp(x, windows, f"{name}_{number}_pool")
        else:
            x = conv_block(x, filters[layer], layer, name=f"{name}_{number}", style=style)
    return x


def halved_by_pool(x: Features, filters: int, name: str, style: ConvStyle) -> list[Features]:
    """Half of height and width, by the largest of each 2 x 2."""
    return [MaxPool(2, 2, name=f"{name}_pool")(x)]


def halved_by_convolution(x: Features, filters: int, name: str, style: ConvStyle) -> list[Features]:
    return [conv_block(x, filters, 3, 2, name=f"{name}_conv", style=style)]


def halved_by_both(x: Features, filters: int, name: str, style: ConvStyle) -> list[Features]:
    """Half of the filters from a convolution and half from a pool (YOLOv7)."""
    half = scaled(filters / 2)
    [pooled] = halved_by_pool(x, filters, name, style)
    pooled = conv_block(pooled, half, 1, name=f"{name}_after_pool", style=style)
    before = conv_block(x, half, 1, name=f"{name}_before_conv", style=style)
    return [*halved_by_convolution(before, half, name, style), pooled]


# How the sides are halved -> parts to be joined, of `filters` channels in all, but for pools, which keep the channels.
HALVED: dict[str, Callable[[Features, int, str, ConvStyle], list[Features]]] = {
    "pool": halved_by_pool,
    "convolution": halved_by_convolution,
    "pool_and_convolution": halved_by_both,
}
