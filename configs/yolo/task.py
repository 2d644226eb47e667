"""Vocabulary of the YOLO family: model, task. Heads and losses have files of their own."""

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveInt, Tag

from configs.backbones import Backbone
from configs.data import Data
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


class YoloTask(Config):
    type: Literal["yolo"] = "yolo"
    model: Model
    loss: Loss = Field(YoloLoss(), description="Of the head's type. A level of the head may have its own.")
    data: Data
    evaluation: EvaluationProtocol = EvaluationProtocol()

    @pydantic.model_validator(mode="after")
    def _loss_is_of_the_head(self) -> "YoloTask":
        if self.loss.type != self.model.head.type:
            raise ValueError(
                f"loss.type is {self.loss.type}, but model.head.type is {self.model.head.type}; expected the same"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _nothing_of_centernet(self) -> "YoloTask":
        augmentation, protocol = self.data.train.augmentation, self.evaluation
        if augmentation is not None and augmentation.type == "centernet":
            raise ValueError("data.train.augmentation.type is centernet; expected darknet")
        for name, allowed in OF_YOLO.items():
            if getattr(protocol, name) not in allowed:
                raise ValueError(f"evaluation.{name}: {getattr(protocol, name)} is for CenterNet; expected {allowed}")
        return self


OF_YOLO = {  # what of an evaluation protocol has a meaning here
    "resize": ("stretch", "letterbox"),
    "nms": ("per_class_iou", "greedynms", "diounms"),
    "flip_test": (False,),
    "scales": ((1.0,),),
}
