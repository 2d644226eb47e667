"""Vocabulary of the losses of the YOLO family. Names and defaults are Darknet's (parser.c), but for `gradient`."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Discriminator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Tag

from official.core.config import Config, type_or

IouLoss = Literal["mse", "iou", "giou", "diou", "ciou"]
IouKind = Literal["iou", "giou", "diou", "ciou"]


class _AnchorLoss(Config):
    """What [yolo] and [Gaussian_yolo] have in common."""

    iou_loss: IouLoss = "mse"
    iou_normalizer: NonNegativeFloat = 0.75
    obj_normalizer: NonNegativeFloat = 1.0
    cls_normalizer: NonNegativeFloat = 1.0
    ignore_thresh: float = Field(0.5, ge=0, le=1)
    truth_thresh: float = Field(
        1.0, ge=0, le=1, description="Predictions above this IoU with a truth are asked for it too; 1: none."
    )
    iou_thresh: float = Field(
        1.0, ge=0, le=1, description="Anchors above this IoU with a truth match too; 1: the best only."
    )
    iou_thresh_kind: IouKind = "iou"
    max_delta: PositiveFloat | None = Field(None, description="Clips the gradient of a truth by each box coordinate.")
    counters_per_class: tuple[PositiveInt, ...] | None = Field(
        None, description="Objects of each class in the data: rarer classes weigh more, at most max_delta times."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Darknet's label_smooth_eps.")


class YoloLoss(_AnchorLoss):
    """The [yolo] loss."""

    type: Literal["yolo"] = "yolo"
    gradient: Literal["autodiff", "darknet"] = Field(
        "autodiff", description="autodiff: automatic differentiation of the stated loss. darknet: the original's own."
    )
    objectness_smooth: bool = Field(False, description="Predictions that would be ignored learn their IoU instead.")
    focal_loss: bool = False
    show_details: bool = Field(True, description="False: what is reported is the sum of squared gradients.")

    @pydantic.field_validator("gradient", mode="before")
    @classmethod
    def _has_its_new_name(cls, value: Any) -> Any:
        if value is True or value == "true":
            raise ValueError("'true' is called autodiff now; write gradient: autodiff")
        return value

    @pydantic.model_validator(mode="after")
    def _has_a_meaning(self) -> "YoloLoss":
        if self.gradient == "darknet":
            return self
        fields = type(self).model_fields
        without = [name for name in ONLY_DARKNET if getattr(self, name) != fields[name].default]
        if without:
            raise ValueError(f"{', '.join(without)}: no meaning with gradient: autodiff; set gradient: darknet")
        return self


ONLY_DARKNET = (
    *("truth_thresh", "max_delta", "counters_per_class"),
    *("objectness_smooth", "focal_loss", "show_details"),
)


def in_todays_words(saved: Any) -> Any:
    """Plain data that a version with schema_version 1 saved: its `gradient: 'true'` is `autodiff`, at any depth."""
    if isinstance(saved, list):
        return [in_todays_words(value) for value in saved]
    if not isinstance(saved, dict):
        return saved
    renamed = {"gradient": "autodiff"} if saved.get("gradient") == "true" else {}
    return {key: in_todays_words(value) for key, value in saved.items()} | renamed


class GaussianYoloLoss(_AnchorLoss):
    """The [Gaussian_yolo] loss, with Darknet's own gradient."""

    type: Literal["gaussian_yolo"] = "gaussian_yolo"
    uc_normalizer: NonNegativeFloat = Field(1.0, description="Weight of the uncertainties' gradient.")


class RegionLoss(Config):
    """The [region] loss (YOLOv2), with Darknet's own gradient."""

    type: Literal["region"] = "region"
    coord_scale: NonNegativeFloat = 1.0
    object_scale: NonNegativeFloat = 1.0
    noobject_scale: NonNegativeFloat = 1.0
    class_scale: NonNegativeFloat = 1.0
    thresh: float = Field(0.5, ge=0, le=1, description="Predictions above this IoU with a truth are no background.")
    rescore: bool = Field(False, description="Objectness learns the IoU of its box, not 1.")
    bias_match: bool = Field(False, description="Truths match anchors, not the predictions of their cell.")
    prior_steps: NonNegativeInt = Field(
        0, description="Steps during which all boxes are drawn to their anchors; Darknet: the first 12800 examples'."
    )


class DetectionLoss(Config):
    """The [detection] loss (YOLOv1), with Darknet's own gradient."""

    type: Literal["detection"] = "detection"
    coord_scale: NonNegativeFloat = 1.0
    object_scale: NonNegativeFloat = 1.0
    noobject_scale: NonNegativeFloat = 1.0
    class_scale: NonNegativeFloat = 1.0
    rescore: bool = Field(False, description="Objectness learns the IoU of its box, not 1.")


Loss = Annotated[
    Annotated[YoloLoss, Tag("yolo")]
    | Annotated[GaussianYoloLoss, Tag("gaussian_yolo")]
    | Annotated[RegionLoss, Tag("region")]
    | Annotated[DetectionLoss, Tag("detection")],
    Discriminator(type_or("yolo")),
]
