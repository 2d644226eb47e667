"""The convolutions that predict: the last layer before each [yolo] section of a Darknet cfg."""

import math

import keras

from configs.yolo import YoloHead
from modeling.layers.convolution import Convolution, ConvStyle


def yolo_predictions(
    levels: list[keras.KerasTensor], config: YoloHead, num_classes: int, style: ConvStyle
) -> list[keras.KerasTensor]:
    """Raw logits [batch, height, width, anchors_of_level, 5 + classes], float32 under every policy, one per level."""
    outputs = []
    for number, (features, level) in enumerate(zip(levels, config.levels, strict=True)):
        entries = 5 + num_classes
        name = f"head_{number}"
        prior = math.log(config.objectness_prior / (1 - config.objectness_prior))
        bias = [0.0, 0.0, 0.0, 0.0, prior, *[0.0] * num_classes] * len(level.mask)
        convolution = Convolution(len(bias), 1, bias=bias, seed=style.seed_of(name), name=name, dtype="float32")
        raw = convolution(features)
        shape = (*raw.shape[1:3], len(level.mask), entries)
        # [batch, height, width, anchors_of_level, 5 + classes]: Darknet's channel is anchor * entries + entry
        outputs.append(keras.layers.Reshape(shape, name=f"{name}_raw", dtype="float32")(raw))
    return outputs
