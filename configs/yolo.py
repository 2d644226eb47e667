"""Vocabulary of the YOLO family: model parts, loss, task."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from configs.data import Data
from official.core.config import Config, Protocol


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


class YoloLevel(Config):
    """One detection head. Levels are listed coarsest first, as in Darknet's cfg files."""

    mask: tuple[int, ...] = Field(min_length=1, description="Which of the anchors this head predicts.")
    scale_x_y: PositiveFloat = 1.0


class YoloHead(Config):
    type: Literal["yolo"] = "yolo"
    anchors: tuple[tuple[PositiveFloat, PositiveFloat], ...] = Field(
        description="(width, height) in pixels of input_size."
    )
    levels: tuple[YoloLevel, ...] = Field(min_length=1)
    objectness_prior: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Objectness of an untrained network; Darknet 0.5, RetinaNet 0.01: fewer steps lost.",
    )

    @pydantic.model_validator(mode="after")
    def _masks_name_anchors(self) -> "YoloHead":
        for number, level in enumerate(self.levels):
            wrong = [index for index in level.mask if not 0 <= index < len(self.anchors)]
            if wrong:
                raise ValueError(
                    f"levels[{number}].mask names anchors {wrong}, but there are {len(self.anchors)} anchors (0-based)"
                )
        return self


class YoloModel(Config):
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


class YoloLoss(Config):
    """The [yolo] loss. Names and defaults are Darknet's (parser.c parse_yolo), but for `gradient`."""

    type: Literal["yolo"] = "yolo"
    gradient: Literal["true"] = Field("true", description="true: automatic differentiation of the stated loss.")
    iou_loss: Literal["mse", "iou", "giou", "diou", "ciou"] = "mse"
    iou_normalizer: NonNegativeFloat = 0.75
    obj_normalizer: NonNegativeFloat = 1.0
    cls_normalizer: NonNegativeFloat = 1.0
    ignore_thresh: float = Field(0.5, ge=0, le=1)
    iou_thresh: float = Field(
        1.0, ge=0, le=1, description="Anchors above this IoU with a truth match too; 1: the best only."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class YoloTask(Config):
    type: Literal["yolo"] = "yolo"
    model: YoloModel
    loss: YoloLoss = YoloLoss()
    data: Data
    evaluation: Protocol = Protocol()
