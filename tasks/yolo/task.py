"""The YOLO family as a task: wires model, loss, data and evaluation for the trainer."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from jaxtyping import Float, Float32

from configs.data import TrainSplit
from configs.yolo.losses import in_todays_words
from configs.yolo.task import YoloTask
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import TrainBatch
from dataloaders.compose.composer import Composer
from losses.truth import Truth
from losses.yolo import LOSSES
from modeling.darknet.weights import SUFFIX
from modeling.folding import fold_into
from modeling.yolo.heads import BOX_DECODERS
from official.core.task import Loaded, Moment, Scalar, Scalars
from official.vision.boxes import cxcywh_to_yxyx
from tasks.detection import DetectionTask, Shown
from tasks.yolo import network


class Yolo(DetectionTask):
    """YOLOv1 to v4 and their kin."""

    config: YoloTask
    weights_suffixes = (SUFFIX,)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **network.facts(self.config.model)}

    def facts_of(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return super().facts_of(in_todays_words(manifest))

    def build_model(self) -> keras.Model:
        size = (None, None) if self.config.data.train.multi_scale else self.config.model.input_size
        return network.build(self.config.model, self.num_classes, self.seed, size)

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        return network.load(self.config.model, self.num_classes, model, path)

    def save_weights(self, model: keras.Model, path: str, seen: int) -> None:
        network.save(self.config.model, self.num_classes, model, path, seen)

    def example_maker(self, split: TrainSplit, input_size: tuple[int, int]) -> Composer:
        """Boxes are cxcywh relative to the network's input, not mirrored yet."""
        examples, protocol = self.stream.stand_ins.examples("cxcywh"), self.config.evaluation
        return Composer(examples, split, input_size, protocol, "cxcywh", self.seed)

    def prepare(self, batch: TrainBatch) -> tuple[Float32[tf.Tensor, "batch height width 3"], Truth]:
        images, boxes = apply_colour(batch, self.config.data.train.augmentation)
        return images, Truth(boxes, tf.cast(batch.classes, tf.int32), batch.valid)

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Truth, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        return LOSSES[self.config.loss.type](outputs, labels, self.config.model.head, self.config.loss, moment)

    def decode(
        self, outputs: Float[tf.Tensor, "batch ..."] | Sequence[Float[tf.Tensor, "batch ..."]]
    ) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
        """Network outputs to (boxes yxyx relative to the network input, scores)."""
        outputs = tf.nest.flatten(outputs)  # Keras hands out a lone output without its list
        model = self.config.model
        return BOX_DECODERS[model.head.type](outputs, model.head, model.input_size)

    def build_inference_model(self) -> keras.Model:
        return network.build_for_inference(self.config.model, self.num_classes)

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        fold_into(inference, trained)

    def shown(self, batch: TrainBatch) -> Shown:
        images, labels = self.prepare(batch)
        return Shown(images, cxcywh_to_yxyx(labels.boxes), cxcywh_to_yxyx(batch.boxes))
