"""YOLOv3-tiny's backbone (Darknet cfg/yolov3-tiny.cfg, layers 0 to 12)."""

from configs.backbones import TinyV3Backbone
from modeling.layers.blocks import conv_block, scaled
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def tiny_v3(image: Features, config: TinyV3Backbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    features = {}
    x = image
    for number, filters in enumerate((16, 32, 64, 128, 256, 512)):
        x = conv_block(x, scaled(filters * config.width), 3, name=f"backbone_conv{number:02d}", style=style)
        features[2**number] = x
        stride = 2 if number < 5 else 1  # the last pool keeps the size
        x = MaxPool(2, stride, name=f"backbone_pool{number}")(x)
    features[32] = conv_block(x, scaled(1024 * config.width), 3, name="backbone_conv06", style=style)
    return {stride: features[stride] for stride in (4, 8, 16, 32)}
