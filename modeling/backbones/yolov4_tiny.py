"""YOLOv4-tiny's backbone (Darknet cfg/yolov4-tiny.cfg, layers 0 to 26)."""

import keras

from configs.backbones import TinyV4Backbone
from modeling.layers.blocks import conv_block, scaled
from modeling.layers.merging import ChannelSlice
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def tiny_v4(image: Features, config: TinyV4Backbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""

    def conv(x, number, filters, size, stride=1):
        name = f"backbone_conv{number:02d}"
        return conv_block(x, scaled(filters * config.width), size, stride, name=name, style=style)

    def join(number, *parts):
        return keras.layers.Concatenate(name=f"backbone_join{number:02d}")(parts)

    x = conv(image, 0, 32, 3, stride=2)
    x = conv(x, 1, 64, 3, stride=2)
    features = {}
    for block, filters in enumerate((64, 128, 256)):
        first = 2 + 4 * block
        whole = conv(x, first, filters, 3)
        half = ChannelSlice(2, 1, name=f"backbone_half{block}")(whole)
        left = conv(half, first + 1, filters // 2, 3)
        right = conv(left, first + 2, filters // 2, 3)
        merged = conv(join(first + 2, right, left), first + 3, filters, 1)
        features[4 * 2**block] = merged
        x = MaxPool(2, 2, name=f"backbone_pool{block}")(join(first + 3, whole, merged))
    return {**features, 32: conv(x, 14, 512, 3)}
