"""DLA-34, deep layer aggregation (CenterNet lib/models/networks/pose_dla_dcn.py; Yu et al. 2018)."""

import keras

from configs.backbones import DlaBackbone
from modeling.layers.blocks import activated, convolution_norm, sum_activated
from modeling.layers.pooling import MaxPool
from modeling.layers.shapes import Features
from modeling.layers.style import Style

CHANNELS = (16, 32, 64, 128, 256, 512)
DEPTH_OF_TREES = {2: 1, 3: 2, 4: 2, 5: 1}  # by level
# Projections that the original makes (a 1x1 convolution and batch-norm) and never uses: name -> (channels, filters).
UNUSED_PROJECTIONS = {
    f"base.level{level}.project": (CHANNELS[level - 1], CHANNELS[level])
    for level, depth in DEPTH_OF_TREES.items()
    if depth > 1
}


def dla34(image: Features, config: DlaBackbone, style: Style) -> dict[int, Features]:
    """Features by stride (1 to 32) of an image [batch, height, width, 3]; the sides are multiples of 32."""
    x = image
    for level, size, stride in (("base_layer", 7, 1), ("level0", 3, 1), ("level1", 3, 2)):
        filters, name = CHANNELS[level == "level1"], f"backbone_base.{level}"
        x = convolution_norm(x, filters, size, stride, name=f"{name}.0", norm=f"{name}.1", style=style)
        x = activated(x, f"{name}.2", style)
    features = {}
    for level, depth in DEPTH_OF_TREES.items():
        children = () if level == 2 else (_halved(x, f"backbone_base.level{level}"),)
        x = _tree(x, depth, CHANNELS[level], 2, f"backbone_base.level{level}", style, children)
        features[2**level] = x
    return features


def _halved(x: Features, name: str) -> Features:
    return MaxPool(2, 2, 0, name=f"{name}.downsample")(x)


def _tree(
    x: Features,
    depth: int,
    filters: int,
    stride: int,
    name: str,
    style: Style,
    children: tuple[Features, ...] = (),
) -> Features:
    """Two trees one after the other, or two blocks; all that came before meets in the root of the last one.

    The original has a `project` in every tree that changes the channels, and uses only those of the innermost.
    """
    if depth > 1:
        first = _tree(x, depth - 1, filters, stride, f"{name}.tree1", style)
        return _tree(first, depth - 1, filters, 1, f"{name}.tree2", style, (*children, first))
    residual = x
    if stride > 1:  # a child is already there where the level's own input is one
        residual = children[0] if children else _halved(x, name)
    if x.shape[-1] != filters:
        names = {"name": f"{name}.project.0", "norm": f"{name}.project.1"}
        residual = convolution_norm(residual, filters, 1, **names, style=style)
    first = _block(x, residual, filters, stride, f"{name}.tree1", style)
    second = _block(first, first, filters, 1, f"{name}.tree2", style)
    joined = keras.layers.Concatenate(name=f"{name}.root_join")([second, first, *children])
    x = convolution_norm(joined, filters, 1, name=f"{name}.root.conv", norm=f"{name}.root.bn", style=style)
    return activated(x, f"{name}.root", style)


def _block(x: Features, residual: Features, filters: int, stride: int, name: str, style: Style) -> Features:
    y = convolution_norm(x, filters, 3, stride, name=f"{name}.conv1", norm=f"{name}.bn1", style=style)
    y = activated(y, f"{name}.relu1", style)
    y = convolution_norm(y, filters, 3, name=f"{name}.conv2", norm=f"{name}.bn2", style=style)
    return sum_activated(y, residual, name, style)
