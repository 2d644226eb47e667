"""The YOLO family: seeded inputs of an experiment, and what the stated formulas make of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from configs.colour import DarknetFloat, DarknetOpencv, HsvGains
from configs.yolo.heads import DetectionHead, GaussianYoloHead, YoloHead
from configs.yolo.losses import YoloLoss
from dataloaders.batch import ColourDraws, Effects, TrainBatch
from losses.truth import Truth
from reproduction.seeded.family import Group, Mistakes, OfExperiment, Outputs, Size, Stated
from reproduction.traces.compare import Numbers
from reproduction.yolo.restated import pixels
from reproduction.yolo.restated.heads import DECODE, LOSS
from reproduction.yolo.restated.yolo import assign

GAIN_STEP = 2.0**-15  # of a drawn gain
BOX_STEP = 2.0**-16  # of a truth's numbers: times a grid's side they are exact in float32
IMAGES = 4
NOTHING = -20.0  # logit of what is not there
SEVERAL = 12  # truths of the third image
IOU_KINDS = ("mse", "iou", "giou", "diou", "ciou")


class Yolo(OfExperiment):
    """See `Family`."""

    @property
    def objectness(self) -> int:
        """Which entry of a prediction it is."""
        return 8 if isinstance(self.head, GaussianYoloHead) else 4

    def labels(self, rng: np.random.Generator) -> Truth:
        data = self.own.experiment.task.data
        rows, classes = data.train.max_boxes, len(data.classes)
        boxes = np.concatenate(
            [
                rng.uniform(0.02, 0.98, (IMAGES, rows, 2)),
                np.exp(rng.uniform(np.log(0.04), np.log(0.7), (IMAGES, rows, 2))),
            ],
            axis=-1,
        ).astype(np.float32)
        labels = rng.integers(0, classes, (IMAGES, rows)).astype(np.int32)
        valid = np.arange(rows) < np.array([[0], [1], [min(rows, SEVERAL)], [rows]])
        crowd = boxes[2]
        crowd[0, :2] = 1.0  # its centre is on the far corner
        if rows > 3:
            crowd[2], labels[2, 2] = crowd[1] * np.float32(1 + 1e-4), (labels[2, 1] + 1) % classes  # in the same slot
            crowd[3, 2] = 0.0  # without width
        boxes = (np.round(boxes / BOX_STEP) * BOX_STEP).astype(np.float32)
        return Truth(tf.constant(boxes), tf.constant(labels), tf.constant(valid))

    def outputs(self, labels: Truth, size: Size, rng: np.random.Generator) -> Outputs:
        """Logits about 0; some slots near a truth predict it, and some predict no class."""
        found = []
        for number, shape in enumerate(self.own.output_shapes(size)):
            raw = rng.normal(0, 1, (IMAGES, *shape)).astype(np.float32)
            if not isinstance(self.head, DetectionHead):
                raw[..., 2:4] *= 0.5
                raw[..., self.objectness + 1 :] -= 2
                raw[..., self.objectness + 1 :][rng.random(raw.shape[:4]) < 0.3] -= 4
            if isinstance(self.head, YoloHead):
                level = self.head.levels[number]
                if level.new_coords:
                    raw = (1 / (1 + np.exp(-raw))).astype(np.float32)
                self._aim(raw, labels, level, size, rng)
            found.append(raw)
        return found

    def _aim(self, raw: np.ndarray, labels: Truth, level: Any, size: Size, rng: np.random.Generator) -> None:
        """All anchors in the cell of a truth's centre predict it, but for a little noise."""
        rows, columns = raw.shape[1:3]
        anchors = np.array(self.head.anchors_of(level)) / np.array(size[::-1])
        boxes, valid = labels.boxes.numpy(), labels.valid.numpy()
        for image, number in np.argwhere(valid & (boxes[..., 2] > 0)):
            box = boxes[image, number].astype(float)
            at = np.minimum((box[:2] * [columns, rows]).astype(int), [columns - 1, rows - 1])
            near = (box[:2] * [columns, rows] - at + (level.scale_x_y - 1) / 2) / level.scale_x_y
            near, factors = np.clip(near, 0.02, 0.98), box[2:] / anchors
            centre = near if level.new_coords else np.log(near / (1 - near))
            sides = np.sqrt(factors / 4) if level.new_coords else np.log(factors)
            sides = np.clip(sides, *((0.02, 0.98) if level.new_coords else (-3, 3)))
            aimed = np.concatenate([np.broadcast_to(centre, sides.shape), sides], axis=-1)  # [anchors, 4]
            noise = rng.normal(0, 0.02 if level.new_coords else 0.1, aimed.shape)
            raw[image, at[1], at[0], :, :4] = np.clip(aimed + noise, 0.01 if level.new_coords else -9, 9)

    def maps(self, outputs: Outputs) -> Outputs:
        return outputs

    def few(self, outputs: Outputs) -> Outputs:
        """Objects of two classes in four cells of each level; [detection] outputs as they are."""
        if isinstance(self.head, DetectionHead):
            return outputs
        return [self._few(output, number) for number, output in enumerate(outputs)]

    def _few(self, output: np.ndarray, number: int) -> np.ndarray:
        decoded = isinstance(self.head, YoloHead) and self.head.levels[number].new_coords
        found = output.copy()
        rows, columns = (slice(side // 2 - 1, side // 2 + 1) for side in output.shape[1:3])
        found[..., self.objectness :] = 0 if decoded else NOTHING
        found[:, rows, columns, ..., self.objectness : self.objectness + 3] = output[
            :, rows, columns, ..., self.objectness : self.objectness + 3
        ]
        return found

    def groups(self, outputs: Outputs) -> Iterator[Group]:
        for number, output in enumerate(outputs):
            if isinstance(self.head, DetectionHead):
                yield Group(f"output {number}", number, slice(None))
                continue
            at = self.objectness
            yield Group(f"level {number} boxes", number, slice(0, at))
            yield Group(f"level {number} objectness", number, slice(at, at + 1))
            yield Group(f"level {number} classes", number, slice(at + 1, output.shape[-1]))

    def loss(self, outputs: Outputs, labels: Truth, size: Size, step: int) -> Stated:
        return self._stated(outputs, labels, size, step, self.head, self.rules)

    def _stated(self, outputs: Outputs, labels: Any, size: Size, step: int, head: Any, rules: Any) -> Stated:
        key = head.type, getattr(rules, "gradient", "darknet")
        found = LOSS[key](outputs, labels, head, rules, size, step)
        return Stated(found.value, found.parts, found.gradients)

    def mistakes(self) -> Mistakes:
        def with_rules(**changed: Any) -> Callable[[Outputs, Truth, Size], Stated]:
            rules = self.rules.model_copy(update=changed)
            levels = getattr(self.head, "levels", ())
            own = [one.model_copy(update={"loss": one.loss and one.loss.model_copy(update=changed)}) for one in levels]
            head = self.head.model_copy(update={"levels": tuple(own)}) if levels else self.head
            return lambda outputs, labels, size: self._stated(outputs, labels, size, 1, head, rules)

        def with_labels(change: Callable[[Truth], Truth]) -> Callable[[Outputs, Truth, Size], Stated]:
            return lambda outputs, labels, size: self.loss(outputs, change(labels), size, 1)

        def with_head(**changed: Any) -> Callable[[Outputs, Truth, Size], Stated]:
            head = self._levels_changed(**changed)
            return lambda outputs, labels, size: self._stated(outputs, labels, size, 1, head, self.rules)

        classes = len(self.own.experiment.task.data.classes)
        found: dict[str, Callable] = {
            "height_width_swapped": with_labels(lambda t: t._replace(boxes=tf.gather(t.boxes, [1, 0, 3, 2], axis=-1))),
            "class_ids_shifted": with_labels(lambda t: t._replace(classes=(t.classes + 1) % classes)),
            "class_ids_shifted down": with_labels(lambda t: t._replace(classes=(t.classes - 1) % classes)),
            "class_ids_permuted": with_labels(lambda t: t._replace(classes=classes - 1 - t.classes)),
            "padded_rows_scatter": with_labels(lambda t: t._replace(valid=tf.ones_like(t.valid))),
            "box_format xyxy": with_labels(lambda t: t._replace(boxes=_corners(t.boxes))),
            "input_size_fixed": lambda outputs, labels, size: self.loss(outputs, labels, self._own_size, 1),
            "gradient_sign": self._turned,
        }
        names = self.own.experiment.task.data.classes
        sorted_ids = tf.constant([sorted(names).index(name) for name in names])
        found["class_ids_permuted by name"] = with_labels(
            lambda t: t._replace(classes=tf.gather(sorted_ids, tf.clip_by_value(t.classes, 0, classes - 1)))
        )
        for cells in (-1, 1):
            found[f"cell_offset {cells}"] = lambda o, t, size, cells=cells: self._beside(o, t, size, cells)
        if isinstance(self.rules, YoloLoss):
            found["ciou_gradient_wh"] = with_rules(gradient={"darknet": "autodiff"}.get(self.rules.gradient, "darknet"))
        if hasattr(self.rules, "iou_loss"):
            found |= {f"normaliser {name} 1": with_rules(**{name: 1.0}) for name in _NORMALISERS}
            found |= {
                f"iou_kind {kind}": with_rules(iou_loss=kind) for kind in IOU_KINDS if kind != self.rules.iou_loss
            }
            found["ignore_rule nothing ignored"] = with_rules(ignore_thresh=1.0)
            found["ignore_rule at 0.5"] = with_rules(ignore_thresh=0.5)
            found["ignore_rule without a class"] = self._ignored_without_class
            found |= {f"loss_part_missing {name}": with_rules(**{name: 0.0}) for name in _NORMALISERS}
            found["label_smoothing_missing"] = with_rules(label_smoothing=0.0)
            found["second_anchor"] = with_rules(iou_thresh=1.0)
            found["negatives_missing"] = self._without_negatives
            found["scale_x_y"] = with_head(scale_x_y=1.0)
            found["anchor_mask"] = with_head(mask=lambda level: tuple(max(0, index - 1) for index in level.mask))
        if isinstance(self.head, YoloHead):
            found["second_truth_ignored"] = lambda o, t, size: self._one_class_a_slot(o, t, size, slice(None, None, -1))
            found["second_truth_overwrites"] = lambda o, t, size: self._one_class_a_slot(o, t, size, slice(None))
            found["box_mean the sum"] = self._boxes_scaled(lambda matches, count: count)
            found["box_count of the level"] = self._boxes_scaled(lambda matches, count: IMAGES / max(1, len(matches)))
        # Of causes that explain alike the first is told: with many mistakes in the boxes nothing is ignored, either.
        return {cause: found[cause] for cause in sorted(found, key=lambda name: not name.startswith("ignore_rule"))}

    def _levels_changed(self, **changed: Any) -> Any:
        """The head with other options of its levels; a function is asked for each level."""
        levels = [
            level.model_copy(update={name: one(level) if callable(one) else one for name, one in changed.items()})
            for level in self.head.levels
        ]
        return self.head.model_copy(update={"levels": tuple(levels)})

    def _beside(self, outputs: Outputs, labels: Truth, size: Size, cells: int) -> Stated:
        """Each level assigned as if the truths lay one cell further right; its own box loss is then another, too."""
        found = []
        for number, output in enumerate(outputs):
            moved = labels.boxes.numpy().copy()
            moved[..., 0] = np.clip(moved[..., 0] + cells / output.shape[2], 0, 1)
            found.append(self.loss(outputs, labels._replace(boxes=tf.constant(moved)), size, 1).gradients[number])
        return self.loss(outputs, labels, size, 1)._replace(gradients=found)

    @property
    def _own_size(self) -> Size:
        return tuple(self.own.experiment.task.model.input_size)

    def _boxes_scaled(self, factor: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[..., Stated]:
        """Boxes' gradients times a function of (the level's matches, how many of them each slot has)."""

        def stated(outputs: Outputs, labels: Truth, size: Size) -> Stated:
            right, found = self.loss(outputs, labels, size, 1), []
            for raw, level, gradient in zip(outputs, self.head.levels, right.gradients, strict=True):
                matches = assign(raw, labels, self.head, level, level.loss or self.rules, size).matches
                count = np.zeros((*raw.shape[:4], 1))
                np.add.at(count, tuple(matches[:, :4].T), 1)
                scaled = np.array(gradient)
                scaled[..., :4] *= factor(matches, count)
                found.append(scaled)
            return right._replace(gradients=found)

        return stated

    def _one_class_a_slot(self, outputs: Outputs, labels: Truth, size: Size, order: slice) -> Stated:
        """A slot is asked for the class of one truth alone: of several, in this order, the last."""
        right, found = self.loss(outputs, labels, size, 1), []
        for raw, level, gradient in zip(outputs, self.head.levels, right.gradients, strict=True):
            rules, changed = level.loss or self.rules, np.array(gradient)
            asked = assign(raw, labels, self.head, level, rules, size)
            pairs = [(tuple(match[:4]), int(kind)) for match, kind in zip(asked.matches, asked.labels, strict=True)]
            kept = dict(pairs[order])
            weight = rules.cls_normalizer if rules.gradient == "autodiff" else 1.0
            for slot, kind in {pair for pair in pairs if kept[pair[0]] != pair[1]}:
                changed[(*slot, 5 + kind)] += weight * (1 - rules.label_smoothing) / len(raw)
            found.append(changed)
        return right._replace(gradients=found)

    def _turned(self, outputs: Outputs, labels: Truth, size: Size) -> Stated:
        right = self.loss(outputs, labels, size, 1)
        return right._replace(gradients=[-each for each in right.gradients])

    def _ignored_without_class(self, outputs: Outputs, labels: Truth, size: Size) -> Stated:
        """Objectness as if all classes were likely."""
        right, at = self.loss(outputs, labels, size, 1), self.objectness
        likely = [np.concatenate([raw[..., : at + 1], np.ones_like(raw[..., at + 1 :])], axis=-1) for raw in outputs]
        found = [np.array(each) for each in right.gradients]
        for mine, other in zip(found, self.loss(likely, labels, size, 1).gradients, strict=True):
            mine[..., at] = other[..., at]
        return right._replace(gradients=found)

    def _without_negatives(self, outputs: Outputs, labels: Truth, size: Size) -> Stated:
        right = self.loss(outputs, labels, size, 1)
        found = []
        for gradient in right.gradients:
            gradient = np.array(gradient)
            entry = gradient[..., self.objectness]
            entry[entry > 0] = 0
            found.append(gradient)
        return right._replace(gradients=found)

    def decode(self, maps: Outputs, size: Size) -> tuple[Numbers, Numbers]:
        return DECODE[self.head.type](maps, self.head, size)

    def decoding_mistakes(self) -> Mapping[str, Callable[[Outputs, Size], tuple[Numbers, Numbers]]]:
        def with_head(head: Any) -> Callable[[Outputs, Size], tuple[Numbers, Numbers]]:
            return lambda maps, size: DECODE[head.type](maps, head, size)

        found = {"height_width_swapped": lambda maps, size: self.decode(maps, size[::-1])}
        if isinstance(self.head, YoloHead | GaussianYoloHead):
            shifted = self._levels_changed(mask=lambda level: tuple(max(0, index - 1) for index in level.mask))
            found |= {"scale_x_y": with_head(self._levels_changed(scale_x_y=1.0)), "anchor_mask": with_head(shifted)}
            reverse = self._levels_changed(mask=lambda level: level.mask[::-1])
            found["anchors_permuted"] = with_head(reverse)
        if isinstance(self.head, YoloHead):
            found["activation_missing"] = with_head(self._levels_changed(new_coords=lambda level: not level.new_coords))
        if not isinstance(self.head, DetectionHead):
            found["score_product"] = lambda maps, size: self.decode([self._sure(each) for each in maps], size)
        return found

    def _sure(self, raw: np.ndarray) -> np.ndarray:
        """The same output with objectness 1."""
        levels = getattr(self.head, "levels", ())
        sure = np.array(raw)
        sure[..., self.objectness] = 1.0 if any(getattr(level, "new_coords", False) for level in levels) else 80.0
        return sure

    def evaluated(
        self, model: keras.Model, images: Float32[np.ndarray, "batch height width 3"]
    ) -> list[Float[tf.Tensor, "batch ..."]]:
        return tf.nest.flatten(model(tf.constant(images), training=False))

    def undecided(self, outputs: Outputs, labels: Truth, size: Size) -> list[Bool[np.ndarray, "batch ..."]]:
        if not isinstance(self.head, YoloHead):
            return [np.zeros(output.shape[:-1], bool) for output in outputs]
        return [
            assign(raw, labels, self.head, level, level.loss or self.rules, size).undecided
            for raw, level in zip(outputs, self.head.levels, strict=True)
        ]

    def nudged(self, labels: Truth, share: float, rng: np.random.Generator) -> Truth:
        return labels._replace(
            boxes=labels.boxes * (1 + share * rng.standard_normal(labels.boxes.shape)).astype(np.float32)
        )

    def hidden(self) -> str:
        if not isinstance(self.head, YoloHead | GaussianYoloHead):
            return "the loss of this head asks something of every prediction; gate 6 compares it"
        every = [self.rules, *(level.loss for level in self.head.levels if level.loss)]
        if any(rules.truth_thresh < 1 or getattr(rules, "objectness_smooth", False) for rules in every):
            return "with truth_thresh or objectness_smooth, objectness does not tell the positives; gate 6 compares it"
        return ""

    def assigned(
        self, gradient: Float[np.ndarray, "batch ..."], output: Float32[np.ndarray, "batch ..."], number: int
    ) -> Mapping[str, Bool[np.ndarray, "batch ..."]]:
        """A positive is drawn up, background is drawn down, and what is ignored has no gradient.

        A class is asked where it is drawn up by more than label smoothing draws the others. Where no objectness at all
        is drawn down, nothing tells what is ignored from what is background.
        """
        objectness, classes = gradient[..., self.objectness], gradient[..., self.objectness + 1 :]
        positive = objectness < 0
        asked = (classes < 0) & positive[..., np.newaxis]
        asked &= classes <= classes.min(axis=-1, keepdims=True) / 4
        found = {"positives": positive, "ignored": objectness == 0, "classes": asked}
        return found if np.any(objectness > 0) else {name: found[name] for name in ("positives", "classes")}

    @property
    def in_levels(self) -> bool:
        config = self.own.experiment.task.data.train.augmentation
        return config is not None and not isinstance(config.colour, DarknetFloat)

    def batch(self, labels: Truth, size: Size, rng: np.random.Generator) -> TrainBatch:
        count, config = labels.boxes.shape[0], self.own.experiment.task.data.train.augmentation
        image = rng.integers(0, 256, (count, *size, 3)).astype(np.uint8)
        draws = _draws(config, count, rng)
        ids = tf.range(count, dtype=tf.int64)
        return TrainBatch(tf.constant(image), labels.boxes, labels.classes, labels.valid, ids, draws)

    def plain(self, batch: TrainBatch) -> TrainBatch:
        nothing = tf.zeros_like(batch.draws.hue)
        return batch._replace(draws=batch.draws._replace(hue=nothing, saturation=nothing + 1, exposure=nothing + 1))

    def pixel_mistakes(self) -> Mapping[str, Callable[[Numbers], Numbers]]:
        return {"image_range": lambda images: 255 * images, "channels_reversed": lambda images: images[..., ::-1]}

    def prepare(self, batch: TrainBatch) -> tuple[Float[np.ndarray, "batch height width 3"], Truth]:
        image, boxes, classes, valid = (part.numpy() for part in batch[:4])
        draws = [part.numpy() for part in batch.draws[:4]]
        images, boxes = pixels.inputs(image, boxes, valid, draws, self._colours())
        return images, Truth(boxes.astype(np.float32), classes, valid)

    def _colours(self) -> Any:
        """The augmentation without blur and noise, of which none is drawn here."""
        config = self.own.experiment.task.data.train.augmentation
        if config is None or not isinstance(config.colour, DarknetOpencv):
            return config
        return config.model_copy(update={"colour": DarknetOpencv()})


_NORMALISERS = ("iou_normalizer", "obj_normalizer", "cls_normalizer")


def _corners(boxes: Float32[tf.Tensor, "batch truths cxcywh=4"]) -> Float32[tf.Tensor, "batch truths xyxy=4"]:
    """cxcywh -> xyxy."""
    return tf.concat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], axis=-1)


def _draws(config: Any, count: int, rng: np.random.Generator) -> ColourDraws:
    """Draws in the configuration's ranges; every other example is mirrored. Blur and noise are not among them."""
    flip = tf.constant(np.arange(count) % 2 == 1)
    if config is None:
        nothing = tf.zeros([count])
        return ColourDraws(tf.zeros([count], tf.bool), nothing, nothing + 1, nothing + 1)
    if isinstance(config.colour, HsvGains):
        gains = np.array([config.colour.hue, config.colour.saturation, config.colour.value])
        drawn = np.round(rng.uniform(-1, 1, (count, 3)) * gains / GAIN_STEP) * GAIN_STEP + [0, 1, 1]
    else:
        scales = [rng.uniform(*sorted((1 / most, most)), count) for most in (config.saturation, config.exposure)]
        drawn = np.stack([rng.uniform(-config.hue, config.hue, count), *scales], axis=-1)
    parts = tf.unstack(tf.constant(drawn, tf.float32), axis=-1)
    has_effects = isinstance(config.colour, DarknetOpencv) and (config.colour.blur or config.colour.gaussian_noise)
    none = tf.zeros([count], tf.int32)
    return ColourDraws(flip, *parts, Effects(none, none, tf.zeros([count, 2], tf.int32)) if has_effects else ())
