"""What all detector families share as tasks: their data, its reports, evaluation by COCO's metrics, pictures."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import UInt8

from configs.experiment import Task as TaskConfig
from dataloaders.batch import EvalBatch
from dataloaders.examples import in_parallel, rows_of_steps
from dataloaders.phases import Phases, phases_of
from dataloaders.pictures import picture_of_detections
from dataloaders.pipeline import eval_dataset
from dataloaders.sources import DetectionDataset, open_source
from dataloaders.unreadable import StandIns
from official.core.config import Duration
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

    @property
    def examples_per_epoch(self) -> int:
        return len(self.train_data)

    @cached_property
    def train_data(self) -> DetectionDataset:
        split = self.config.data.train
        return open_source(split.source, self.config.data.classes, split.on_bad, split.max_boxes)

    @cached_property
    def stand_ins(self) -> StandIns:
        """For the images of training that cannot be read."""
        return StandIns(self.train_data)

    @cached_property
    def phases(self) -> Phases:
        """Which steps are augmented."""
        return phases_of(self.config.data.train, self._duration, self.examples_per_epoch)

    @cached_property
    def validation_data(self) -> DetectionDataset:
        split = self.config.data.validation
        return open_source(split.source, self.config.data.classes, split.on_bad, max_boxes=None)

    def data_reports(self) -> dict[str, dict[str, Any]]:
        opened = {"train": "train_data", "validation": "validation_data"}
        reports = {
            split: self.__dict__[name].report.as_dict() for split, name in opened.items() if name in self.__dict__
        }
        if "stand_ins" in self.__dict__ and self.stand_ins.found:
            reports["train"]["unreadable"] = list(self.stand_ins.found.values())
        return reports

    def facts(self) -> dict[str, Any]:
        data = self.train_data
        return {
            "examples_per_epoch": len(data),
            "category_ids": list(data.category_ids),
            "classes": list(data.class_names),
            "model": self.config.model.model_dump(mode="json"),
        }

    def example_name(self, example_id: int) -> str:
        return self.train_data.example_name(example_id)

    def eval_inputs(self) -> tf.data.Dataset:
        data, split, size = self.validation_data, self.config.data.validation, self.config.model.input_size
        batches = math.ceil(len(data) / split.batch_size)
        return in_parallel(batches, lambda: eval_dataset(data, split, size, self.config.evaluation))

    def replace_unreadable(self, first_step: int, last_step: int) -> list[str]:
        return self.stand_ins.find(self.rows_of_steps(first_step, last_step))

    def rows_of_steps(self, first_step: int, last_step: int) -> list[int]:
        """The rows of `train_data` that training steps first_step to last_step - 1 read."""
        return rows_of_steps(len(self.train_data), self.batch_size, self.seed, first_step, last_step)

    def check_eval_inputs(self) -> None:
        for row in range(len(self.validation_data)):
            self.validation_data.check(row)

    def draw(self, batch: EvalBatch, detections: Detections) -> UInt8[np.ndarray, "height width 3"]:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)
