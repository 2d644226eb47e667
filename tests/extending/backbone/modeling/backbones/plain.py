"""A plain backbone: one convolution for each halving."""

from configs.backbones import PlainBackbone
from modeling.layers.blocks import conv_block
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def plain(image: Features, config: PlainBackbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    features, x = {}, image
    for number in range(1, 6):
        x = conv_block(x, config.filters, 3, 2, name=f"backbone_conv{number}", style=style)
        features[2**number] = x
    return {stride: features[stride] for stride in (4, 8, 16, 32)}
