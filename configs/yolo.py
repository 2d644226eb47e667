"""Vocabulary of the YOLO family: model parts, task. Heads and losses have files of their own."""

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from configs.darknet import DarknetModel
from configs.data import Data
from configs.yolo_heads import YoloHead as YoloHead
from configs.yolo_heads import YoloLevel as YoloLevel
from configs.yolo_losses import Loss
from configs.yolo_losses import YoloLoss as YoloLoss
from official.core.config import Config, Protocol, type_or


class TinyV3Backbone(Config):
    """YOLOv3-tiny's backbone: convolutions and max-pools; features at strides 8, 16 and 32."""

    type: Literal["yolov3_tiny"] = "yolov3_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class TinyV4Backbone(Config):
    """YOLOv4-tiny's backbone: three CSP blocks of split channels; features at strides 8, 16 and 32."""

    type: Literal["yolov4_tiny"] = "yolov4_tiny"
    width: PositiveFloat = Field(1.0, description="Multiplies every number of filters (rounded to 8).")


class TinyDecoder(Config):
    """Top-down path of the tiny models: 1x1, upsample, concatenate. One level per mask of the head, coarsest first."""

    type: Literal["tiny"] = "tiny"
    lateral: Literal["half_of_skip", "half_of_incoming"] = Field(
        "half_of_skip",
        description="Filters of the 1x1 before upsampling. The same at two levels; at three, yolov4-tiny-3l.cfg has"
        " half_of_skip, yolov3-tiny_3l.cfg half_of_incoming.",
    )


Backbone = Annotated[TinyV3Backbone | TinyV4Backbone, Field(discriminator="type")]


class YoloModel(Config):
    """A network made of parts."""

    type: Literal["parts"] = "parts"
    input_size: tuple[PositiveInt, PositiveInt] = Field(description="(height, width) in pixels, multiples of 32.")
    backbone: Backbone
    decoder: TinyDecoder = TinyDecoder()
    head: YoloHead
    activation: Literal["leaky", "mish", "swish", "relu", "linear", "logistic"] = "leaky"
    norm: Literal["local", "sync"] = Field(
        "local", description="Batch-norm statistics of a replica, or of all replicas."
    )
    norm_momentum: float = Field(
        0.99, gt=0, lt=1, description="Share of the old moving statistics (cuDNN Darknet: 0.99)."
    )

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
    evaluation: Protocol = Protocol()

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
