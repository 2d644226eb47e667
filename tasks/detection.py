"""The contract of a detector family, and what is built on it once: data, its reports, evaluation, pictures.

A family fills in the abstract members of `DetectionTask`, and nothing else is asked of it. Where its original has a
file of weights, `weights_suffixes` and `save_weights` say how it is written.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import pydantic
import tensorflow as tf
from jaxtyping import Float, Float32, UInt8

from configs.data import TrainSplit
from configs.experiment import Task as TaskConfig
from dataloaders.batch import EvalBatch, TrainBatch
from dataloaders.compose.example_maker import ExampleMaker
from dataloaders.pictures import picture_of, picture_of_detections
from dataloaders.pipeline import eval_dataset
from dataloaders.reading.dataset import in_parallel
from dataloaders.reading.sources import DetectionDataset, open_source
from dataloaders.stream import TrainStream
from losses.truth import Truth
from official.core.config import Duration
from official.core.errors import UserError
from official.core.task import HostShare, Loaded, Moment, Scalar, Scalars
from official.vision.detect import detect
from official.vision.evaluator import CocoEvaluator
from official.vision.nms import Detections


class Shown(NamedTuple):
    """A training batch for people."""

    images: Float32[tf.Tensor, "batch height width 3"]  # as the network sees them, but RGB 0..1
    boxes: Float32[tf.Tensor, "batch truths yxyx=4"]  # yxyx relative to the input, as these images show the objects
    sent: Float32[tf.Tensor, "batch truths yxyx=4"]  # the same before the flip, as the host's images show them


class DetectionTask(ABC):
    """`config` is the experiment's `task`, `seed` its `runtime.seed`, `duration` its `trainer.duration`."""

    weights_suffixes: ClassVar[tuple[str, ...]] = ()  # of the files that `save_weights` writes; the usual one first

    def __init__(self, config: TaskConfig, seed: int, duration: Duration) -> None:
        self.config, self.seed, self._duration = config, seed, duration
        self.batch_size = config.data.train.batch_size

    @abstractmethod
    def build_model(self) -> keras.Model:
        """The network to be trained, with fresh weights from the run's seed."""

    @abstractmethod
    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        """Fills a network of `build_model` from an original's file of weights.

        Raises:
            UserError: the file cannot be read, or is another network's; the message names it.
        """

    @abstractmethod
    def example_maker(self, split: TrainSplit, input_size: tuple[int, int]) -> ExampleMaker:
        """What makes the examples of a split at (height, width); images come from `self.stream.stand_ins`.

        split: the run's own, or that without its augmentation.
        """

    @abstractmethod
    def prepare(self, batch: TrainBatch) -> tuple[Float32[tf.Tensor, "batch height width 3"], Truth]:
        """On the accelerator: a batch as the host sends it -> the network's input, and the truth as `loss` takes it."""

    @abstractmethod
    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Truth, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        """The mean over the examples of a loss of the network's raw outputs, in float32, and its named parts."""

    @abstractmethod
    def build_inference_model(self) -> keras.Model:
        """The network for evaluation and export, without batch-norm; its weights come by `fold`.

        It takes float32 images, RGB 0..1, whatever `prepare` makes for training: what else it needs is inside.
        """

    @abstractmethod
    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        """Gives one of `build_inference_model` the weights that make it equal a trained network."""

    @abstractmethod
    def decode(
        self, outputs: Any
    ) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
        """Outputs of an inference model -> boxes yxyx relative to its input, and scores 0..1; nothing suppressed."""

    @abstractmethod
    def shown(self, batch: TrainBatch) -> Shown:
        """A training batch as the network sees it, in the colours and the boxes that people know."""

    @property
    def num_classes(self) -> int:
        return len(self.config.data.classes)

    def save_weights(self, model: keras.Model, path: str, seen: int) -> None:
        """Writes a network of `build_model` as the original's file of weights, which `load_weights` reads.

        seen: images it was trained with, for formats that say so.

        Raises:
            UserError: the network cannot be written so, or the family's original has no such file.
        """
        raise UserError(f"{path}: {type(self).__name__} has no file of its own; expected *.keras or *.weights.h5")

    def examples_per_epoch(self) -> int:
        return len(self.train_data)

    @cached_property
    def train_data(self) -> DetectionDataset:
        split = self.config.data.train
        return open_source(split.source, self.config.data.classes, split.on_bad, split.max_boxes)

    @cached_property
    def stream(self) -> TrainStream:
        """Of training batches."""
        split, size = self.config.data.train, tuple(self.config.model.input_size)
        return TrainStream(split, size, self.seed, self._duration, self.train_data, self.example_maker)

    def input_size_at(self, step: int) -> tuple[int, int]:
        return self.stream.sizes.at(step)

    def train_inputs(self, start_step: int, shard: HostShare, input_size: tuple[int, int]) -> tf.data.Dataset:
        batches = partial(self.stream.batches, start_step, input_size, shard)
        return in_parallel(tf.data.INFINITE_CARDINALITY, batches)

    @cached_property
    def validation_data(self) -> DetectionDataset:
        split = self.config.data.validation
        return open_source(split.source, self.config.data.classes, split.on_bad, max_boxes=None)

    def data_reports(self) -> dict[str, dict[str, Any]]:
        opened = {"train": "train_data", "validation": "validation_data"}
        reports = {
            split: self.__dict__[name].report.as_dict() for split, name in opened.items() if name in self.__dict__
        }
        if "stream" in self.__dict__ and (unreadable := self.stream.stand_ins.found):
            reports["train"]["unreadable"] = list(unreadable.values())
        return reports

    def facts(self) -> dict[str, Any]:
        data = self.train_data
        return {
            "examples_per_epoch": len(data),
            "category_ids": list(data.category_ids),
            "classes": list(data.class_names),
            "model": self.config.model.model_dump(mode="json"),
        }

    def facts_of(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Options that its version did not know are at their defaults, which are what it did."""
        try:
            saved = type(self.config.model).model_validate_json(json.dumps(manifest.get("model")))
        except pydantic.ValidationError:  # another kind of network
            return manifest
        return {**manifest, "model": saved.model_dump(mode="json")}

    def example_name(self, example_id: int) -> str:
        return self.train_data.example_name(example_id)

    def eval_inputs(self) -> tf.data.Dataset:
        data, split, size = self.validation_data, self.config.data.validation, self.config.model.input_size
        batches = math.ceil(len(data) / split.batch_size)
        return in_parallel(batches, lambda: eval_dataset(data, split, size, self.config.evaluation))

    def replace_unreadable(self, first_step: int, last_step: int) -> list[str]:
        return self.stream.stand_ins.find(self.stream.rows(first_step, last_step))

    def unreadable(self) -> dict[str, str]:
        return {str(row): message for row, message in self.stream.stand_ins.found.items()}

    def leave_out(self, unreadable: dict[str, str]) -> None:
        self.stream.stand_ins.found.update({int(row): message for row, message in unreadable.items()})

    def check_eval_inputs(self) -> None:
        for row in range(len(self.validation_data)):
            self.validation_data.check(row)

    def detect(self, model: Callable[..., Any], batch: EvalBatch) -> Detections:
        """Detections of an evaluation batch by a network for inference, which is called as a model is."""
        size, protocol = self.config.model.input_size, self.config.evaluation
        return detect(model, self.decode, batch.image, batch.image_size, protocol, size)

    def pictures(self, batch: TrainBatch) -> UInt8[np.ndarray, "height width 3"]:
        shown = self.shown(batch)
        return picture_of(shown.images, shown.boxes, batch.classes, batch.valid, self.config.data.classes)

    def draw(self, batch: EvalBatch, detections: Detections) -> UInt8[np.ndarray, "height width 3"]:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)
