"""One YAML file is one experiment: runtime, task, trainer, and what it reproduces."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from configs.centernet.task import CenterNetTask
from configs.yolo.losses import in_todays_words
from configs.yolo.task import YoloTask, without_former_words
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
    schema_version: Literal[3] = Field(3, description="In every run's config.yaml; leave it out of your own files.")

    @classmethod
    def from_saved(cls, data: dict[str, Any]) -> tuple[dict[str, Any], str]:
        # Every run saves its configuration with all defaults written out, so the version that wrote a file is told by
        # the schema_version in it. A file that someone types has none, and its words are today's.
        version = data.get("schema_version")
        if version not in (1, 2):
            return data, ""
        renamed = in_todays_words(data) if version == 1 else data
        said = "" if renamed == data else "gradient: 'true' is read as autodiff"
        return without_former_words(renamed) | {"schema_version": 3}, said
