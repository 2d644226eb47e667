"""One YAML file is one experiment: runtime, task, trainer, and what it reproduces."""

from typing import Literal

from pydantic import Field

from configs.yolo import YoloTask
from official.core.config import Config, Reproduces, Runtime, Trainer

Task = YoloTask  # becomes a union discriminated by `type` with the second family


class Experiment(Config):
    runtime: Runtime = Runtime()
    task: Task
    trainer: Trainer
    reproduces: Reproduces | None = Field(None, description="Paper, code, expected metrics with tolerance.")
    schema_version: Literal[1] = 1
