"""CenterNet: seeded inputs of an experiment, and what the stated formulas make of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from dataloaders.batch import TrainBatch
from dataloaders.centernet.augment import CenterNetDraws
from losses.truth import Truth
from reproduction.centernet.mistakes import RADII
from reproduction.centernet.restated import centernet, pixels
from reproduction.seeded.family import Group, Mistakes, OfExperiment, Outputs, Size, Stated
from reproduction.traces.compare import Numbers

STRIDE = 4  # input pixels of a cell
IMAGES = 4
SEVERAL = 12  # truths of the third image
NAMES = ("hm", "wh", "reg")


def _smooth(maps: Float32[np.ndarray, "batch rows columns _"]) -> Float32[np.ndarray, "batch rows columns _"]:
    """Sums over 3 x 3 cells."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = maps.shape[1:3]
    return sum(padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)) / np.float32(2)


class CenterNet(OfExperiment):
    """See `Family`."""

    @property
    def classes(self) -> int:
        return len(self.own.experiment.task.data.classes)

    def labels(self, rng: np.random.Generator) -> Truth:
        """Boxes xyxy in pixels of the output maps; some reach beyond them."""
        task = self.own.experiment.task
        rows, columns = (side // STRIDE for side in task.model.input_size)
        room = task.data.train.max_boxes
        centre = rng.uniform(-0.02, 1.02, (IMAGES, room, 2)) * [columns, rows]
        half = np.exp(rng.uniform(np.log(0.02), np.log(0.35), (IMAGES, room, 2))) * [columns, rows]
        boxes = np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)
        labels = rng.integers(0, self.classes, (IMAGES, room)).astype(np.int32)
        valid = np.arange(room) < np.array([[0], [1], [min(room, SEVERAL)], [room]])
        crowd = boxes[2]
        crowd[0] = [columns - 3, rows - 3, columns + 9, rows + 9]  # cut by the far corner
        if room > 3:
            crowd[2] = crowd[1] + [-1, -1, 1, 1]  # the same centre
            crowd[3, 2] = crowd[3, 0]  # without width
        return Truth(tf.constant(boxes), tf.constant(labels), tf.constant(valid))

    def outputs(self, labels: Truth, size: Size, rng: np.random.Generator) -> Outputs:
        found = []
        for number, shape in enumerate(self.own.output_shapes(size)):
            raw = rng.normal(0, 1, (IMAGES, *shape)).astype(np.float32)
            name = NAMES[number % self.count]
            if name == "hm":  # the neighbours of a peak are high, too
                raw = _smooth(raw)
            found.append(raw - 2 if name == "hm" else np.abs(raw) * 9 if name == "wh" else raw)
        return found

    @property
    def count(self) -> int:
        """Maps of one stack."""
        return 3 if self.head.reg_offset else 2

    def maps(self, outputs: Outputs) -> Outputs:
        """Those of the last stack, heat as probabilities."""
        heat, *rest = outputs[-self.count :]
        return [(1 / (1 + np.exp(-heat))).astype(np.float32), *rest]

    def few(self, outputs: Outputs) -> Outputs:
        """All: the decoder gives a fixed number of peaks."""
        return self.maps(outputs)

    def groups(self, outputs: Outputs) -> Iterator[Group]:
        for number in range(len(outputs)):
            yield Group(f"stack {number // self.count} {NAMES[number % self.count]}", number, slice(None))

    def loss(self, outputs: Outputs, labels: Truth, size: Size, step: int) -> Stated:
        return self._stated(outputs, labels, self.rules)

    def _stated(
        self,
        outputs: Outputs,
        labels: Truth,
        rules: Any,
        change: Callable = lambda targets: targets,
        radius: Callable[[float, float], float] = centernet.radius,
    ) -> Stated:
        grid = outputs[0].shape[1:3]
        boxes, classes, valid = (np.asarray(part) for part in (labels.boxes, labels.classes, labels.valid))
        targets = change(centernet.targets(boxes, classes, valid, grid, self.classes, radius))
        value, parts, gradients = centernet.loss(outputs, targets, self.head, rules)
        return Stated(value, parts, gradients)

    def mistakes(self) -> Mistakes:
        def with_rules(**changed: Any) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self._stated(outputs, labels, self.rules.model_copy(update=changed))

        def with_labels(change: Callable[[Truth], Truth]) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self._stated(outputs, change(labels), self.rules)

        def with_targets(change: Callable[[Any], Any]) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self._stated(outputs, labels, self.rules, change)

        def with_radius(rule: Callable[[float, float], float]) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self._stated(outputs, labels, self.rules, radius=rule)

        def moved(cells: int) -> Callable[[Truth], Truth]:
            return lambda truth: truth._replace(boxes=truth.boxes + [cells, 0.0, cells, 0.0])

        return {
            "height_width_swapped": with_labels(lambda t: t._replace(boxes=tf.gather(t.boxes, [1, 0, 3, 2], axis=-1))),
            "class_ids_shifted": with_labels(lambda t: t._replace(classes=(t.classes + 1) % self.classes)),
            "class_ids_permuted": with_labels(lambda t: t._replace(classes=self.classes - 1 - t.classes)),
            "padded_rows_scatter": with_labels(lambda t: t._replace(valid=tf.ones_like(t.valid))),
            "cell_offset 1": with_labels(moved(1)),
            "cell_offset -1": with_labels(moved(-1)),
            "normaliser hm_weight 1": with_rules(hm_weight=1.0),
            "normaliser wh_weight 1": with_rules(wh_weight=1.0),
            "normaliser off_weight 1": with_rules(off_weight=1.0),
            "loss_part_missing hm_weight": with_rules(hm_weight=0.0),
            "loss_part_missing wh_weight": with_rules(wh_weight=0.0),
            "loss_part_missing off_weight": with_rules(off_weight=0.0),
            **{cause: with_radius(rule) for cause, rule in RADII.items()},
            "gaussian_radius": with_targets(lambda t: t._replace(hm=np.where(t.hm == 1, t.hm, 0))),
            "negatives_missing": self._without_negatives,
        }

    def _without_negatives(self, outputs: Outputs, labels: Truth, size: Size) -> Stated:
        right = self.loss(outputs, labels, size, 1)
        kept = [
            np.minimum(each, 0) if number % self.count == 0 else each for number, each in enumerate(right.gradients)
        ]
        return right._replace(gradients=kept)

    def decode(self, maps: Outputs, size: Size) -> tuple[Numbers, Numbers]:
        return self._decoded(maps, lambda part: part)

    def _decoded(self, maps: Outputs, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Numbers, Numbers]:
        heat, wh, *reg = maps
        return centernet.decode(heat, change(wh), change(reg[0]) if reg else None, self.head.K)

    def decoding_mistakes(self) -> Mapping[str, Callable[[Outputs, Size], tuple[Numbers, Numbers]]]:
        return {
            "height_width_swapped": lambda maps, size: self._decoded(maps, lambda pair: pair[..., ::-1]),
            "box_units": lambda maps, size: self._decoded([*maps[:1], maps[1] * STRIDE, *maps[2:]], lambda pair: pair),
            "offset_missing": lambda maps, size: self._decoded(maps[:2], lambda pair: pair),
        }

    def evaluated(
        self, model: keras.Model, images: Float32[np.ndarray, "batch height width 3"]
    ) -> list[Float[tf.Tensor, "batch ..."]]:
        """Heat, sizes and offsets of the last stack; with the flip test heat and sizes are means with the mirror's."""
        config = self.own.experiment.task
        given = ((images[..., ::-1] - config.model.mean) / config.model.std).astype(np.float32)

        def maps(pixels: np.ndarray) -> list[np.ndarray]:
            outputs = tf.nest.flatten(model(tf.constant(pixels), training=False))
            return self.maps([output.numpy() for output in outputs])

        right = maps(given)
        if config.evaluation.flip_test:
            mirrored = maps(given[:, :, ::-1].copy())
            right[:2] = [(one + other[:, :, ::-1]) / 2 for one, other in zip(right[:2], mirrored[:2], strict=True)]
        return [tf.constant(each) for each in right]

    def undecided(self, outputs: Outputs, labels: Truth, size: Size) -> list[Bool[np.ndarray, "batch ..."]]:
        return [np.zeros(output.shape[:-1], bool) for output in outputs]

    def nudged(self, labels: Truth, share: float, rng: np.random.Generator) -> Truth:
        """As they are: what a box decides, its cell and radius, is not to turn; the rest of it enters linearly."""
        return labels

    def hidden(self) -> str:
        return ""

    def assigned(
        self, gradient: Float[np.ndarray, "batch ..."], output: Float32[np.ndarray, "batch ..."], number: int
    ) -> Mapping[str, Bool[np.ndarray, "batch ..."]]:
        """Heat is drawn up at a centre alone; size and offset have a gradient where they are asked for."""
        if number % self.count == 0:
            return {"centres": gradient < 0}
        if not np.any(gradient):
            return {}
        return {f"cells of {NAMES[number % self.count]}": np.any(gradient != 0, axis=-1)}

    @property
    def in_levels(self) -> bool:
        return False

    def batch(self, labels: Truth, size: Size, rng: np.random.Generator) -> TrainBatch:
        count = labels.boxes.shape[0]
        image = rng.integers(0, 256, (count, *size, 3)).astype(np.uint8)
        order = np.array([rng.permutation(3) for _ in range(count)], np.int32)
        strength, lighting = rng.uniform(0.6, 1.4, (count, 3)), rng.normal(0, 0.1, (count, 3))
        draws = CenterNetDraws(
            tf.constant(np.arange(count) % 2 == 1), tf.constant(order),
            tf.constant(strength, tf.float32), tf.constant(lighting, tf.float32),
        )  # fmt: skip
        ids = tf.range(count, dtype=tf.int64)
        return TrainBatch(tf.constant(image), labels.boxes, labels.classes, labels.valid, ids, draws)

    def plain(self, batch: TrainBatch) -> TrainBatch:
        return batch  # its colours are float

    def pixel_mistakes(self) -> Mapping[str, Callable[[Numbers], Numbers]]:
        """Of pixels B, G, R, less the mean, over the deviation."""
        model = self.own.experiment.task.model
        mean, deviation = np.array(model.mean), np.array(model.std)

        def standardised(pixels: np.ndarray) -> np.ndarray:
            return (pixels - mean) / deviation

        def plain(images: np.ndarray) -> np.ndarray:
            return images * deviation + mean

        return {
            "image_range": lambda images: standardised(255 * plain(images)),
            "image_range not standardised": plain,
            "channels_reversed": lambda images: standardised(plain(images)[..., ::-1]),
            "channels_reversed in the mean": lambda images: (plain(images) - mean[::-1]) / deviation[::-1],
        }

    def prepare(self, batch: TrainBatch) -> tuple[Float[np.ndarray, "batch height width 3"], Truth]:
        task = self.own.experiment.task
        draws = [part.numpy() for part in batch.draws]
        images = pixels.inputs(batch.image.numpy(), *draws, task.data.train.augmentation, task.model)
        return images, Truth(batch.boxes.numpy(), batch.classes.numpy(), batch.valid.numpy())
