"""Vocabulary of the YOLO family's heads: what the network's outputs mean. Names are Darknet's sections and options."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from official.core.config import Config

Anchors = tuple[tuple[PositiveFloat, PositiveFloat], ...]


class _Level(Config):
    """One output of the network that predicts. Levels are listed in the order of the outputs, as in Darknet's cfg."""

    mask: tuple[int, ...] = Field(min_length=1, description="Which of the anchors this head predicts.")
    anchors: Anchors | None = Field(None, description="This level's own table, instead of the head's.")
    scale_x_y: PositiveFloat = 1.0


class YoloLevel(_Level):
    new_coords: bool = Field(
        False, description="The outputs are sigmoids already; a side is 4 * output^2 times its anchor's (YOLOv4-csp)."
    )
    loss: YoloLoss | None = Field(None, description="This level's own, instead of the task's.")


class GaussianYoloLevel(_Level):
    loss: GaussianYoloLoss | None = Field(None, description="This level's own, instead of the task's.")


class _AnchorHead(Config):
    """What [yolo] and [Gaussian_yolo] have in common."""

    anchors: Anchors = Field(description="(width, height) in pixels of the network's input.")
    levels: tuple[_Level, ...]

    def table(self, level: _Level) -> Anchors:
        """All anchors among which a truth of this level finds its best, (width, height) in pixels."""
        return self.anchors if level.anchors is None else level.anchors

    def anchors_of(self, level: _Level) -> Anchors:
        """The anchors this level predicts, in the order of its mask."""
        return tuple(self.table(level)[index] for index in level.mask)

    @pydantic.model_validator(mode="after")
    def _masks_name_anchors(self) -> "_AnchorHead":
        for number, level in enumerate(self.levels):
            count = len(self.table(level))
            wrong = [index for index in level.mask if not 0 <= index < count]
            if wrong:
                raise ValueError(
                    f"levels[{number}].mask names anchors {wrong}, but there are {count} anchors (0-based)"
                )
            if len(set(level.mask)) < len(level.mask):
                raise ValueError(f"levels[{number}].mask {list(level.mask)} names an anchor twice")
        return self


class YoloHead(_AnchorHead):
    type: Literal["yolo"] = "yolo"
    levels: tuple[YoloLevel, ...] = Field(min_length=1)
    objectness_prior: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Objectness of an untrained network; Darknet 0.5, RetinaNet 0.01: fewer steps lost.",
    )


class GaussianYoloHead(_AnchorHead):
    """YOLOv3 whose boxes say how sure they are of each coordinate."""

    type: Literal["gaussian_yolo"] = "gaussian_yolo"
    levels: tuple[GaussianYoloLevel, ...] = Field(min_length=1)


class RegionHead(Config):
    """YOLOv2: one level."""

    type: Literal["region"] = "region"
    anchors: Anchors = Field(min_length=1, description="(width, height) in cells of the grid.")
    softmax: bool = Field(False, description="Over the classes; without, their numbers are taken as they are.")


class DetectionHead(Config):
    """YOLOv1: one row of numbers for a grid of side x side cells; classes, then objectness, then boxes."""

    type: Literal["detection"] = "detection"
    side: PositiveInt = 7
    num: PositiveInt = Field(1, description="Boxes of a cell.")
    sqrt: bool = Field(False, description="Width and height are predicted as their square roots.")
    softmax: bool = Field(False, description="Over the classes; without, their numbers are taken as they are.")


Head = Annotated[YoloHead | GaussianYoloHead | RegionHead | DetectionHead, Field(discriminator="type")]
