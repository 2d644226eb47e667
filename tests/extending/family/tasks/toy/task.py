"""The toy as a task."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from jaxtyping import Float, Float32

from configs.data import TrainSplit
from configs.toy.task import ToyTask
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import TrainBatch
from dataloaders.compose.composer import Composer
from losses.toy.loss import toy_loss
from losses.truth import Truth
from modeling.folding import fold_into
from modeling.layers.style import Style
from modeling.toy.decode import decode
from modeling.toy.network import build_toy
from modeling.weights.keras_file import load_keras_file
from official.core.task import Loaded, Moment, Scalar, Scalars
from official.vision.boxes import cxcywh_to_yxyx
from tasks.detection import DetectionTask, Shown


class Toy(DetectionTask):
    """One prediction for each cell. Boxes of batches and truths are cxcywh relative to the network's input."""

    config: ToyTask

    def build_model(self) -> keras.Model:
        return build_toy(self.config.model, self.num_classes, Style.of(self.config.model, self.seed))

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        return load_keras_file(model, path)

    def example_maker(self, split: TrainSplit, input_size: tuple[int, int]) -> Composer:
        examples, protocol = self.stream.stand_ins.examples("cxcywh"), self.config.evaluation
        return Composer(examples, split, input_size, protocol, "cxcywh", self.seed)

    def prepare(self, batch: TrainBatch) -> tuple[Float32[tf.Tensor, "batch height width 3"], Truth]:
        images, boxes = apply_colour(batch, self.config.data.train.augmentation)
        return images, Truth(boxes, batch.classes, batch.valid)

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Truth, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        return toy_loss(outputs[0], labels, self.config.loss)

    def build_inference_model(self) -> keras.Model:
        return build_toy(self.config.model, self.num_classes, Style.folded(self.config.model))

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        fold_into(inference, trained)

    def decode(
        self, outputs: Any
    ) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
        return decode(tf.nest.flatten(outputs)[0])

    def shown(self, batch: TrainBatch) -> Shown:
        images, labels = self.prepare(batch)
        return Shown(images, cxcywh_to_yxyx(labels.boxes), cxcywh_to_yxyx(batch.boxes))
