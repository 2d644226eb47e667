"""Vocabulary of the decoders (necks): what joins the backbone's features for the head."""

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from configs.backbones import Down, Join
from official.core.config import Config, type_or

Piece = Literal[1, 3, "spp"]


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


class DeconvDecoder(Config):
    """Transposed convolutions from stride 32 to 4, the one level; ResDCN has (256, 128, 64) and is deformable."""

    type: Literal["deconv"] = "deconv"
    filters: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 256, 256)
    deformable: bool = Field(False, description="A deformable convolution before each of them.")


class DlaUpDecoder(Config):
    """DLA's iterative aggregation with deformable convolutions, of strides 4 to 32 to one level at 4."""

    type: Literal["dla_up"] = "dla_up"


# `type` goes without saying where it is tiny.
Decoder = Annotated[
    Annotated[TinyDecoder, Tag("tiny")]
    | Annotated[FpnDecoder, Tag("fpn")]
    | Annotated[PanDecoder, Tag("pan")]
    | Annotated[DeconvDecoder, Tag("deconv")]
    | Annotated[DlaUpDecoder, Tag("dla_up")],
    Discriminator(type_or("tiny")),
]
