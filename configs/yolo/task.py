"""Vocabulary of the YOLO family: model, data, protocol, task. Heads and losses have files of their own."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveInt, Tag

from configs.backbones import Backbone
from configs.data import AffineAugmentation, DarknetAugmentation, Data, TrainSplit
from configs.decoders import Decoder, TinyDecoder
from configs.style import Activation, Initialiser, StyleConfig
from configs.yolo.darknet_model import DarknetModel
from configs.yolo.heads import YoloHead
from configs.yolo.losses import Loss, YoloLoss
from official.core.config import Config, type_or
from official.vision.protocol import EvaluationProtocol


class YoloModel(StyleConfig):
    """A network made of parts. Defaults of its style are Darknet's."""

    type: Literal["parts"] = "parts"
    input_size: tuple[PositiveInt, PositiveInt] = Field(description="(height, width) in pixels, multiples of 32.")
    backbone: Backbone
    decoder: Decoder = TinyDecoder()
    head: YoloHead
    activation: Activation = "leaky"
    norm_momentum: float = Field(
        0.99, gt=0, lt=1, description="Share of the old moving statistics (cuDNN Darknet: 0.99)."
    )
    initialiser: Initialiser = "uniform"

    @pydantic.field_validator("backbone")
    @classmethod
    def _gives_features_by_stride(cls, backbone: Backbone) -> Backbone:
        if backbone.type == "hourglass":
            raise ValueError(
                "backbone hourglass gives stacks, each for a head of its own, and not features by stride, which decoder"
                " and head read; it goes with CenterNet alone"
            )
        return backbone

    @pydantic.field_validator("input_size")
    @classmethod
    def _multiple_of_32(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(side % 32 for side in size):
            raise ValueError(f"(height, width) must be multiples of 32, the coarsest stride; got {size}")
        return size


# `type` goes without saying where it is parts, and a loss is [yolo]'s.
Model = Annotated[
    Annotated[YoloModel, Tag("parts")] | Annotated[DarknetModel, Tag("darknet")], Discriminator(type_or("parts"))
]


Augmentation = Annotated[
    Annotated[DarknetAugmentation, Tag("darknet")] | Annotated[AffineAugmentation, Tag("affine")],
    Discriminator(type_or("darknet")),
]


class YoloTrainSplit(TrainSplit):
    augmentation: Augmentation | None = None


class YoloData(Data):
    train: YoloTrainSplit


class YoloProtocol(EvaluationProtocol):
    """How YOLO models are evaluated; the defaults are Darknet's, but for the arithmetic of the resize."""

    resize: Literal["stretch", "letterbox"] = Field(
        "letterbox", description="letterbox: the image keeps its shape, and what it leaves of the input is padded."
    )
    interpolation: Literal["bilinear", "opencv", "align_corners"] = Field(
        "bilinear",
        description="bilinear: half-pixel centres, rounded. opencv: the same, to the bit of cv2.resize. align_corners: "
        "Darknet's own, not rounded: its evaluation images are float32. None antialiases.",
    )
    nms: Literal["per_class_iou", "greedynms", "diounms"] = Field(
        "per_class_iou",
        description="What suppresses a worse box of its class, above nms_threshold. per_class_iou: the IoU (Darknet's "
        "default). greedynms, diounms: the IoU less the centres' squared distance over the squared diagonal of the "
        "hull, to the power of 0.6 or of beta_nms.",
    )


class YoloTask(Config):
    type: Literal["yolo"] = "yolo"
    model: Model
    loss: Loss = Field(YoloLoss(), description="Of the head's type. A level of the head may have its own.")
    data: YoloData
    evaluation: YoloProtocol = YoloProtocol()

    @pydantic.model_validator(mode="after")
    def _loss_is_of_the_head(self) -> "YoloTask":
        if self.loss.type != self.model.head.type:
            raise ValueError(
                f"loss.type is {self.loss.type}, but model.head.type is {self.model.head.type}; expected the same"
            )
        return self


# Versions with schema_version 1 and 2 wrote these words into every protocol; here they could have one value alone.
FORMER_WORDS = {"flip_test": False, "scales": [1.0]}


def without_former_words(saved: dict[str, Any]) -> dict[str, Any]:
    """Plain data of a saved experiment without FORMER_WORDS, if it is one of this family."""
    task = saved.get("task") or {}
    evaluation = task.get("evaluation")
    if task.get("type", "yolo") != "yolo" or not isinstance(evaluation, dict):
        return saved
    kept = {key: value for key, value in evaluation.items() if FORMER_WORDS.get(key, ...) != value}
    return saved | {"task": task | {"evaluation": kept}}
