"""A detector from its parts: backbone, decoder and head are found in the tables below by their config's `type`."""

import dataclasses

import keras
import numpy as np

from configs.yolo.task import YoloModel
from modeling.backbones.darknet53 import cspdarknet53, darknet53
from modeling.backbones.elan import elan_backbone
from modeling.backbones.yolov3_tiny import tiny_v3
from modeling.backbones.yolov4_tiny import tiny_v4
from modeling.decoders.pyramids import fpn, pan
from modeling.decoders.tiny import tiny_decoder
from modeling.layers.batch_norm import EPSILON
from modeling.layers.connected import Connected
from modeling.layers.convolution import Convolution, ConvStyle
from modeling.yolo.heads.convolutions import yolo_predictions

BACKBONES = {
    "yolov3_tiny": tiny_v3,
    "yolov4_tiny": tiny_v4,
    "darknet53": darknet53,
    "cspdarknet53": cspdarknet53,
    "elan": elan_backbone,
}
DECODERS = {"tiny": tiny_decoder, "fpn": fpn, "pan": pan}
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
    style = ConvStyle(model.activation, model.norm, model.norm_momentum, seed)
    return _assemble(model, num_classes, style, input_size or model.input_size)


def fold_batch_norm(model: YoloModel, num_classes: int, trained: keras.Model) -> keras.Model:
    """The detector `trained` (built from the same `model` and `num_classes`) for inference, without batch-norm layers.

    kernel' = kernel * gamma / sqrt(variance + epsilon), bias' = beta - mean * gamma / sqrt(variance + epsilon),
    from the moving statistics. Raises ValueError where `trained` is another network. To fold again and again, build
    with `build_folded` once and call `fold_into`.
    """
    folded = build_folded(model, num_classes)
    fold_into(folded, trained)
    return folded


def build_folded(model: YoloModel, num_classes: int) -> keras.Model:
    """The detector without batch-norm layers: each convolution of a block has a bias. Its weights mean nothing yet."""
    return _assemble(
        model, num_classes, ConvStyle(model.activation, "folded", model.norm_momentum, 0), model.input_size
    )


def fold_into(folded: keras.Model, trained: keras.Model) -> None:
    """Gives `folded` the weights that make it equal `trained`, of the same network; see `fold_batch_norm`.

    folded: of `build_folded`, or of modeling.darknet.build.build_network with `norm="folded"`. Each [convolutional]
    and [connected] takes in the batch-norm that is named after it; all other layers' variables are copied.
    """
    source = {variable.path: variable for variable in trained.variables}
    for layer in folded.layers:
        if isinstance(layer, Convolution | Connected):
            values = _folded_weights(layer, source)
        else:
            values = {variable.path: _read(source, variable) for variable in layer.variables}
        for variable in layer.variables:
            variable.assign(values[variable.path])


def _assemble(model: YoloModel, num_classes: int, style: ConvStyle, input_size: InputSize) -> keras.Model:
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, got num_classes = {num_classes}")
    image = keras.Input((*input_size, 3), dtype="float32", name="image")
    own = dataclasses.replace(style, activation=model.backbone.activation or style.activation)
    features = BACKBONES[model.backbone.type](image, model.backbone, own)
    levels = DECODERS[model.decoder.type](features, model.decoder, len(model.head.levels), style)
    detector = keras.Model(image, HEADS[model.head.type](levels, model.head, num_classes, style), name="detector")
    detector.convolutions = tuple(style.made)  # for modeling.darknet.loading
    return detector


def _folded_weights(layer: Convolution | Connected, source: dict[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Kernel and bias of a folded `layer` by path, from the unfolded network's variables by path."""
    kernel, bias = _read(source, layer.kernel), layer.bias.path
    if bias in source:
        return {layer.kernel.path: kernel, bias: _read(source, layer.bias)}
    gamma, beta, mean, variance = (
        _read(source, layer.bias, f"{layer.name}_norm/{part}")
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return {layer.kernel.path: kernel * scale, bias: beta - mean * scale}


def _read(source: dict[str, keras.Variable], like: keras.Variable, path: str | None = None) -> np.ndarray:
    """A variable of the trained network, in float64 for one rounding at the end; its shape is that of `like`."""
    path = path or like.path
    if path not in source:
        raise ValueError(f"fold_batch_norm: the trained model has no weight {path}; so another config built it")
    if tuple(source[path].shape) != tuple(like.shape):
        raise ValueError(
            f"fold_batch_norm: {path} is {tuple(source[path].shape)} in the trained model, but this config makes it"
            f" {tuple(like.shape)}; give the config and class count it was trained with"
        )
    return keras.ops.convert_to_numpy(source[path]).astype(np.float64)
