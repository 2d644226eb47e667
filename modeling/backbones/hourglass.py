"""Stacked hourglass (CenterNet lib/models/networks/large_hourglass.py; Newell et al. 2016, Law and Deng 2018)."""

import keras

from configs.backbones import HourglassBackbone
from modeling.layers.blocks import activated, convolution_norm, sum_activated
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def hourglass(image: Features, config: HourglassBackbone, style: Style) -> list[Features]:
    """What each stack's heads read, [batch, height / 4, width / 4, cnv_dim], of an image [batch, height, width, 3].

    The sides are multiples of 4 * 2^n, where an hourglass halves its input n times.
    """
    pre, width = config.pre, config.dims[0]
    x = _convolution(image, pre, 7, 2, "backbone_pre.0", style)
    inter = _residual(x, width, 2, "backbone_pre.1", style)
    maps = []
    for stack in range(config.stacks):
        x = _hourglass(inter, config.dims, config.modules, f"backbone_kps.{stack}", style)
        x = _convolution(x, config.cnv_dim, 3, 1, f"backbone_cnvs.{stack}", style)
        maps.append(x)
        if stack < config.stacks - 1:
            name = f"backbone_inters_.{stack}"
            one = convolution_norm(inter, width, 1, name=f"{name}.0", norm=f"{name}.1", style=style)
            name = f"backbone_cnvs_.{stack}"
            other = convolution_norm(x, width, 1, name=f"{name}.0", norm=f"{name}.1", style=style)
            inter = _residual(
                sum_activated(one, other, f"{name}.relu", style), width, 1, f"backbone_inters.{stack}", style
            )
    return maps


def _hourglass(x: Features, dims: tuple[int, ...], modules: tuple[int, ...], name: str, style: Style) -> Features:
    """The input at its own size, plus itself through half the size, where there is another hourglass or the last."""
    up = _residuals(x, [dims[0]] * modules[0], 1, f"{name}.up1", style)
    low = _residuals(x, [dims[1]] * modules[0], 2, f"{name}.low1", style)
    if len(dims) > 2:
        low = _hourglass(low, dims[1:], modules[1:], f"{name}.low2", style)
    else:
        low = _residuals(low, [dims[1]] * modules[1], 1, f"{name}.low2", style)
    low = _residuals(low, [dims[1]] * (modules[0] - 1) + [dims[0]], 1, f"{name}.low3", style)
    low = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}.up2")(low)
    return keras.layers.Add(name=name)([up, low])


def _residuals(x: Features, filters: list[int], stride: int, name: str, style: Style) -> Features:
    """Residual blocks with these numbers of filters, the stride in the first."""
    for number, count in enumerate(filters):
        x = _residual(x, count, 1 if number else stride, f"{name}.{number}", style)
    return x


def _residual(x: Features, filters: int, stride: int, name: str, style: Style) -> Features:
    y = convolution_norm(x, filters, 3, stride, name=f"{name}.conv1", norm=f"{name}.bn1", style=style)
    y = activated(y, f"{name}.relu1", style)
    y = convolution_norm(y, filters, 3, name=f"{name}.conv2", norm=f"{name}.bn2", style=style)
    if stride != 1 or x.shape[-1] != filters:
        x = convolution_norm(x, filters, 1, stride, name=f"{name}.skip.0", norm=f"{name}.skip.1", style=style)
    return sum_activated(y, x, name, style)


def _convolution(x: Features, filters: int, size: int, stride: int, name: str, style: Style) -> Features:
    x = convolution_norm(x, filters, size, stride, name=f"{name}.conv", norm=f"{name}.bn", style=style)
    return activated(x, name, style)
