"""The sections of a Darknet cfg as frozen values: which options each has, their types and their defaults.

One class per section, one attribute per option, named as the option is; `option(...)` says what its text may be.
Everything here restates Darknet's parser.c (parse_net_options, parse_convolutional, ...) and is read by cfg.py. An
attribute holds what Darknet goes on with: `padding` is already size // 2 under `pad=1`, layers referred to are counted
from the first section after [net], anchors are pairs. Numbers are kept as written; Darknet rounds them to float32.
"""

import dataclasses
from typing import Any, ClassVar

from modeling.darknet.head_sections import Detection, GaussianYolo, Region, Yolo
from modeling.darknet.net import Net as Net
from modeling.darknet.options import FLT_MAX, Layer, absolute, option

ACTIVATIONS = (
    *("logistic", "swish", "mish", "hard_mish"),
    *("normalize_channels", "normalize_channels_softmax", "normalize_channels_softmax_maxval"),
    *("loggy", "relu", "relu6", "elu", "selu", "gelu", "relie", "plse", "hardtan", "lhtan", "linear", "ramp"),
    *("revleaky", "leaky", "tanh", "stair"),
)


def _activation(default: str) -> Any:
    return option(default, choices=ACTIVATIONS, otherwise="relu")


def _or_stride(value: int | None, options: dict[str, Any]) -> int:
    return options["stride"] if value is None else value


def _absolutes(indices: tuple[int, ...], options: dict[str, Any]) -> tuple[int, ...]:
    return tuple(absolute(index, options) for index in indices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolutional(Layer):
    section: ClassVar[str] = "convolutional"

    filters: int = option(1, at_least=1)
    groups: int = option(1, at_least=1)
    size: int = option(1, at_least=1)
    stride: int = option(1, at_least=1)
    stride_x: int = option(-1, then=lambda stride, o: stride if stride >= 1 else o["stride"])
    stride_y: int = option(-1, then=lambda stride, o: stride if stride >= 1 else o["stride"])
    dilation: int = option(1, at_least=1, then=lambda dilation, o: 1 if o["size"] == 1 else dilation)
    pad: int = option(0)
    padding: int = option(0, at_least=0, then=lambda padding, o: o["size"] // 2 if o["pad"] else padding)
    activation: str = _activation("logistic")
    cbn: int = option(0)
    batch_normalize: int = option(0, then=lambda n, o: 2 if o["cbn"] else n)
    share_index: int | None = option(None, then=lambda n, o: None if n is None else absolute(n, o))
    binary: int = option(0)
    xnor: int = option(0)
    bin_output: int = option(0)
    antialiasing: int = option(0)
    assisted_excitation: int = option(0)
    sway: int = option(0)
    rotate: int = option(0)
    stretch: int = option(0)
    stretch_sway: int = option(0)
    angle: float = option(15.0)
    flipped: int = option(0)
    dot: float = option(0.0)
    grad_centr: int = option(0)
    reverse: float = option(0.0)
    coordconv: int = option(0)
    stream: int = option(-1)
    wait_stream: int = option(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(Layer):
    section: ClassVar[str] = "local"

    filters: int = option(1, at_least=1)
    size: int = option(1, at_least=1)
    stride: int = option(1, at_least=1)
    pad: int = option(0, at_least=0)  # the padding itself, unlike [convolutional]'s
    activation: str = _activation("logistic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connected(Layer):
    section: ClassVar[str] = "connected"

    output: int = option(1, at_least=1)
    activation: str = _activation("logistic")
    batch_normalize: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crnn(Layer):
    section: ClassVar[str] = "crnn"

    size: int = option(3, at_least=1)
    stride: int = option(1, at_least=1)
    dilation: int = option(1, at_least=1)
    pad: int = option(0)
    padding: int = option(0, at_least=0, then=lambda padding, o: o["size"] // 2 if o["pad"] else padding)
    output: int = option(1, at_least=1)
    hidden: int = option(1, at_least=1)
    groups: int = option(1, at_least=1)
    activation: str = _activation("logistic")
    batch_normalize: int = option(0)
    xnor: int = option(0)
    shortcut: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalAvgpool(Layer):
    section: ClassVar[str] = "local_avgpool"

    stride: int = option(1, at_least=1)
    stride_x: int = option(None, at_least=1, then=_or_stride)
    stride_y: int = option(None, at_least=1, then=_or_stride)
    size: int = option(None, at_least=1, then=_or_stride)
    padding: int = option(None, at_least=0, then=lambda padding, o: o["size"] - 1 if padding is None else padding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maxpool(LocalAvgpool):
    """`padding` is the total of both sides: its half, rounded down, goes to the left and the top."""

    section: ClassVar[str] = "maxpool"

    maxpool_depth: int = option(0)
    out_channels: int = option(1, at_least=1)
    antialiasing: int = option(0)
    maxpool_zero_nonmax: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Avgpool(Layer):
    section: ClassVar[str] = "avgpool"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upsample(Layer):
    section: ClassVar[str] = "upsample"

    stride: int = option(2)  # negative: downsampling by -stride
    scale: float = option(1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reorg(Layer):
    """[reorg]: Darknet's older one (reorg_old_layer.c)."""

    section: ClassVar[str] = "reorg"

    stride: int = option(1, at_least=1)
    reverse: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reorg3d(Reorg):
    """[reorg3d]: Darknet's newer one (reorg_layer.c)."""

    section: ClassVar[str] = "reorg3d"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(Layer):
    section: ClassVar[str] = "crop"

    crop_height: int = option(1, at_least=1)
    crop_width: int = option(1, at_least=1)
    flip: int = option(0)
    angle: float = option(0.0)
    saturation: float = option(1.0)
    exposure: float = option(1.0)
    shift: float = option(0.0)
    noadjust: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route(Layer):
    section: ClassVar[str] = "route"

    layers: tuple[int, ...] = option(required="the layers it joins", then=_absolutes)
    groups: int = option(1, at_least=1)
    group_id: int = option(0, at_least=0)
    stream: int = option(-1)
    wait_stream: int = option(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut(Layer):
    section: ClassVar[str] = "shortcut"

    from_: tuple[int, ...] = option(key="from", required="the layers it adds", then=_absolutes)
    activation: str = _activation("linear")
    weights_type: str = option(
        "none", choices=("none", "per_feature", "per_channel"), alias={"per_layer": "per_feature"}
    )
    weights_normalization: str = option(
        "none", choices=("none", "relu", "softmax"), alias={"avg_relu": "relu"}, otherwise="none"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sam(Layer):
    section: ClassVar[str] = "sam"

    from_: int = option(key="from", required="the layer it multiplies", then=absolute)
    activation: str = _activation("linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleChannels(Sam):
    section: ClassVar[str] = "scale_channels"

    scale_wh: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    section: ClassVar[str] = "dropout"

    probability: float = option(0.2)
    dropblock: int = option(0)
    dropblock_size_rel: float = option(0.0)
    dropblock_size_abs: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batchnorm(Layer):
    section: ClassVar[str] = "batchnorm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    section: ClassVar[str] = "activation"

    activation: str = _activation("linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization(Layer):
    """[normalization], also called [lrn]: local response normalisation over channels."""

    section: ClassVar[str] = "normalization"

    alpha: float = option(0.0001)
    beta: float = option(0.75)
    kappa: float = option(1.0)
    size: int = option(5, at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    section: ClassVar[str] = "softmax"

    groups: int = option(1, at_least=1)
    temperature: float = option(1.0)
    tree: str | None = option(None)
    spatial: int = option(0)
    noloss: int = option(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost(Layer):
    section: ClassVar[str] = "cost"

    type: str = option("sse", choices=("sse", "masked", "smooth"), otherwise="sse")
    scale: float = option(1.0)
    ratio: float = option(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Empty(Layer):
    """[empty], also called [silence]: passes its input on."""

    section: ClassVar[str] = "empty"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive(Layer):
    section: ClassVar[str] = "contrastive"

    classes: int = option(1000, at_least=1)
    yolo_layer: int = option(0, then=absolute)
    temperature: float = option(1.0)
    cls_normalizer: float = option(1.0)
    max_delta: float = option(FLT_MAX)
    contrastive_neg_max: int = option(3)


LAYERS: tuple[type[Layer], ...] = (
    *(Convolutional, Local, Connected, Crnn, Maxpool, LocalAvgpool, Avgpool, Upsample, Reorg, Reorg3d, Crop),
    *(Route, Shortcut, Sam, ScaleChannels, Dropout, Batchnorm, Activation, Normalization, Softmax, Cost, Empty),
    *(Contrastive, Yolo, GaussianYolo, Region, Detection),
)
HEAD_SECTIONS = (Yolo, GaussianYolo, Region, Detection)
ALIASES = {
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "soft": "softmax",
    "lrn": "normalization",
    "silence": "empty",
}
SECTIONS: dict[str, type[Layer]] = {layer.section: layer for layer in LAYERS}
SECTIONS |= {alias: SECTIONS[name] for alias, name in ALIASES.items()}
# Darknet has these too; no detector uses them.
UNSUPPORTED = ("rnn", "gru", "lstm", "conv_lstm", "history", "implicit")
