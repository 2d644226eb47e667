"""One YAML file is one experiment: runtime, task, trainer, and what it reproduces."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from configs.centernet import CenterNetTask
from configs.yolo import YoloTask
from official.core.config import Config, Reproduces, Runtime, Trainer, type_or

Task = Annotated[
    Annotated[YoloTask, Tag("yolo")] | Annotated[CenterNetTask, Tag("centernet")], Discriminator(type_or("yolo"))
]


class Experiment(Config):
    runtime: Runtime = Runtime()
    task: Task
    trainer: Trainer
    reproduces: Reproduces | None = Field(None, description="Paper, code, expected metrics with tolerance.")
    schema_version: Literal[1] = 1
