"""The decoders, by their config's `type`.

Each takes (features by stride, of those that it reads, its config, the strides of the maps that the head reads, style)
and gives one map [batch, height / stride, width / stride, channels] for each of those strides, in its own order.
"""

from collections.abc import Callable, Iterator, Sequence

from configs.decoders import Decoder
from modeling.decoders.deconv import deconv_decoder
from modeling.decoders.dla_up import dla_up_decoder
from modeling.decoders.levels import features_read
from modeling.decoders.pyramids import fpn, pan
from modeling.decoders.tiny import tiny_decoder
from modeling.layers.shapes import Features
from modeling.layers.style import Style

DECODERS: dict[str, Callable[..., Iterator[Features]]] = {
    "tiny": tiny_decoder,
    "fpn": fpn,
    "pan": pan,
    "deconv": deconv_decoder,
    "dla_up": dla_up_decoder,
}


def maps_from(
    features: dict[int, Features], config: Decoder, strides: Sequence[int], style: Style
) -> Iterator[Features]:
    """A map for each of `strides`, from a backbone's features by stride. They are made when they are asked for.

    Raises:
        UserError: the decoder does not make maps of such strides, or the backbone lacks features that it reads.
    """
    return DECODERS[config.type](features_read(features, config.type, strides), config, strides, style)
