"""What all detector families share as tasks: their data, its reports, evaluation by COCO's metrics, pictures."""

from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from configs.experiment import Task as TaskConfig
from dataloaders.batch import EvalBatch
from dataloaders.pictures import picture_of_detections
from dataloaders.pipeline import check_eval_files, check_train_files, eval_dataset
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
        return eval_dataset(
            self.validation_data, self.config.data.validation, self.config.model.input_size, self.config.evaluation
        )

    def check_train_inputs(self, first_step: int, last_step: int) -> None:
        check_train_files(self.train_data, self.config.data.train, self.seed, first_step, last_step)

    def check_eval_inputs(self) -> None:
        check_eval_files(self.validation_data)

    def draw(self, batch: EvalBatch, detections: Detections) -> np.ndarray:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)
