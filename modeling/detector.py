"""A detector from its parts: backbone, decoder and head are found in the tables below by their config's `type`."""

import keras
import numpy as np

from configs.yolo import YoloModel
from modeling.backbones.tiny_v3 import tiny_v3
from modeling.backbones.tiny_v4 import tiny_v4
from modeling.decoders.tiny import tiny_decoder
from modeling.heads.prediction import yolo_predictions
from modeling.layers.batch_norm import EPSILON
from modeling.layers.convolution import Convolution, ConvStyle

BACKBONES = {"yolov3_tiny": tiny_v3, "yolov4_tiny": tiny_v4}
DECODERS = {"tiny": tiny_decoder}
HEADS = {"yolo": yolo_predictions}


def build_detector(model: YoloModel, num_classes: int, seed: int) -> keras.Model:
    """Image float32 [batch, height, width, 3], RGB 0..1 -> list of raw logits, one per head level, coarsest first.

    Logits are float32 [batch, height / stride, width / stride, anchors_of_level, 5 + num_classes] in the order
    x, y, w, h, objectness, classes, under every Keras dtype policy. The same seed gives the same weights.
    Layers are named backbone_*, decoder_* and head_*, and their variables' paths begin with these names.
    """
    style = ConvStyle(model.activation, model.norm, model.norm_momentum, seed)
    return _assemble(model, num_classes, style)


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
    return _assemble(model, num_classes, ConvStyle(model.activation, "folded", model.norm_momentum, seed=0))


def fold_into(folded: keras.Model, trained: keras.Model) -> None:
    """Gives `folded` (from `build_folded`) the weights that make it equal `trained`; see `fold_batch_norm`."""
    source = {variable.path: variable for variable in trained.variables}
    for layer in folded.layers:
        if isinstance(layer, Convolution):
            kernel, bias = _folded_weights(layer, source)
            layer.kernel.assign(kernel)
            layer.bias.assign(bias)


def _assemble(model: YoloModel, num_classes: int, style: ConvStyle) -> keras.Model:
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, got num_classes = {num_classes}")
    image = keras.Input((*model.input_size, 3), dtype="float32", name="image")
    features = BACKBONES[model.backbone.type](image, model.backbone, style)
    levels = DECODERS[model.decoder.type](features, model.decoder, len(model.head.levels), style)
    return keras.Model(image, HEADS[model.head.type](levels, model.head, num_classes, style), name="detector")


def _folded_weights(layer: Convolution, source: dict[str, keras.Variable]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a folded `layer`, from the unfolded network's variables by path."""

    def read(path):
        if path not in source:
            raise ValueError(f"fold_batch_norm: the trained model has no weight {path}; so another config built it")
        return keras.ops.convert_to_numpy(source[path]).astype(np.float64)  # one rounding, at the end

    kernel = read(f"{layer.name}/kernel")
    if kernel.shape != tuple(layer.kernel.shape):
        raise ValueError(
            f"fold_batch_norm: {layer.name}/kernel is {kernel.shape} in the trained model, but this config makes it"
            f" {tuple(layer.kernel.shape)}; give the config and class count it was trained with"
        )
    if f"{layer.name}/bias" in source:
        return kernel, read(f"{layer.name}/bias")
    gamma, beta, mean, variance = (
        read(f"{layer.name}_norm/{part}") for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return kernel * scale, beta - mean * scale
