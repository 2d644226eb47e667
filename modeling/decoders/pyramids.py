"""FPN and PAN as Darknet's cfgs have them (cfg/yolov3.cfg, yolov4.cfg, yolov4-csp.cfg, yolov7.cfg and their kin)."""

from collections.abc import Callable, Iterator

from configs.decoders import FpnDecoder, PanDecoder
from modeling.decoders.blocks import fuse
from modeling.decoders.levels import coarsest_first
from modeling.layers.blocks import HALVED, joined
from modeling.layers.convolution import ConvStyle, conv_block, scaled
from modeling.layers.resampling import Upsample
from modeling.layers.shapes import Features

Join = Callable[[Features, Features, int, str], Features]  # (upsampled, skip, filters, name) -> both


def fpn(features: dict[int, Features], config: FpnDecoder, levels: int, style: ConvStyle) -> Iterator[Features]:
    """One map per level, coarsest first, from features by stride.

    A level's head is made before the next level, as Darknet lists them: its weights lie in that order.
    """

    def join(upsampled: Features, skip: Features, filters: int, name: str) -> Features:
        return joined([upsampled, skip], f"{name}_both")

    for level, x in enumerate(_downwards(features, config, levels, join, style)):
        yield _last(x, level, style)


def pan(features: dict[int, Features], config: PanDecoder, levels: int, style: ConvStyle) -> Iterator[Features]:
    """One map per level, finest first, from features by stride; see `fpn` for the order of the weights."""

    def join(upsampled: Features, skip: Features, filters: int, name: str) -> Features:
        beside = conv_block(skip, filters, 1, name=f"{name}_skip", style=style)
        return joined([beside, upsampled], f"{name}_both")

    maps = _upwards([*_downwards(features, config, levels, join, style)][::-1], config, style)
    for level, x in enumerate([*maps] if config.predict_last else maps):
        yield _last(x, level, style)


def _downwards(
    features: dict[int, Features], config: FpnDecoder | PanDecoder, levels: int, join: Join, style: ConvStyle
) -> Iterator[Features]:
    """The coarsest features, fused; then finer ones joined with what was made before, each with half the filters."""
    coarsest, *skips = coarsest_first(features, levels, config.type)
    filters = scaled(coarsest.shape[-1] / 2)
    x = fuse(coarsest, config.coarsest, filters, "decoder_0", style)
    yield x
    for level, skip in enumerate(skips, start=1):
        name, filters = f"decoder_{level}", scaled(filters / 2)
        reduced = conv_block(x, filters, 1, name=f"{name}_lateral", style=style)
        both = join(Upsample(2, name=f"{name}_upsample")(reduced), skip, filters, name)
        x = fuse(both, config.block, filters, name, style)
        yield x


def _upwards(maps: list[Features], config: PanDecoder, style: ConvStyle) -> Iterator[Features]:
    """The finest map; then each coarser one joined with what was made before."""
    finest, *rest = maps
    x = finest
    yield x
    for number, beside in enumerate(rest, start=1):
        name, filters = f"decoder_up{number}", beside.shape[-1]
        parts = [*HALVED[config.down](x, filters, f"{name}_down", style), beside]
        x = fuse(joined(parts, f"{name}_both"), config.block, filters, name, style)
        yield x


def _last(x: Features, level: int, style: ConvStyle) -> Features:
    """What the head of a level reads."""
    return conv_block(x, 2 * x.shape[-1], 3, name=f"decoder_last{level}", style=style)
