"""Vocabulary of the backbones. Several models share one; what differs is an option."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from configs.style import Activation
from official.core.config import Config

Down = Literal["pool", "convolution", "pool_and_convolution"]


class _Backbone(Config):
    activation: Activation | None = Field(None, description="The backbone's own, instead of the model's.")


class TinyV3Backbone(_Backbone):
    """YOLOv3-tiny's backbone: convolutions and max-pools; features at strides 4, 8, 16 and 32."""

    type: Literal["yolov3_tiny"] = "yolov3_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class TinyV4Backbone(_Backbone):
    """YOLOv4-tiny's backbone: three CSP blocks of split channels; features at strides 4, 8, 16 and 32."""

    type: Literal["yolov4_tiny"] = "yolov4_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class _StagedBackbone(_Backbone):
    """Five stages, each halving the sides and then of residual blocks; features at strides 4, 8, 16 and 32."""

    blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        (1, 2, 8, 8, 4), description="Residual blocks of each stage."
    )
    width: PositiveFloat = Field(
        1.0, description="Multiplies every number of filters but the first convolution's 32 (rounded to 8)."
    )


class Darknet53Backbone(_StagedBackbone):
    """YOLOv3's: every stage is residual."""

    type: Literal["darknet53"] = "darknet53"


class CspDarknet53Backbone(_StagedBackbone):
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
    """YOLOv7's and YOLOv7-tiny's: four ELAN blocks, halved between; features at strides 4, 8, 16 and 32."""

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


class _ReluBackbone(Config):
    activation: Activation = Field("relu", description="The backbone's own.")


class ResNetBackbone(_ReluBackbone):
    """ResNet; features at strides 4, 8, 16 and 32."""

    type: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 18


class DlaBackbone(_ReluBackbone):
    """DLA-34; features at strides 4, 8, 16 and 32."""

    type: Literal["dla34"] = "dla34"


class HourglassBackbone(_ReluBackbone):
    """Stacked hourglass, by default Hourglass-104; each stack has heads of its own, of which the last is decoded.

    It gives stacks, not features by stride, so it takes no decoder, and only a head that reads stacks.
    """

    type: Literal["hourglass"] = "hourglass"
    stacks: PositiveInt = 2
    dims: tuple[PositiveInt, ...] = Field(
        (256, 256, 384, 384, 384, 512), min_length=2, description="Channels at stride 4 and each half of it."
    )
    modules: tuple[PositiveInt, ...] = Field((2, 2, 2, 2, 2, 4), description="Residual blocks at each of them.")
    pre: PositiveInt = Field(128, description="Channels of the first convolution, at stride 2.")
    cnv_dim: PositiveInt = Field(256, description="Channels that the heads read.")

    @pydantic.model_validator(mode="after")
    def _a_module_for_each_dim(self) -> "HourglassBackbone":
        if len(self.modules) != len(self.dims):
            raise ValueError(
                f"modules has {len(self.modules)} numbers, dims {len(self.dims)}; there is one for each size"
            )
        return self


Backbone = Annotated[
    TinyV3Backbone
    | TinyV4Backbone
    | Darknet53Backbone
    | CspDarknet53Backbone
    | ElanBackbone
    | ResNetBackbone
    | DlaBackbone
    | HourglassBackbone,
    Field(discriminator="type"),
]
