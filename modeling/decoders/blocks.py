"""What fuses the features of a level in FPN and PAN, by the block's `type`."""

from collections.abc import Callable

from configs.decoders import Block, ConvolutionsBlock, CspBlock, ElanBlock
from modeling.layers.blocks import chain, conv_block, cross_stage, elan, scaled
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def fuse(x: Features, config: Block, filters: int, name: str, style: Style) -> Features:
    """[batch, rows, columns, channels] -> [batch, rows, columns, filters]."""
    return _BLOCKS[config.type](x, config, filters, name, style)


def _convolutions(x: Features, config: ConvolutionsBlock, filters: int, name: str, style: Style) -> Features:
    return chain(x, config.layers, {1: filters, 3: 2 * filters}, config.spp, name=name, style=style)


def _csp(x: Features, config: CspBlock, filters: int, name: str, style: Style) -> Features:
    if config.reduce:
        x = conv_block(x, filters, 1, name=f"{name}_reduce", style=style)

    def main(x: Features) -> Features:
        return chain(x, config.layers, {1: filters, 3: filters}, config.spp, name=name, style=style)

    return cross_stage(x, main, filters, filters, bypass_first=config.bypass_first, name=name, style=style)


def _elan(x: Features, config: ElanBlock, filters: int, name: str, style: Style) -> Features:
    hidden, inner = scaled(filters * config.hidden), scaled(filters * config.inner)
    return elan(x, hidden, inner, filters, config.join, name=name, style=style)


_BLOCKS: dict[str, Callable] = {"convolutions": _convolutions, "csp": _csp, "elan": _elan}
