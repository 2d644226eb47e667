"""The tiny models' top-down path (Darknet cfg/yolov3-tiny.cfg, yolov4-tiny.cfg, and with three levels)."""

from collections.abc import Iterator, Sequence

import keras

from configs.decoders import TinyDecoder
from modeling.decoders.levels import coarsest_first
from modeling.layers.blocks import conv_block, scaled
from modeling.layers.resampling import Upsample
from modeling.layers.shapes import Features
from modeling.layers.style import Style


def tiny_decoder(
    features: dict[int, Features], config: TinyDecoder, strides: Sequence[int], style: Style
) -> Iterator[Features]:
    """One map per stride of `strides`, coarsest first, from features by stride. Filters follow the features' channels.

    A level's head is made before the next level, as Darknet lists them: its weights lie in that order.
    """
    (coarsest, x), *skips = coarsest_first(features)
    channels = skips[0][1].shape[-1]
    source = conv_block(x, channels, 1, name="decoder_0_reduce", style=style)
    if coarsest in strides:
        yield conv_block(source, 2 * channels, 3, name="decoder_0_fuse", style=style)
    for level, (stride, skip) in enumerate(skips, start=1):
        channels = skip.shape[-1]
        halved = channels if config.lateral == "half_of_skip" else source.shape[-1]
        lateral = conv_block(source, scaled(halved / 2), 1, name=f"decoder_{level}_reduce", style=style)
        upsampled = Upsample(2, name=f"decoder_{level}_upsample")(lateral)
        joined = keras.layers.Concatenate(name=f"decoder_{level}_join")([upsampled, skip])
        source = conv_block(joined, channels, 3, name=f"decoder_{level}_fuse", style=style)
        if stride in strides:
            yield source
