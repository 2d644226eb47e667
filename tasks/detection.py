"""What all detector families share as tasks: their data, its reports, evaluation by COCO's metrics, pictures."""

import json
import math
from functools import cached_property, partial
from typing import Any

import numpy as np
import pydantic
import tensorflow as tf
from jaxtyping import UInt8

from configs.experiment import Task as TaskConfig
from dataloaders.batch import EvalBatch
from dataloaders.pictures import picture_of_detections
from dataloaders.pipeline import eval_dataset
from dataloaders.reading.dataset import in_parallel
from dataloaders.reading.sources import DetectionDataset, open_source
from dataloaders.stream import TrainStream, stream_of
from official.core.config import Duration
from official.core.task import HostShare
from official.vision.evaluator import CocoEvaluator
from official.vision.nms import Detections


class DetectionTask:
    """`config` is the experiment's `task`, `seed` its `runtime.seed`, `duration` its `trainer.duration`."""

    def __init__(self, config: TaskConfig, seed: int, duration: Duration) -> None:
        self.config, self.seed, self._duration = config, seed, duration
        self.batch_size = config.data.train.batch_size

    @property
    def num_classes(self) -> int:
        return len(self.config.data.classes)

    def examples_per_epoch(self) -> int:
        return len(self.train_data)

    @cached_property
    def train_data(self) -> DetectionDataset:
        split = self.config.data.train
        return open_source(split.source, self.config.data.classes, split.on_bad, split.max_boxes)

    @cached_property
    def stream(self) -> TrainStream:
        """Of training batches."""
        return stream_of(self.config, self.seed, self._duration, self.train_data)

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

    def draw(self, batch: EvalBatch, detections: Detections) -> UInt8[np.ndarray, "height width 3"]:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)
