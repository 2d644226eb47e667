"""CenterNet as a task: wires model, loss, data and evaluation for the trainer.

Heatmaps are drawn in `loss`, on the accelerator: the host sends bytes of pixels and padded boxes only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from jaxtyping import Float, Float32

from configs.centernet.task import CenterNetTask
from configs.data import TrainSplit
from dataloaders.batch import EvalBatch, TrainBatch
from dataloaders.centernet.augment import STRIDE, coloured
from dataloaders.centernet.input import Centred
from losses.centernet.loss import centernet_loss
from losses.truth import Truth
from modeling.centernet.decode import decode
from modeling.centernet.inference import CenterNetInference, build_inference, standardise
from modeling.centernet.network import build_centernet
from modeling.centernet.weights import load_centernet_weights, save_centernet_weights
from modeling.folding import fold_into
from official.core.task import Loaded, Moment, Scalar, Scalars
from official.vision.boxes import swap_xy
from official.vision.nms import Detections
from official.vision.resize import static_size
from tasks.centernet.scales import detect_at_scales
from tasks.detection import DetectionTask, Shown


class CenterNet(DetectionTask):
    """Objects as points (Zhou et al. 2019)."""

    config: CenterNetTask
    weights_suffixes = (".pth", ".pt", ".pth.tar")

    def build_model(self) -> keras.Model:
        return build_centernet(self.config.model, self.num_classes, self.seed)

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        return load_centernet_weights(model, path)

    def save_weights(self, model: keras.Model, path: str, seen: int) -> None:
        save_centernet_weights(model, path)

    def example_maker(self, split: TrainSplit, input_size: tuple[int, int]) -> Centred:
        """Boxes are xyxy in pixels of the output maps, as after the flip."""
        examples = self.stream.stand_ins.examples("xyxy_pixels")
        return Centred(examples, split, input_size, self.config.evaluation, self.seed)

    def prepare(self, batch: TrainBatch) -> tuple[Float32[tf.Tensor, "batch height width 3"], Truth]:
        return standardise(coloured(batch, self.config.data.train.augmentation), self.config.model), Truth(
            batch.boxes, batch.classes, batch.valid
        )

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Truth, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        return centernet_loss(outputs, labels, self.config.model.head, self.config.loss, moment)

    def decode(
        self, outputs: Sequence[Float[tf.Tensor, "_ ..."]]
    ) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
        """Maps of an inference model to (boxes yxyx relative to its input, scores)."""
        return decode(tf.nest.flatten(outputs), self.config.model.head)

    def build_inference_model(self) -> CenterNetInference:
        model, protocol = self.config.model, self.config.evaluation
        size = (None, None) if protocol.sees_whole_images else static_size(model.input_size, protocol)
        return build_inference(model, self.num_classes, protocol.flip_test, size)

    def fold(self, trained: keras.Model, inference: CenterNetInference) -> None:
        fold_into(inference.network, trained)

    def detect(self, model: Callable[..., Any], batch: EvalBatch) -> Detections:
        protocol = self.config.evaluation
        if protocol.sees_whole_images:
            return detect_at_scales(model, self.decode, batch.image, protocol, self.config.model.input_size)
        return super().detect(model, batch)

    def shown(self, batch: TrainBatch) -> Shown:
        images = tf.clip_by_value(coloured(batch, self.config.data.train.augmentation)[..., ::-1], 0.0, 1.0)
        rows, columns = (side // STRIDE for side in batch.image.shape[1:3])
        boxes = swap_xy(batch.boxes) / [rows, columns, rows, columns]
        top, left, bottom, right = tf.unstack(boxes, axis=-1)
        mirrored = tf.stack([top, 1 - right, bottom, 1 - left], axis=-1)
        return Shown(images, boxes, tf.where(batch.draws.flip[:, tf.newaxis, tf.newaxis], mirrored, boxes))
