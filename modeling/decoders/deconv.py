"""Three transposed convolutions from stride 32 to 4 (CenterNet msra_resnet.py, and resnet_dcn.py when deformable)."""

from collections.abc import Iterator, Sequence

from configs.decoders import DeconvDecoder
from modeling.layers.blocks import activated, normalised
from modeling.layers.deformable import DeformableConvolution
from modeling.layers.shapes import Features
from modeling.layers.style import Style
from modeling.layers.torch_blocks import UpConvolution


def deconv_decoder(
    features: dict[int, Features], config: DeconvDecoder, strides: Sequence[int], style: Style
) -> Iterator[Features]:
    """One map, [batch, height / 4, width / 4, config.filters[-1]], from the features at stride 32."""
    (x,), number = features.values(), 0

    def name(step: int) -> str:
        return f"decoder_deconv_layers.{number + step}"

    for filters in config.filters:
        if config.deformable:
            x = DeformableConvolution(filters, seed=style.seed_of(name(0)), name=name(0))(x)
            x = activated(normalised(x, name(0), name(1), style), name(2), style)
            number += 3
        up = UpConvolution(
            filters,
            bilinear=config.deformable,
            bias=style.bias_before_norm,
            seed=style.seed_of(name(0)),
            name=name(0),
        )
        x = activated(normalised(up(x), name(0), name(1), style), name(2), style)
        number += 3
    yield x
