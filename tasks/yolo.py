"""The YOLO family as a task: wires model, loss, data and evaluation for the trainer."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.yolo import YoloTask
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import EvalBatch, TrainBatch
from dataloaders.composed import rows_of_steps
from dataloaders.examples import in_parallel
from dataloaders.multi_scale import SizePlan, plan_sizes
from dataloaders.pictures import picture_of
from dataloaders.train import train_batches
from losses import LOSSES
from losses.truth import Truth
from modeling.detector import fold_into
from modeling.heads import DECODERS
from official.core.task import Loaded, Moment, Scalars, Shard
from official.vision.detect import detect
from official.vision.nms import Detections
from tasks import networks
from tasks.detection import DetectionTask


class Yolo(DetectionTask):
    """YOLOv1 to v4 and their kin."""

    config: YoloTask

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **networks.facts(self.config.model)}

    def build_model(self) -> keras.Model:
        size = (None, None) if self.config.data.train.multi_scale else self.config.model.input_size
        return networks.build(self.config.model, self.num_classes, self.seed, size)

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        return networks.load(self.config.model, self.num_classes, model, path)

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
        data, protocol = self.train_data.examples("cxcywh"), self.config.evaluation

        def batches() -> tf.data.Dataset:
            return train_batches(data, split, input_size, protocol, "cxcywh", self.seed, steps, shard)

        return in_parallel(tf.data.INFINITE_CARDINALITY, batches)

    def check_train_inputs(self, first_step: int, last_step: int) -> None:
        data = self.train_data
        for row in rows_of_steps(self.config.data.train, len(data), self.seed, first_step, last_step):
            data.check(row)

    def prepare(self, batch: TrainBatch) -> tuple[tf.Tensor, Truth]:
        images, boxes = apply_colour(batch, self.config.data.train.augmentation)
        return images, Truth(boxes, tf.cast(batch.classes, tf.int32), batch.valid)

    def loss(self, outputs: Sequence[tf.Tensor], labels: Truth, moment: Moment) -> tuple[tf.Tensor, Scalars]:
        return LOSSES[self.config.loss.type](outputs, labels, self.config.model.head, self.config.loss, moment)

    def decode(self, outputs: tf.Tensor | Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Network outputs to (boxes yxyx relative to the network input [b, n, 4], scores [b, n, classes])."""
        outputs = tf.nest.flatten(outputs)  # Keras hands out a lone output without its list
        model = self.config.model
        return DECODERS[model.head.type](outputs, model.head, model.input_size)

    def build_inference_model(self) -> keras.Model:
        return networks.build_for_inference(self.config.model, self.num_classes)

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        fold_into(inference, trained)

    def detect(self, model: keras.Model, batch: EvalBatch) -> Detections:
        size, protocol = self.config.model.input_size, self.config.evaluation
        return detect(model, self.decode, batch.image, batch.image_size, protocol, size)

    def pictures(self, batch: TrainBatch) -> np.ndarray:
        images, labels = self.prepare(batch)
        return picture_of(images, labels.boxes, labels.classes, labels.valid, self.config.data.classes)
