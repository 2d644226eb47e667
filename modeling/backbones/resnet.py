"""ResNet (CenterNet lib/models/networks/msra_resnet.py; He et al. 2015), the stride in a bottleneck's 3x3."""

from configs.backbones import ResNetBackbone
from modeling.layers.blocks import activated, convolution_norm, sum_activated
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features
from modeling.layers.style import Style

# depth -> (whether blocks are bottlenecks, blocks of each stage)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


def resnet(image: Features, config: ResNetBackbone, style: Style) -> dict[int, Features]:
    """Features by stride (4, 8, 16, 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    bottlenecks, stages = DEPTHS[config.depth]
    x = convolution_norm(image, 64, 7, 2, name="backbone_conv1", norm="backbone_bn1", style=style)
    x = MaxPool(3, 2, name="backbone_maxpool")(activated(x, "backbone_relu", style))
    features = {}
    for number, blocks in enumerate(stages):
        for block in range(blocks):
            stride = 2 if number and not block else 1
            name = f"backbone_layer{number + 1}.{block}"
            x = (_bottleneck if bottlenecks else _basic)(x, 64 * 2**number, stride, name, style)
        features[4 * 2**number] = x
    return features


def _basic(x: Features, filters: int, stride: int, name: str, style: Style) -> Features:
    y = convolution_norm(x, filters, 3, stride, name=f"{name}.conv1", norm=f"{name}.bn1", style=style)
    y = activated(y, f"{name}.relu1", style)
    y = convolution_norm(y, filters, 3, name=f"{name}.conv2", norm=f"{name}.bn2", style=style)
    return sum_activated(y, _shortcut(x, filters, stride, name, style), name, style)


def _bottleneck(x: Features, filters: int, stride: int, name: str, style: Style) -> Features:
    y = convolution_norm(x, filters, 1, name=f"{name}.conv1", norm=f"{name}.bn1", style=style)
    y = activated(y, f"{name}.relu1", style)
    y = convolution_norm(y, filters, 3, stride, name=f"{name}.conv2", norm=f"{name}.bn2", style=style)
    y = activated(y, f"{name}.relu2", style)
    y = convolution_norm(y, 4 * filters, 1, name=f"{name}.conv3", norm=f"{name}.bn3", style=style)
    return sum_activated(y, _shortcut(x, 4 * filters, stride, name, style), name, style)


def _shortcut(x: Features, filters: int, stride: int, name: str, style: Style) -> Features:
    """The input itself, or its 1x1 convolution where the shape changes."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    names = {"name": f"{name}.downsample.0", "norm": f"{name}.downsample.1"}
    return convolution_norm(x, filters, 1, stride, **names, style=style)
