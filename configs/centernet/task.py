"""Vocabulary of the CenterNet family: model parts, loss, data, protocol. Names and defaults are lib/opts.py's."""

from typing import Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from configs.backbones import Backbone, HourglassBackbone
from configs.centernet.augmentation import CenterNetAugmentation
from configs.data import Data, TrainSplit
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


class CenterNetTrainSplit(TrainSplit):
    augmentation: CenterNetAugmentation | None = None


class CenterNetData(Data):
    train: CenterNetTrainSplit


class CenterNetProtocol(EvaluationProtocol):
    """How CenterNet is evaluated; the defaults are the original's on COCO, but for its input of each image's own size.

    The original's default for COCO is `resize: keep`.
    """

    resize: Literal["affine", "keep"] = Field(
        "affine",
        description="affine: the longer side fills the input's width, centred to a fraction of a pixel (fix_res). "
        "keep: not resized; each image has an input of its own, with sides of the next multiple of keep_multiple above "
        "(keep_res).",
    )
    keep_multiple: PositiveInt = Field(32, description="A power of 2; the original's with hourglass: 128.")
    interpolation: Literal["opencv", "bilinear"] = Field(
        "opencv",
        description="bilinear: half-pixel centres, rounded. opencv: the same, to the bit of OpenCV. None antialiases.",
    )
    padding_value: float = Field(0.0, ge=0, le=0, description="CenterNet pads with black.")
    score_floor: float = Field(0.0, ge=0, lt=1)
    nms: Literal["none", "soft_nms"] = Field(
        "none",
        description="none: nothing is suppressed. soft_nms: scores fall with the overlap, of boxes of several scales.",
    )
    flip_test: bool = Field(False, description="Maps are averaged with those of the mirrored image.")
    scales: tuple[PositiveFloat, ...] = Field(
        (1.0,), min_length=1, description="The image is also seen at these sizes; needs nms: soft_nms."
    )
    clip_boxes: bool = Field(False, description="To the image, before they are scored.")
    decimals: NonNegativeInt | None = Field(2, description="Of boxes and scores, before they are scored.")

    @property
    def sees_whole_images(self) -> bool:
        """Whether images are resized to each of the scales in `detect`, and not before."""
        return self.nms == "soft_nms"

    @property
    def not_exportable(self) -> str | None:
        """The merge of several scales is no part of a graph."""
        if not self.sees_whole_images:
            return None
        return (
            f"evaluation.nms {self.nms} of scales {self.scales} runs on the host, beside the network; export what a "
            "device can do: --set task.evaluation.nms=none --set 'task.evaluation.scales=[1]'"
        )

    def rounded(self, number: float) -> float:
        """To `decimals`."""
        return number if self.decimals is None else round(number, self.decimals)

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
    data: CenterNetData
    evaluation: CenterNetProtocol = CenterNetProtocol()

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "CenterNetTask":
        train, protocol, stride = self.data.train, self.evaluation, self.model.coarsest_stride
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
