"""The toy: seeded inputs of an experiment, and what the stated formulas make of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from dataloaders.batch import ColourDraws, TrainBatch
from losses.truth import Truth
from reproduction.experiment.own import Own
from reproduction.seeded.family import Group, Mistakes, Outputs, Size, Stated
from reproduction.toy import restated
from reproduction.traces.compare import Numbers

IMAGES = 4
NOTHING = -20.0  # logit of what is not there


@dataclasses.dataclass(frozen=True)
class Toy:
    """See `Family`."""

    own: Own

    def labels(self, rng: np.random.Generator) -> Truth:
        data = self.own.experiment.task.data
        room, classes = data.train.max_boxes, len(data.classes)
        boxes = rng.uniform(0.02, 0.98, (IMAGES, room, 4)).astype(np.float32)
        boxes[2, 0] = 1.0  # its centre is on the far corner
        boxes[2, 2, :2] = boxes[2, 1, :2]  # in the same cell
        labels = rng.integers(0, classes, (IMAGES, room)).astype(np.int32)
        valid = np.arange(room) < np.array([[0], [1], [min(room, 6)], [room]])
        return Truth(tf.constant(boxes), tf.constant(labels), tf.constant(valid))

    def outputs(self, labels: Truth, size: Size, rng: np.random.Generator) -> Outputs:
        return [rng.normal(0, 1, (IMAGES, *shape)).astype(np.float32) for shape in self.own.output_shapes(size)]

    def maps(self, outputs: Outputs) -> Outputs:
        return outputs

    def few(self, outputs: Outputs) -> Outputs:
        """Objects in four cells."""
        found = outputs[0].copy()
        rows, columns = (slice(side // 2 - 1, side // 2 + 1) for side in found.shape[1:3])
        found[..., 4:] = NOTHING
        found[:, rows, columns] = outputs[0][:, rows, columns]
        return [found]

    def groups(self, outputs: Outputs) -> Iterator[Group]:
        yield Group("boxes", 0, slice(0, 4))
        yield Group("scores", 0, slice(4, None))

    def loss(self, outputs: Outputs, labels: Truth, size: Size, step: int) -> Stated:
        return self._stated(outputs, labels, self.own.experiment.task.loss.box_weight)

    def _stated(self, outputs: Outputs, labels: Truth, box_weight: float) -> Stated:
        return restated.loss(outputs[0], *(np.asarray(part) for part in labels), box_weight)

    def mistakes(self) -> Mistakes:
        weight, classes = self.own.experiment.task.loss.box_weight, len(self.own.experiment.task.data.classes)

        def labelled(change: Callable[[Truth], Truth]) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self._stated(outputs, change(labels), weight)

        return {
            "height_width_swapped": labelled(lambda t: t._replace(boxes=tf.gather(t.boxes, [1, 0, 3, 2], axis=-1))),
            "class_ids_shifted": labelled(lambda t: t._replace(classes=(t.classes + 1) % classes)),
            "padded_rows_scatter": labelled(lambda t: t._replace(valid=tf.ones_like(t.valid))),
            "normaliser box_weight 1": lambda outputs, labels, size: self._stated(outputs, labels, 1.0),
        }

    def decode(self, maps: Outputs, size: Size) -> tuple[Numbers, Numbers]:
        return restated.decode(maps[0])

    def decoding_mistakes(self) -> Mapping[str, Callable[[Outputs, Size], tuple[Numbers, Numbers]]]:
        return {
            "height_width_swapped": lambda maps, size: restated.decode(
                maps[0][..., [1, 0, 3, 2, *range(4, maps[0].shape[-1])]]
            )
        }

    def evaluated(
        self, model: keras.Model, images: Float32[np.ndarray, "batch height width 3"]
    ) -> list[Float[tf.Tensor, "batch ..."]]:
        return tf.nest.flatten(model(tf.constant(images), training=False))

    def undecided(self, outputs: Outputs, labels: Truth, size: Size) -> list[Bool[np.ndarray, "batch ..."]]:
        return [np.zeros(output.shape[:-1], bool) for output in outputs]

    def nudged(self, labels: Truth, share: float, rng: np.random.Generator) -> Truth:
        return labels

    def hidden(self) -> str:
        return ""

    def assigned(
        self, gradient: Float[np.ndarray, "batch ..."], output: Float32[np.ndarray, "batch ..."], number: int
    ) -> Mapping[str, Bool[np.ndarray, "batch ..."]]:
        return {"cells": np.any(gradient[..., :4] != 0, axis=-1), "classes": gradient[..., 4:] < 0}

    @property
    def in_levels(self) -> bool:
        return False

    def batch(self, labels: Truth, size: Size, rng: np.random.Generator) -> TrainBatch:
        image = rng.integers(0, 256, (IMAGES, *size, 3)).astype(np.uint8)
        flip, nothing = tf.constant(np.arange(IMAGES) % 2 == 1), tf.zeros([IMAGES])
        draws = ColourDraws(flip, nothing, nothing + 1, nothing + 1)
        return TrainBatch(tf.constant(image), *labels, tf.range(IMAGES, dtype=tf.int64), draws)

    def plain(self, batch: TrainBatch) -> TrainBatch:
        return batch

    def pixel_mistakes(self) -> Mapping[str, Callable[[Numbers], Numbers]]:
        return {"image_range": lambda images: 255 * images, "channels_reversed": lambda images: images[..., ::-1]}

    def prepare(self, batch: TrainBatch) -> tuple[Float[np.ndarray, "batch height width 3"], Truth]:
        image, boxes, classes, valid = (part.numpy() for part in batch[:4])
        recipe = self.own.experiment.task.data.train.augmentation
        pixels, moved = restated.inputs(image, boxes, valid, batch.draws.flip.numpy() & (recipe is not None))
        return pixels, Truth(moved, classes, valid)
