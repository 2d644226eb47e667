"""Darknet-53 and CSPDarknet-53 (Darknet cfg/yolov3.cfg, yolov4.cfg, yolov4-csp.cfg, yolov4x-mish.cfg)."""

from configs.backbones import CspDarknet53Backbone, Darknet53Backbone
from modeling.layers.blocks import conv_block, cross_stage, residual, scaled
from modeling.layers.shapes import Features
from modeling.layers.style import Style

FILTERS = (64, 128, 256, 512, 1024)  # of each stage
STRIDES = (4, 8, 16, 32)


def darknet53(image: Features, config: Darknet53Backbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    return _stages(image, config, len(FILTERS), style)


def cspdarknet53(image: Features, config: CspDarknet53Backbone, style: Style) -> dict[int, Features]:
    """The same, where stages are cross-stage partial."""
    return _stages(image, config, config.residual_stages, style)


def _stages(
    image: Features, config: Darknet53Backbone | CspDarknet53Backbone, residual_stages: int, style: Style
) -> dict[int, Features]:
    x = conv_block(image, 32, 3, name="backbone_stem", style=style)
    features = {}
    for number, (filters, blocks) in enumerate(zip(FILTERS, config.blocks, strict=True)):
        name, filters = f"backbone_{number}", scaled(filters * config.width)
        x = conv_block(x, filters, 3, 2, name=f"{name}_down", style=style)
        if number < residual_stages:
            x = _residuals(x, scaled(filters / 2), blocks, name, style)
        else:
            x = _partial(x, filters if number == 0 else scaled(filters / 2), blocks, name, style)
        features[2 ** (number + 1)] = x
    return {stride: features[stride] for stride in STRIDES}


def _residuals(x: Features, hidden: int, blocks: int, name: str, style: Style) -> Features:
    for block in range(blocks):
        x = residual(x, hidden, f"{name}_{block}", style)
    return x


def _partial(x: Features, half: int, blocks: int, name: str, style: Style) -> Features:
    """A stage whose residual blocks see `half` channels, of the first stage all, and squeeze them only there."""
    filters = x.shape[-1]

    def main(x: Features) -> Features:
        x = conv_block(x, half, 1, name=f"{name}_main", style=style)
        x = _residuals(x, scaled(filters / 2), blocks, name, style)
        return conv_block(x, half, 1, name=f"{name}_end", style=style)

    return cross_stage(x, main, half, filters, name=name, style=style)
