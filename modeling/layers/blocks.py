"""Blocks of convolutions that several backbones and decoders share.

The order in which they make convolutions is that of files of weights (modeling.layers.style.Made). Names of PyTorch's
networks are `backbone_`, `decoder_` or `head_` and then what the state dict calls the module, dots and all
(`backbone_layer1.0.conv1`): modeling/weights/torch_names.py needs no table.
"""

from collections.abc import Callable, Sequence

import keras

from modeling.layers.activations import Activation
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features
from modeling.layers.style import Style
from modeling.layers.torch_blocks import TorchConvolution

CONVOLUTIONS = {"uniform": Convolution, "pytorch": TorchConvolution}  # by the initialiser of their kernels


def conv_block(inputs: Features, filters: int, size: int, stride: int = 1, *, name: str, style: Style) -> Features:
    """Convolution (layer `name`), batch-norm (`name`_norm, unless folded), activation (`name`_activation)."""
    x = convolution_norm(inputs, filters, size, stride, name=name, norm=f"{name}_norm", style=style)
    return activated(x, f"{name}_activation", style)


def convolution_norm(
    inputs: Features, filters: int, size: int, stride: int = 1, *, name: str, norm: str, style: Style
) -> Features:
    """Convolution (layer `name`, zeros on all sides) and batch-norm (layer `norm`, unless folded)."""
    kind, bias, seed = CONVOLUTIONS[style.initialiser], style.bias_before_norm, style.seed_of(name)
    x = kind(filters, size, stride, bias=bias, seed=seed, name=name)(inputs)
    return normalised(x, name, norm, style)


def normalised(inputs: Features, name: str, norm: str, style: Style) -> Features:
    """Batch-norm (layer `norm`, unless folded) of what the convolution `name` puts out."""
    style.record(name, norm)
    if style.norm == "folded":
        return inputs
    return BatchNorm(style.momentum, sync=style.norm == "sync", epsilon=style.epsilon, name=norm)(inputs)


def activated(inputs: Features, name: str, style: Style) -> Features:
    return Activation(style.activation, name=name)(inputs)


def sum_activated(one: Features, other: Features, name: str, style: Style) -> Features:
    """The activation (layer `name`) of the sum (layer `name`_sum)."""
    return activated(keras.layers.Add(name=f"{name}_sum")([one, other]), name, style)


def scaled(filters: float) -> int:
    """A number of filters rounded to the nearest multiple of 8, at least 8."""
    return max(8, int(filters / 8 + 0.5) * 8)


def joined(parts: Sequence[Features], name: str) -> Features:
    """[batch, rows, columns, channels of all], in the order of the parts."""
    return keras.layers.Concatenate(name=name)(list(parts)) if len(parts) > 1 else parts[0]


def residual(x: Features, hidden: int, name: str, style: Style) -> Features:
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
    style: Style,
) -> Features:
    """What `main` makes of the input, joined with a 1x1 of the input to `hidden`; then a 1x1 to `filters` (CSPNet)."""
    bypass = conv_block(x, hidden, 1, name=f"{name}_bypass", style=style)
    through = main(x)
    parts = [bypass, through] if bypass_first else [through, bypass]
    return conv_block(joined(parts, f"{name}_join"), filters, 1, name=f"{name}_merge", style=style)


def elan(
    x: Features, hidden: int, inner: int, filters: int, join: Sequence[int], *, name: str, style: Style
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
    style: Style,
) -> Features:
    """Convolutions one after the other, of these sizes, `filters` by size; "spp" among them is `spp` of `windows`."""
    for number, layer in enumerate(layers):
        if layer == "spp":
            x = spp(x, windows, f"{name}_{number}_pool")
        else:
            x = conv_block(x, filters[layer], layer, name=f"{name}_{number}", style=style)
    return x


def halved_by_pool(x: Features, filters: int, name: str, style: Style) -> list[Features]:
    """Half of height and width, by the largest of each 2 x 2."""
    return [MaxPool(2, 2, name=f"{name}_pool")(x)]


def halved_by_convolution(x: Features, filters: int, name: str, style: Style) -> list[Features]:
    return [conv_block(x, filters, 3, 2, name=f"{name}_conv", style=style)]


def halved_by_both(x: Features, filters: int, name: str, style: Style) -> list[Features]:
    """Half of the filters from a convolution and half from a pool (YOLOv7)."""
    half = scaled(filters / 2)
    [pooled] = halved_by_pool(x, filters, name, style)
    pooled = conv_block(pooled, half, 1, name=f"{name}_after_pool", style=style)
    before = conv_block(x, half, 1, name=f"{name}_before_conv", style=style)
    return [*halved_by_convolution(before, half, name, style), pooled]


# How the sides are halved -> parts to be joined, of `filters` channels in all, but for pools, which keep the channels.
HALVED: dict[str, Callable[[Features, int, str, Style], list[Features]]] = {
    "pool": halved_by_pool,
    "convolution": halved_by_convolution,
    "pool_and_convolution": halved_by_both,
}
