"""Floating-point operations of a network, counted as Darknet prints them (its BFLOPs)."""

import math

import keras

from modeling.layers.convolution import Convolution
from modeling.layers.merging import Shortcut
from modeling.layers.pooling import MaxPool


def bflops(model: keras.Model) -> float:
    """Billions of operations for one image at a model's input size, which is fixed; a multiply-add counts as two.

    model: made of parts, or of a cfg.

    As Darknet does, only convolutions, max-pools and additions of whole layers count (convolutional_layer.c,
    maxpool_layer.c, shortcut_layer.c).
    """
    return sum(map(_operations, model.layers)) / 1e9


def _operations(layer: keras.layers.Layer) -> int:
    numbers = math.prod(layer.output.shape[1:]) if hasattr(layer.output, "shape") else 0
    if isinstance(layer, Convolution):
        return 2 * numbers * math.prod(layer.kernel.shape[:3])
    if isinstance(layer, MaxPool):
        return numbers * layer.size**2
    if isinstance(layer, Shortcut | keras.layers.Add):
        return numbers * (len(layer.input) - 1)
    return 0
