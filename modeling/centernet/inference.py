"""A CenterNet as it is evaluated and exported: RGB in, the last stack's maps out, the flip test inside."""

from typing import no_type_check

import keras
import tensorflow as tf
from jaxtyping import Float

from configs.centernet.task import CenterNetModel
from modeling.centernet.decode import average_flipped, maps_of
from modeling.centernet.network import InputSize, build_folded_centernet


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class CenterNetInference(keras.Model):
    """Image float32 [batch, height, width, 3], RGB 0..1 -> the fields of modeling.centernet.decode.Maps.

    `network` has batch-norm folded. With `flip_test`, heat and sizes are means with those of the mirrored image.
    """

    def __init__(self, network: keras.Model, config: CenterNetModel, flip_test: bool, **kwargs):
        super().__init__(**kwargs)
        self.network, self.config, self.flip_test = network, config, flip_test

    def call(self, images, training=False):
        inputs = standardise(images[..., ::-1], self.config)
        maps = self._maps(inputs)
        if self.flip_test:
            maps = average_flipped(maps, self._maps(tf.reverse(inputs, [2])))
        return [part for part in maps if part is not None]

    def _maps(self, inputs):
        return maps_of(tf.nest.flatten(self.network(inputs, training=False)), self.config.head)


def standardise(
    pixels: Float[tf.Tensor, "*batch height width 3"], config: CenterNetModel
) -> Float[tf.Tensor, "*batch height width 3"]:
    """Pixels B, G, R, about 0..1 -> the network's input: less `config.mean`, over `config.std`."""
    return (pixels - tf.constant(config.mean, pixels.dtype)) / tf.constant(config.std, pixels.dtype)


def build_inference(
    config: CenterNetModel, num_classes: int, flip_test: bool, input_size: InputSize
) -> CenterNetInference:
    """The network for inputs of `input_size` (None: of any); its weights come by `modeling.folding.fold_into`."""
    network = build_folded_centernet(config, num_classes, input_size)
    model = CenterNetInference(network, config, flip_test, name="inference")
    model(keras.Input((*input_size, 3), dtype="float32"))
    return model
