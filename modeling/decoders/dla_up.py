"""DLA's iterative upsampling with deformable convolutions (CenterNet lib/models/networks/pose_dla_dcn.py)."""

from collections.abc import Iterator, Sequence

import keras

from configs.decoders import DlaUpDecoder
from modeling.layers.blocks import activated, normalised
from modeling.layers.deformable import DeformableConvolution
from modeling.layers.shapes import Features
from modeling.layers.style import Style
from modeling.layers.torch_blocks import BilinearUp


def dla_up_decoder(
    features: dict[int, Features], config: DlaUpDecoder, strides: Sequence[int], style: Style
) -> Iterator[Features]:
    """One map, [batch, height / 4, width / 4, channels of stride 4], from features by stride."""
    levels = sorted(features.items())
    results = []
    for number, start in enumerate((2, 1, 0)):
        levels[start:] = _aggregate(levels[start:], f"decoder_dla_up.ida_{number}", style)
        results.append(levels[-1])
    yield _aggregate(results[::-1], "decoder_ida_up", style)[-1][1]


def _aggregate(maps: list[tuple[int, Features]], name: str, style: Style) -> list[tuple[int, Features]]:
    """Each (stride, map) brought to the first one's stride and channels, and merged with the one before it.

    Strides, not sides, say how much larger a map becomes: an input of any size has no sides yet.
    """
    finest, first = maps[0]
    results = [first]
    for number, (stride, x) in enumerate(maps[1:], start=1):
        x = _deformable(x, first.shape[-1], f"{name}.proj_{number}", style)
        x = BilinearUp(stride // finest, name=f"{name}.up_{number}")(x)
        x = keras.layers.Add(name=f"{name}.sum_{number}")([x, results[-1]])
        results.append(_deformable(x, first.shape[-1], f"{name}.node_{number}", style))
    return [(finest, x) for x in results]


def _deformable(x: Features, filters: int, name: str, style: Style) -> Features:
    convolution = f"{name}.conv"
    x = DeformableConvolution(filters, seed=style.seed_of(convolution), name=convolution)(x)
    return activated(normalised(x, convolution, f"{name}.actf.0", style), f"{name}.actf", style)
