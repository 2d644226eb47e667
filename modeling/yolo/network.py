"""A detector from its parts: backbone, decoder and head are found in tables by their config's `type`."""

import keras

from configs.yolo.task import YoloModel
from modeling.backbones import features_of
from modeling.decoders import maps_from
from modeling.decoders.levels import strides_of_levels
from modeling.folding import fold_into
from modeling.layers.style import Style
from modeling.yolo.heads.convolutions import yolo_predictions

HEADS = {"yolo": yolo_predictions}

InputSize = tuple[int | None, int | None]


def build_detector(model: YoloModel, num_classes: int, seed: int, input_size: InputSize | None = None) -> keras.Model:
    """Image float32 [batch, height, width, 3], RGB 0..1 -> list of raw logits, one per head level.

    Logits are float32 [batch, height / stride, width / stride, anchors_of_level, 5 + num_classes] in the order
    x, y, w, h, objectness, classes, under every Keras dtype policy. The same seed gives the same weights.
    Levels are in the decoder's order: of pan finest first, else coarsest first. With new_coords they are the logits'
    sigmoids.
    Layers are named backbone_*, decoder_* and head_*, and their variables' paths begin with these names.

    input_size: (height, width) in pixels, by default the model's; None for a side that may vary.
    """
    return _assemble(model, num_classes, Style.of(model, seed), input_size or model.input_size)


def fold_batch_norm(model: YoloModel, num_classes: int, trained: keras.Model) -> keras.Model:
    """The detector `trained` (built from the same `model` and `num_classes`) for inference, without batch-norm layers.

    Raises ValueError where `trained` is another network. To fold again and again, build with `build_folded` once and
    call `modeling.folding.fold_into`.
    """
    folded = build_folded(model, num_classes)
    fold_into(folded, trained)
    return folded


def build_folded(model: YoloModel, num_classes: int) -> keras.Model:
    """The detector without batch-norm layers: each convolution of a block has a bias. Its weights mean nothing yet."""
    return _assemble(model, num_classes, Style.folded(model), model.input_size)


def _assemble(model: YoloModel, num_classes: int, style: Style, input_size: InputSize) -> keras.Model:
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, got num_classes = {num_classes}")
    image = keras.Input((*input_size, 3), dtype="float32", name="image")
    features = features_of(image, model.backbone, style)
    strides = strides_of_levels(len(model.head.levels), model.decoder.type, features)
    levels = maps_from(features, model.decoder, strides, style)
    detector = keras.Model(image, HEADS[model.head.type](levels, model.head, num_classes, style), name="detector")
    detector.made = tuple(style.made)
    return detector
