"""YOLOv7's and YOLOv7-tiny's backbone (Darknet cfg/yolov7.cfg, layers 0 to 57; yolov7-tiny.cfg, layers 0 to 32)."""

from configs.backbones import ElanBackbone
from modeling.layers.blocks import HALVED, conv_block, elan, joined
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def elan_backbone(image: Features, config: ElanBackbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    x, features = image, {}
    for number, (filters, stride) in enumerate(config.stem):
        x = conv_block(x, filters, 3, stride, name=f"backbone_stem{number}", style=style)
    for number, (hidden, filters) in enumerate(config.stages):
        name = f"backbone_{number}"
        if number:
            x = joined(HALVED[config.down](x, x.shape[-1], f"{name}_down", style), f"{name}_down_join")
        x = elan(x, hidden, hidden, filters, config.join, name=name, style=style)
        features[4 * 2**number] = x
    return features
