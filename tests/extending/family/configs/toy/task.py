"""Vocabulary of the toy family: each cell of 16 x 16 pixels predicts one box and a score for each class."""

from typing import Literal

import pydantic
from pydantic import Field, NonNegativeFloat, PositiveInt

from configs.backbones import Backbone
from configs.colour import DarknetFloat
from configs.data import DarknetAugmentation, Data, TrainSplit
from configs.style import Activation, Initialiser, StyleConfig
from official.core.config import Config
from official.vision.protocol import EvaluationProtocol


class ToyHead(Config):
    type: Literal["toy"] = "toy"


class ToyModel(StyleConfig):
    input_size: tuple[PositiveInt, PositiveInt] = Field(description="(height, width) in pixels, multiples of 32.")
    backbone: Backbone
    head: ToyHead = ToyHead()
    activation: Activation = "relu"
    norm_momentum: float = Field(0.9, gt=0, lt=1, description="Share of the old moving statistics.")
    initialiser: Initialiser = "pytorch"


class ToyLoss(Config):
    type: Literal["toy"] = "toy"
    box_weight: NonNegativeFloat = Field(5.0, description="Of the squared errors of the boxes.")


class ToyTrainSplit(TrainSplit):
    augmentation: DarknetAugmentation | None = None


class ToyData(Data):
    train: ToyTrainSplit


class ToyTask(Config):
    type: Literal["toy"] = "toy"
    model: ToyModel
    loss: ToyLoss = ToyLoss()
    data: ToyData
    evaluation: EvaluationProtocol = EvaluationProtocol()

    @pydantic.model_validator(mode="after")
    def _is_simple(self) -> "ToyTask":
        train = self.data.train
        if train.multi_scale is not None:
            raise ValueError("data.train.multi_scale: the toy trains at one size; leave it out")
        recipe = train.augmentation or DarknetAugmentation()
        if (recipe.hue, recipe.saturation, recipe.exposure, recipe.colour) != (0, 1, 1, DarknetFloat()):
            raise ValueError("data.train.augmentation: the toy keeps its colours; leave hue, ... and colour out")
        return self
