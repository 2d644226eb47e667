"""One YAML file is one experiment: runtime, task, trainer, and what it reproduces."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from configs.centernet.task import CenterNetTask
from configs.yolo.losses import in_todays_words
from configs.yolo.task import YoloTask
from official.core.claims import Reproduces
from official.core.config import Config, Runtime, Trainer, type_or

Task = Annotated[
    Annotated[YoloTask, Tag("yolo")] | Annotated[CenterNetTask, Tag("centernet")], Discriminator(type_or("yolo"))
]


class Experiment(Config):
    runtime: Runtime = Runtime()
    task: Task
    trainer: Trainer
    reproduces: Reproduces | None = Field(None, description="Paper, code, expected metrics with tolerance.")
    schema_version: Literal[2] = Field(2, description="In every run's config.yaml; leave it out of your own files.")

    @classmethod
    def from_saved(cls, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
        # Every run saves its configuration with all defaults written out, so the version that wrote a file is told by
        # the schema_version in it. A file that someone types has none, and its words are today's.
        if data.get("schema_version") != 1:
            return data, ""
        renamed = in_todays_words(data)
        return renamed | {"schema_version": 2}, "" if renamed == data else "gradient: 'true' is read as autodiff"
