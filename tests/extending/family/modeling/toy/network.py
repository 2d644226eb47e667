"""The toy's network: a backbone of the shelf, and one convolution that predicts."""

import keras

from configs.toy.task import ToyModel
from modeling.backbones import features_of
from modeling.layers.blocks import CONVOLUTIONS
from modeling.layers.precision import output_dtype
from modeling.layers.style import Style

STRIDE = 16  # input pixels of a cell


def build_toy(model: ToyModel, num_classes: int, style: Style) -> keras.Model:
    """Image float32 [batch, height, width, 3], RGB 0..1 -> [raw numbers [batch, rows, columns, 4 + classes]]."""
    image = keras.Input((*model.input_size, 3), dtype="float32", name="image")
    features = features_of(image, model.backbone, style)[STRIDE]
    style.record("head")
    predict = CONVOLUTIONS[style.initialiser](
        4 + num_classes, 1, bias=0.0, seed=style.seed_of("head"), name="head", dtype=output_dtype()
    )
    detector = keras.Model(image, [predict(features)], name="detector")
    detector.made = tuple(style.made)
    return detector
