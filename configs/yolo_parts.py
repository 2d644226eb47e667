"""Vocabulary of the YOLO family's backbones and decoders. Several models share a part; what differs is an option."""

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag

from official.core.config import Config, type_or

Activation = Literal["leaky", "mish", "swish", "relu", "linear", "logistic"]
Down = Literal["pool", "convolution", "pool_and_convolution"]
Piece = Literal[1, 3, "spp"]


class _Backbone(Config):
    activation: Activation | None = Field(None, description="The backbone's own, instead of the model's.")


class TinyV3Backbone(_Backbone):
    """YOLOv3-tiny's backbone: convolutions and max-pools; features at strides 8, 16 and 32."""

    type: Literal["yolov3_tiny"] = "yolov3_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class TinyV4Backbone(_Backbone):
    """YOLOv4-tiny's backbone: three CSP blocks of split channels; features at strides 8, 16 and 32."""

    type: Literal["yolov4_tiny"] = "yolov4_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class _DarknetBackbone(_Backbone):
    """Five stages, each halving the sides and then of residual blocks; features at strides 8, 16 and 32."""

    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 2, 8, 8, 4), description="Residual blocks of each stage."
    )
    width: PositiveFloat = Field(
        1.0, description="Multiplies every number of filters but the first convolution's 32 (rounded to 8)."
    )


class Darknet53Backbone(_DarknetBackbone):
    """YOLOv3's: every stage is residual."""

    type: Literal["darknet53"] = "darknet53"


class CspDarknet53Backbone(_DarknetBackbone):
    """YOLOv4's: in a stage, half of the channels go past the residual blocks (CSPNet)."""

    type: Literal["cspdarknet53"] = "cspdarknet53"
    residual_stages: int = Field(
        0, ge=0, le=5, description="How many of the first stages are Darknet-53's instead. YOLOv4: 0, YOLOv4-CSP: 1."
    )


def _check_join(join: tuple[int, ...]) -> tuple[int, ...]:
    if max(join) < 2 or len(set(join)) < len(join):
        raise ValueError(f"join {list(join)}: expected different outputs, one of a 3x3 convolution (2, 3, ...)")
    return join


Join = Annotated[
    tuple[NonNegativeInt, ...],
    Field(
        min_length=2,
        description="What an ELAN block joins, in this order: 0 and 1 are its two 1x1 convolutions, 2, 3, ... the 3x3"
        " convolutions after the second, of which there are as many as this takes.",
    ),
    pydantic.AfterValidator(_check_join),
]


class ElanBackbone(_Backbone):
    """YOLOv7's and YOLOv7-tiny's: four ELAN blocks, halved between; features at strides 8, 16 and 32."""

    type: Literal["elan"] = "elan"
    stem: tuple[tuple[PositiveInt, Literal[1, 2]], ...] = Field(
        description="(filters, stride) of the 3x3 convolutions before the first block, which reach stride 4."
    )
    stages: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        min_length=4, max_length=4, description="(filters of a block's convolutions, filters of what it gives)."
    )
    join: Join
    down: Down = Field(description="How the sides are halved between two blocks.")

    @pydantic.field_validator("stem")
    @classmethod
    def _reaches_stride_4(cls, stem: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        strides = [stride for _, stride in stem]
        if strides.count(2) != 2:
            raise ValueError(f"strides {strides}: expected two of 2, which reach stride 4")
        return stem


class TinyDecoder(Config):
    """Top-down path of the tiny models: 1x1, upsample, concatenate. One level per mask of the head, coarsest first."""

    type: Literal["tiny"] = "tiny"
    lateral: Literal["half_of_skip", "half_of_incoming"] = Field(
        "half_of_skip",
        description="Filters of the 1x1 before upsampling. The same at two levels; at three, yolov4-tiny-3l.cfg has"
        " half_of_skip, yolov3-tiny_3l.cfg half_of_incoming.",
    )


class _Pooled(Config):
    layers: tuple[Piece, ...] = Field(
        min_length=1, description="Sizes of kernels; spp: max-pools of several windows, joined."
    )
    spp: tuple[PositiveInt, ...] = Field(
        (13, 9, 5, 1), min_length=1, description="The windows, in the order in which they are joined; 1: no pool."
    )

    @pydantic.field_validator("spp")
    @classmethod
    def _odd(cls, windows: tuple[int, ...]) -> tuple[int, ...]:
        if any(window % 2 == 0 for window in windows):
            raise ValueError(f"{list(windows)}: expected odd windows, which have a middle")
        return windows


class ConvolutionsBlock(_Pooled):
    """Convolutions one after the other; those of size 3 have twice the filters (YOLOv3, YOLOv4)."""

    type: Literal["convolutions"] = "convolutions"
    layers: tuple[Piece, ...] = (1, 3, 1, 3, 1)


class CspBlock(_Pooled):
    """Convolutions one after the other, and past them a 1x1 convolution; joined, then a 1x1 (YOLOv4-CSP, YOLOv7)."""

    type: Literal["csp"] = "csp"
    reduce: bool = Field(False, description="Whether a 1x1 convolution comes before both.")
    bypass_first: bool = Field(False, description="Whether what went past is joined before the rest.")


class ElanBlock(Config):
    """Two 1x1 convolutions, after the second 3x3 convolutions; those of `join` are joined, then a 1x1 (YOLOv7)."""

    type: Literal["elan"] = "elan"
    join: Join
    hidden: PositiveFloat = Field(1.0, description="Filters of the 1x1 convolutions, as a part of the level's.")
    inner: PositiveFloat = Field(1.0, description="Filters of the 3x3 convolutions, as a part of the level's.")


Block = Annotated[ConvolutionsBlock | CspBlock | ElanBlock, Field(discriminator="type")]


class _PathDecoder(Config):
    coarsest: Block = Field(ConvolutionsBlock(), description="Of the coarsest features.")
    block: Block = Field(ConvolutionsBlock(), description="Of each join.")


class FpnDecoder(_PathDecoder):
    """Top-down path of YOLOv3: each level is joined with the coarser one, twice as large. Levels coarsest first."""

    type: Literal["fpn"] = "fpn"


class PanDecoder(_PathDecoder):
    """FPN's path down and then one up again, of joins with the coarser level of the first. Levels finest first."""

    type: Literal["pan"] = "pan"
    down: Down = Field("convolution", description="How the sides are halved on the way up.")
    predict_last: bool = Field(
        False, description="The order of a file of weights: each level's last convolution and head, or all at the end."
    )


Backbone = Annotated[
    TinyV3Backbone | TinyV4Backbone | Darknet53Backbone | CspDarknet53Backbone | ElanBackbone,
    Field(discriminator="type"),
]
# `type` goes without saying where it is tiny.
Decoder = Annotated[
    Annotated[TinyDecoder, Tag("tiny")] | Annotated[FpnDecoder, Tag("fpn")] | Annotated[PanDecoder, Tag("pan")],
    Discriminator(type_or("tiny")),
]
