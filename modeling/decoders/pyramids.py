"""FPN and PAN as Darknet's cfgs have them (cfg/yolov3.cfg, yolov4.cfg, yolov4-csp.cfg, yolov7.cfg and their kin)."""

from collections.abc import Callable, Iterator, Sequence

from configs.decoders import FpnDecoder, PanDecoder
from modeling.decoders.blocks import fuse
from modeling.decoders.levels import coarsest_first
from modeling.layers.blocks import HALVED, conv_block, joined, scaled
from modeling.layers.resampling import Upsample
from modeling.layers.shapes import Features
from modeling.layers.style import Style

Join = Callable[[Features, Features, int, str], Features]  # (upsampled, skip, filters, name) -> both


def fpn(features: dict[int, Features], config: FpnDecoder, strides: Sequence[int], style: Style) -> Iterator[Features]:
    """One map per stride of `strides`, coarsest first, from features by stride.

    A level's head is made before the next level, as Darknet lists them: its weights lie in that order.
    """

    def join(upsampled: Features, skip: Features, filters: int, name: str) -> Features:
        return joined([upsampled, skip], f"{name}_both")

    maps = (x for stride, x in _downwards(features, config, join, style) if stride in strides)
    for level, x in enumerate(maps):
        yield _last(x, level, style)


def pan(features: dict[int, Features], config: PanDecoder, strides: Sequence[int], style: Style) -> Iterator[Features]:
    """One map per stride of `strides`, finest first, from features by stride; see `fpn` for the weights' order."""

    def join(upsampled: Features, skip: Features, filters: int, name: str) -> Features:
        beside = conv_block(skip, filters, 1, name=f"{name}_skip", style=style)
        return joined([beside, upsampled], f"{name}_both")

    finest_first = [*_downwards(features, config, join, style)][::-1]
    needed = [(stride, x) for stride, x in finest_first if stride <= max(strides)]
    maps = (x for stride, x in _upwards(needed, config, style) if stride in strides)
    for level, x in enumerate([*maps] if config.predict_last else maps):
        yield _last(x, level, style)


def _downwards(
    features: dict[int, Features], config: FpnDecoder | PanDecoder, join: Join, style: Style
) -> Iterator[tuple[int, Features]]:
    """The coarsest features, fused; then finer ones joined with what was made before, each with half the filters.

    Each with its stride.
    """
    (stride, coarsest), *skips = coarsest_first(features)
    filters = scaled(coarsest.shape[-1] / 2)
    x = fuse(coarsest, config.coarsest, filters, "decoder_0", style)
    yield stride, x
    for level, (stride, skip) in enumerate(skips, start=1):
        name, filters = f"decoder_{level}", scaled(filters / 2)
        reduced = conv_block(x, filters, 1, name=f"{name}_lateral", style=style)
        both = join(Upsample(2, name=f"{name}_upsample")(reduced), skip, filters, name)
        x = fuse(both, config.block, filters, name, style)
        yield stride, x


def _upwards(maps: list[tuple[int, Features]], config: PanDecoder, style: Style) -> Iterator[tuple[int, Features]]:
    """The finest map; then each coarser one joined with what was made before. Each with its stride."""
    (stride, x), *rest = maps
    yield stride, x
    for number, (stride, beside) in enumerate(rest, start=1):
        name, filters = f"decoder_up{number}", beside.shape[-1]
        parts = [*HALVED[config.down](x, filters, f"{name}_down", style), beside]
        x = fuse(joined(parts, f"{name}_both"), config.block, filters, name, style)
        yield stride, x


def _last(x: Features, level: int, style: Style) -> Features:
    """What the head of a level reads."""
    return conv_block(x, 2 * x.shape[-1], 3, name=f"decoder_last{level}", style=style)
