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
from dataloaders.pictures import picture_of_detections
from dataloaders.pipeline import eval_dataset
from dataloaders.sources import DetectionDataset, open_source
from official.vision.evaluator import CocoEvaluator
from official.vision.nms import Detections


class DetectionTask:
    """`config` is the experiment's `task`, `seed` its `runtime.seed`."""

    def __init__(self, config: TaskConfig, seed: int) -> None:
        self.config, self.seed = config, seed
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
    def validation_data(self) -> DetectionDataset:
        split = self.config.data.validation
        return open_source(split.source, self.config.data.classes, split.on_bad, max_boxes=None)

    def data_reports(self) -> dict[str, dict[str, Any]]:
        opened = {"train": "train_data", "validation": "validation_data"}
        return {split: self.__dict__[name].report.as_dict() for split, name in opened.items() if name in self.__dict__}

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

    def check_train_inputs(self, first_step: int, last_step: int) -> None:
        data = self.train_data
        for row in rows_of_steps(len(data), self.batch_size, self.seed, first_step, last_step):
            data.check(row)

    def check_eval_inputs(self) -> None:
        for row in range(len(self.validation_data)):
            self.validation_data.check(row)

    def draw(self, batch: EvalBatch, detections: Detections) -> UInt8[np.ndarray, "height width 3"]:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)
