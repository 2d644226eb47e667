"""The YOLO family as a task: wires model, loss, data and evaluation for the trainer."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.yolo import YoloTask
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import EvalBatch, TrainBatch
from dataloaders.examples import in_parallel, rows_of_steps
from dataloaders.jitter import jittered
from dataloaders.multi_scale import SizePlan, plan_sizes
from dataloaders.pictures import picture_of, picture_of_detections
from dataloaders.pipeline import eval_dataset, train_dataset
from dataloaders.sources import DetectionDataset, open_source
from losses import LOSSES
from losses.truth import Truth
from modeling.detector import fold_into
from modeling.heads import DECODERS
from official.core.task import Loaded, Moment, Scalars, Shard
from official.vision.detect import detect
from official.vision.evaluator import CocoEvaluator
from official.vision.nms import Detections
from tasks import networks


class Yolo:
    """YOLOv1 to v4 and their kin. `config` is the experiment's `task`, `seed` its `runtime.seed`."""

    def __init__(self, config: YoloTask, seed: int) -> None:
        self.config, self.seed = config, seed
        self.batch_size = config.data.train.batch_size

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
            **networks.facts(self.config.model),
        }

    def build_model(self) -> keras.Model:
        size = (None, None) if self.config.data.train.multi_scale else self.config.model.input_size
        return networks.build(self.config.model, len(self.config.data.classes), self.seed, size)

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        return networks.load(self.config.model, len(self.config.data.classes), model, path)

    @cached_property
    def size_plan(self) -> SizePlan:
        """Which input size each training step uses."""
        split, size = self.config.data.train, self.config.model.input_size
        return plan_sizes(
            size, split.multi_scale, self.seed, lambda d: d.in_steps(self.batch_size, self.examples_per_epoch)
        )

    @property
    def input_sizes(self) -> tuple[tuple[int, int], ...]:
        return self.size_plan.sizes

    def input_size_at(self, step: int) -> tuple[int, int]:
        return self.size_plan.at(step)

    def train_inputs(self, start_step: int, shard: Shard, input_size: tuple[int, int]) -> tf.data.Dataset:
        split, steps = self.config.data.train, self.size_plan.steps(start_step, input_size)
        examples = self.train_data.examples("cxcywh")
        make = jittered(examples, split, input_size, self.config.evaluation, "cxcywh", self.seed)
        return in_parallel(tf.data.INFINITE_CARDINALITY, lambda: train_dataset(make, split, steps, shard))

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

    def prepare(self, batch: TrainBatch) -> tuple[tf.Tensor, Truth]:
        images, boxes = apply_colour(batch)
        return images, Truth(boxes, tf.cast(batch.classes, tf.int32), batch.valid)

    def loss(self, outputs: Sequence[tf.Tensor], labels: Truth, moment: Moment) -> tuple[tf.Tensor, Scalars]:
        return LOSSES[self.config.loss.type](outputs, labels, self.config.model.head, self.config.loss, moment)

    def decode(self, outputs: tf.Tensor | Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Network outputs to (boxes yxyx relative to the network input [b, n, 4], scores [b, n, classes])."""
        outputs = tf.nest.flatten(outputs)  # Keras hands out a lone output without its list
        model = self.config.model
        return DECODERS[model.head.type](outputs, model.head, model.input_size)

    def build_inference_model(self) -> keras.Model:
        return networks.build_for_inference(self.config.model, len(self.config.data.classes))

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        fold_into(inference, trained)

    def detect(self, model: keras.Model, batch: EvalBatch) -> Detections:
        size, protocol = self.config.model.input_size, self.config.evaluation
        return detect(model, self.decode, batch.image, batch.image_size, protocol, size)

    def draw(self, batch: EvalBatch, detections: Detections) -> np.ndarray:
        return picture_of_detections(batch, detections, self.config.data.classes, self.config.evaluation)

    def evaluator(self) -> CocoEvaluator:
        data, split = self.validation_data, self.config.data.validation.source.model_dump(mode="json")
        return CocoEvaluator(data.ground_truth(), data.category_ids, self.config.evaluation, split)

    def pictures(self, batch: TrainBatch) -> np.ndarray:
        images, labels = self.prepare(batch)
        return picture_of(images, labels.boxes, labels.classes, labels.valid, self.config.data.classes)
