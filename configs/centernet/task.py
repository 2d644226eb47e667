"""Vocabulary of the CenterNet family: model parts, loss. Names and defaults are the original's (lib/opts.py)."""

from typing import Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from configs.backbones import Backbone, HourglassBackbone
from configs.data import Data
from configs.decoders import Decoder
from configs.style import Activation, Initialiser, StyleConfig
from official.core.config import Config
from official.vision.protocol import EvaluationProtocol


class CenterNetHead(Config):
    type: Literal["centernet"] = "centernet"
    head_conv: PositiveInt = Field(64, description="Channels of each head's 3x3; 256 with DLA, dims[0] with hourglass.")
    cat_spec_wh: bool = Field(False, description="A width and height for each class, instead of one for all.")
    reg_offset: bool = Field(True, description="Whether there is an offset head; without it, centres are at 0.5.")
    K: PositiveInt = Field(100, description="Peaks of an image that are decoded.")


class CenterNetModel(StyleConfig):
    input_size: tuple[PositiveInt, PositiveInt] = Field(
        description="(height, width) in pixels, multiples of 32; with hourglass of 4 for each time it is halved."
    )
    backbone: Backbone
    decoder: Decoder | None = Field(
        None, description="The original's: deconv for resnet, dla_up for dla34. Of hourglass there is none."
    )
    head: CenterNetHead = CenterNetHead()
    mean: tuple[float, float, float] = Field(
        (0.40789654, 0.44719302, 0.47026115),
        description="Of the pixels B, G, R (0..1); the network sees "
        "(B, G, R - mean) / std. COCO's; for Pascal the original has ImageNet's R, G, B ones, in that order.",
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.28863828, 0.27408164, 0.27809835)
    activation: Activation = "relu"
    norm_momentum: float = Field(0.9, gt=0, lt=1, description="Share of the old moving statistics (PyTorch's 0.1).")
    initialiser: Initialiser = "pytorch"

    @property
    def coarsest_stride(self) -> int:
        backbone = self.backbone
        return 4 * 2 ** (len(backbone.dims) - 1) if isinstance(backbone, HourglassBackbone) else 32

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "CenterNetModel":
        backbone = self.backbone.type
        if backbone == "hourglass" and self.decoder is not None:
            raise ValueError(f"backbone {backbone} goes with decoder null, got {self.decoder.type}")
        if backbone != "hourglass" and self.decoder is None:
            raise ValueError(f"backbone {backbone} goes with a decoder (the original's: deconv or dla_up), got null")
        if any(side % self.coarsest_stride for side in self.input_size):
            raise ValueError(
                f"input_size (height, width) must be multiples of {self.coarsest_stride}, the coarsest stride; got"
                f" {self.input_size}"
            )
        return self


class CenterNetLoss(Config):
    type: Literal["centernet"] = "centernet"
    hm_weight: NonNegativeFloat = 1.0
    wh_weight: NonNegativeFloat = 0.1
    off_weight: NonNegativeFloat = 1.0
    reg_loss: Literal["l1", "sl1"] = Field("l1", description="Of size and offset; sl1: smooth L1, summed over x and y.")
    dense_wh: bool = Field(
        False, description="Sizes are asked for wherever an object was drawn, not at its centre only."
    )


class CenterNetProtocol(EvaluationProtocol):
    """How CenterNet is evaluated; the defaults are the original's on COCO, but for its input of each image's own size.

    The original's default for COCO is `resize: keep`.
    """

    resize: Literal["affine", "keep"] = Field(
        "affine", description=EvaluationProtocol.model_fields["resize"].description
    )
    interpolation: Literal["opencv", "bilinear"] = Field(
        "opencv", description=EvaluationProtocol.model_fields["interpolation"].description
    )
    padding_value: float = Field(0.0, ge=0, le=0, description="CenterNet pads with black.")
    nms: Literal["none", "soft_nms"] = Field("none", description=EvaluationProtocol.model_fields["nms"].description)
    score_floor: float = Field(0.0, ge=0, lt=1)
    clip_boxes: bool = Field(False, description=EvaluationProtocol.model_fields["clip_boxes"].description)
    decimals: NonNegativeInt | None = Field(2, description=EvaluationProtocol.model_fields["decimals"].description)

    @pydantic.model_validator(mode="after")
    def _scales_are_merged(self) -> "CenterNetProtocol":
        if self.scales != (1.0,) and self.nms != "soft_nms":
            raise ValueError(f"scales {self.scales}: what they find is merged by nms: soft_nms, but nms is {self.nms}")
        if self.keep_multiple & (self.keep_multiple - 1):
            raise ValueError(f"keep_multiple must be a power of 2, got {self.keep_multiple}")
        return self


class CenterNetTask(Config):
    type: Literal["centernet"] = "centernet"
    model: CenterNetModel
    loss: CenterNetLoss = CenterNetLoss()
    data: Data
    evaluation: CenterNetProtocol = CenterNetProtocol()

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "CenterNetTask":
        train, protocol, stride = self.data.train, self.evaluation, self.model.coarsest_stride
        if train.augmentation is not None and train.augmentation.type != "centernet":
            raise ValueError(f"data.train.augmentation.type is {train.augmentation.type}; expected centernet")
        if train.multi_scale is not None:
            raise ValueError("data.train.multi_scale: CenterNet trains at one size; leave it out")
        if (protocol.resize == "keep" or protocol.sees_whole_images) and self.data.validation.batch_size != 1:
            raise ValueError(
                f"data.validation.batch_size is {self.data.validation.batch_size}; expected 1, since with "
                "evaluation.resize: keep, and with nms: soft_nms, each image has its own size"
            )
        if protocol.resize == "keep" and protocol.keep_multiple % stride:
            raise ValueError(
                f"evaluation.keep_multiple is {protocol.keep_multiple}; expected a multiple of {stride}, the coarsest "
                "stride of the network"
            )
        if self.loss.dense_wh and self.model.head.cat_spec_wh:
            raise ValueError("loss.dense_wh asks for one size map, but model.head.cat_spec_wh makes one for each class")
        return self
