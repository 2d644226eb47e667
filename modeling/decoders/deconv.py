"""Three transposed convolutions from stride 32 to 4 (CenterNet msra_resnet.py, and resnet_dcn.py when deformable)."""

from configs.decoders import DeconvDecoder
from modeling.layers.deformable import DeformableConvolution
from modeling.layers.shapes import Features
from modeling.layers.torch_blocks import TorchStyle, UpConvolution, normalised, relu


def deconv_decoder(features: dict[int, Features], config: DeconvDecoder, style: TorchStyle) -> Features:
    """[batch, height / 4, width / 4, config.filters[-1]] from features by stride, of which only 32 is read."""
    x, number = features[32], 0

    def name(step: int) -> str:
        return f"decoder_deconv_layers.{number + step}"

    for filters in config.filters:
        if config.deformable:
            x = DeformableConvolution(filters, seed=style.seed_of(name(0)), name=name(0))(x)
            x = relu(normalised(x, name(0), name(1), style), name(2))
            number += 3
        up = UpConvolution(
            filters,
            bilinear=config.deformable,
            bias=style.bias_before_norm,
            seed=style.seed_of(name(0)),
            name=name(0),
        )
        x = relu(normalised(up(x), name(0), name(1), style), name(2))
        number += 3
    return x
