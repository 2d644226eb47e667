"""The backbones, by their config's `type`.

Each takes (image [batch, height, width, 3], its config, style) and gives features by stride, all of strides 4, 8, 16
and 32; the hourglass gives a list of stacks instead.
"""

import dataclasses
from collections.abc import Callable

from configs.backbones import Backbone
from modeling.backbones.darknet53 import cspdarknet53, darknet53
from modeling.backbones.dla import dla34
from modeling.backbones.elan import elan_backbone
from modeling.backbones.hourglass import hourglass
from modeling.backbones.resnet import resnet
from modeling.backbones.yolov3_tiny import tiny_v3
from modeling.backbones.yolov4_tiny import tiny_v4
from modeling.layers.shapes import Features
from modeling.layers.style import Style

BACKBONES: dict[str, Callable[..., dict[int, Features] | list[Features]]] = {
    "yolov3_tiny": tiny_v3,
    "yolov4_tiny": tiny_v4,
    "darknet53": darknet53,
    "cspdarknet53": cspdarknet53,
    "elan": elan_backbone,
    "resnet": resnet,
    "dla34": dla34,
    "hourglass": hourglass,
}


def features_of(image: Features, config: Backbone, style: Style) -> dict[int, Features] | list[Features]:
    """Features of an image [batch, height, width, 3] by stride, or of the hourglass by stack.

    They have the backbone's own activation, where its config gives one.
    """
    own = dataclasses.replace(style, activation=config.activation or style.activation)
    return BACKBONES[config.type](image, config, own)
