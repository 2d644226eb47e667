"""The convolutions that predict: the last layer before each [yolo] section of a Darknet cfg."""

import math
from collections.abc import Iterable

import keras
from jaxtyping import Float

from configs.yolo.heads import YoloHead
from modeling.layers.activations import Activation
from modeling.layers.blocks import CONVOLUTIONS
from modeling.layers.merging import SplitAnchors
from modeling.layers.precision import output_dtype
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def yolo_predictions(
    levels: Iterable[Features], config: YoloHead, num_classes: int, style: Style
) -> list[Float[keras.KerasTensor, "batch _rows _columns _anchors channels"]]:
    """Raw numbers [batch, height, width, anchors_of_level, 5 + classes], of `output_dtype`, one per level.

    They are logits, or with new_coords their sigmoids.
    """
    outputs, dtype = [], output_dtype()
    for number, (features, level) in enumerate(zip(levels, config.levels, strict=True)):
        name = f"head_{number}"
        prior = math.log(config.objectness_prior / (1 - config.objectness_prior))
        bias = [0.0, 0.0, 0.0, 0.0, prior, *[0.0] * num_classes] * len(level.mask)
        style.record(name)
        convolution = CONVOLUTIONS[style.initialiser](
            len(bias), 1, bias=bias, seed=style.seed_of(name), name=name, dtype=dtype
        )
        raw = convolution(features)
        if level.new_coords:
            raw = Activation("logistic", name=f"{name}_activation", dtype=dtype)(raw)
        # [batch, height, width, anchors_of_level, 5 + classes]
        outputs.append(SplitAnchors(len(level.mask), name=f"{name}_raw", dtype=dtype)(raw))
    return outputs
