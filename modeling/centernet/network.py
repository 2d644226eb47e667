"""A CenterNet from its parts: backbone and decoder are found in tables by their config's `type`."""

import keras

from configs.centernet.task import CenterNetModel
from modeling.backbones import features_of
from modeling.centernet.head import centernet_maps, head_rule
from modeling.decoders import maps_from
from modeling.layers.style import Style

InputSize = tuple[int | None, int | None]
STRIDE = 4  # of the maps


def build_centernet(
    model: CenterNetModel, num_classes: int, seed: int, input_size: InputSize | None = None
) -> keras.Model:
    """Image float32 [batch, height, width, 3] -> flat list of raw hm, wh and (with reg_offset) reg of each stack.

    They are float32 [batch, height / 4, width / 4, channels] under every Keras dtype policy. The same seed gives the
    same weights. input_size: (height, width) in pixels, by default the model's.
    """
    return _assemble(model, num_classes, Style.of(model, seed), input_size)


def build_folded_centernet(model: CenterNetModel, num_classes: int, input_size: InputSize | None = None) -> keras.Model:
    """The same without batch-norm layers: each convolution before one has a bias. Its weights mean nothing yet."""
    return _assemble(model, num_classes, Style.folded(model), input_size)


def _assemble(model: CenterNetModel, num_classes: int, style: Style, size: InputSize | None) -> keras.Model:
    if num_classes < 1:
        raise ValueError(f"a detector needs at least one class, got num_classes = {num_classes}")
    image = keras.Input((*(size or model.input_size), 3), dtype="float32", name="image")
    features = features_of(image, model.backbone, style)
    stacks = features if model.decoder is None else [*maps_from(features, model.decoder, (STRIDE,), style)]
    outputs = centernet_maps(stacks, model.head, num_classes, head_rule(model), style)
    detector = keras.Model(image, outputs, name="detector")
    detector.made = tuple(style.made)
    return detector
