"""A CenterNet from its parts: backbone, decoder and head are found in the tables below by their config's `type`."""

import keras
import numpy as np

from configs.centernet.task import CenterNetModel
from modeling.backbones.dla import dla34
from modeling.backbones.hourglass import hourglass
from modeling.backbones.resnet import resnet
from modeling.centernet.head import RULES, HeadRule, centernet_maps
from modeling.decoders.deconv import deconv_decoder
from modeling.decoders.dla_up import dla_up_decoder
from modeling.layers.batch_norm import EPSILON
from modeling.layers.torch_blocks import TorchStyle, UpConvolution

BACKBONES = {"resnet": resnet, "dla34": dla34, "hourglass": hourglass}
DECODERS = {"deconv": deconv_decoder, "dla_up": dla_up_decoder}

InputSize = tuple[int | None, int | None]


def build_centernet(
    model: CenterNetModel, num_classes: int, seed: int, input_size: InputSize | None = None
) -> keras.Model:
    """Image float32 [batch, height, width, 3] -> flat list of raw hm, wh and (with reg_offset) reg of each stack.

    They are float32 [batch, height / 4, width / 4, channels] under every Keras dtype policy. The same seed gives the
    same weights. input_size: (height, width) in pixels, by default the model's.
    """
    return _assemble(model, num_classes, TorchStyle(model.norm, model.norm_momentum, seed), input_size)


def build_folded_centernet(model: CenterNetModel, num_classes: int, input_size: InputSize | None = None) -> keras.Model:
    """The same without batch-norm layers: each convolution before one has a bias. Its weights mean nothing yet."""
    return _assemble(model, num_classes, TorchStyle("folded", model.norm_momentum, 0), input_size)


def fold_centernet_into(folded: keras.Model, trained: keras.Model) -> None:
    """Gives a network of `build_folded_centernet` the weights that make it equal `trained`, of the same config.

    With scale = gamma / sqrt(variance + epsilon), from the moving statistics: kernel' = kernel * scale, bias' = (bias -
    mean) * scale + beta.
    """
    source = {variable.path: keras.ops.convert_to_numpy(variable) for variable in trained.variables}
    for layer in folded.layers:
        values = {variable.path: source.get(variable.path) for variable in layer.variables}
        norm = folded.norms.get(layer.name)
        if norm is not None:
            gamma, beta, mean, variance = (
                source[f"{norm}/{part}"].astype(np.float64)
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            scale = gamma / np.sqrt(variance + EPSILON)
            # An UpConvolution's kernel has its filters before its channels.
            by_filter = scale[:, np.newaxis] if isinstance(layer, UpConvolution) else scale
            kernel, bias = layer.kernel.path, layer.bias.path
            values[kernel] = source[kernel] * by_filter
            values[bias] = (source.get(bias, 0.0) - mean) * scale + beta
        for variable in layer.variables:
            variable.assign(values[variable.path])


def _assemble(model: CenterNetModel, num_classes: int, style: TorchStyle, size: InputSize | None) -> keras.Model:
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, got num_classes = {num_classes}")
    image = keras.Input((*(size or model.input_size), 3), dtype="float32", name="image")
    features = BACKBONES[model.backbone.type](image, model.backbone, style)
    stacks = features if model.decoder is None else [DECODERS[model.decoder.type](features, model.decoder, style)]
    outputs = centernet_maps(stacks, model.head, num_classes, _head_rule(model), style)
    detector = keras.Model(image, outputs, name="detector")
    detector.norms = dict(style.norms)  # for fold_centernet_into
    return detector


def _head_rule(model: CenterNetModel) -> HeadRule:
    deformable = model.decoder is not None and model.decoder.type == "deconv" and model.decoder.deformable
    return RULES["resnet_dcn" if deformable else model.backbone.type]
