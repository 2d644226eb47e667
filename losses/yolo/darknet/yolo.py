"""The [yolo] loss as Darknet computes it: a gradient written by hand and a cost beside it (yolo_layer.c).

Two passes make the gradient, and that of [Gaussian_yolo] (process_batch). The first goes over all predictions:
background, unless they overlap a truth by more than ignore_thresh. The second goes over the truths, in order, and asks
the slots that each claims for it. What follows from the order is kept: of several truths in a slot each adds its box
and its class, the last sets the objectness (with objectness_smooth none does, unless it is 0), and the first sets all
classes, as does one that finds its class not set yet.

Not Darknet's: truths without an area take no part, and a NaN of the network or the truth stays NaN, so that it is seen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float, Float32, Int32, Shaped

from configs.yolo.heads import YoloHead, YoloLevel
from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from losses.truth import Truth
from losses.yolo.assignment import Targets, assign, at_claims, diagnostics_of, into_slots
from losses.yolo.darknet import iou
from losses.yolo.darknet.head_loss import HeadLoss, Scalar, added_in_turn, squares
from losses.yolo.darknet.iou import A, B
from losses.yolo.truth import check_truth
from modeling.yolo.heads.yolo import check_levels, decode_level, relative_anchors, size_factors
from official.core.errors import UserError
from official.core.task import Moment

Slots = Float32[tf.Tensor, "batch rows columns anchors _"]


class Predictions(NamedTuple):
    """Of all slots of a level, [batch, rows, columns, anchors], or of those truths claim, [batch, truths, anchors]."""

    entries: Float32[tf.Tensor, "*slots coordinates"]  # that make the box: its raw sizes, the rest after the sigmoid
    boxes: Float32[tf.Tensor, "*slots cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float32[tf.Tensor, "*slots 1"]
    classes: Float32[tf.Tensor, "*slots classes"]


class Delta(NamedTuple):
    """Darknet's delta: minus the gradient by what each number was before its sigmoid, of the sum over the batch."""

    entries: Float32[tf.Tensor, "batch rows columns anchors coordinates"]
    objectness: Float32[tf.Tensor, "batch rows columns anchors 1"]
    classes: Float32[tf.Tensor, "batch rows columns anchors classes"]


class Section(NamedTuple):
    """In what [yolo] and [Gaussian_yolo] differ."""

    # (predictions, (column, row) of their cells, boxes of their truths, weight) -> delta of the entries
    of_box: Callable[[Predictions, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    # (delta of the classes, one-hot class of a truth) -> whether an earlier truth has set them
    is_set: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def yolo_heads(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: YoloHead,
    loss: YoloLoss,
    moment: Moment,
) -> list[HeadLoss]:
    """Darknet's cost, delta and targets of each level. The rest as in `yolo_loss`; loss.gradient is not read."""
    check_levels(outputs, len(head.levels))
    check_truth(truth, outputs[0].shape[0])
    return [
        yolo_level(tf.cast(raw, tf.float32), truth, head, level, level.loss or loss, moment.input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]


def yolo_level(
    raw: Float32[tf.Tensor, "batch rows columns anchors channels"],
    truth: Truth,
    head: YoloHead,
    level: YoloLevel,
    rules: YoloLoss,
    input_size: tuple[int, int],
) -> HeadLoss:
    """Cost, delta and targets of one level of `head`. raw: its raw outputs; input_size: (height, width) in pixels."""
    raw = tf.stop_gradient(raw)  # the gradient is what follows, not its derivative
    decoded = decode_level(raw, head.anchors_of(level), level, input_size)
    entries = tf.concat([decoded.offsets, raw[..., 2:4]], axis=-1)
    predicted = Predictions(entries, decoded.boxes, decoded.objectness[..., tf.newaxis], decoded.class_probabilities)
    grid = tuple(raw.shape[1:3])
    table = relative_anchors(head.table(level), input_size)
    targets = assign(decoded.boxes, decoded.class_probabilities, truth, table, level.mask, rules)
    anchors = tf.gather(table, level.mask)  # [anchors, 2]

    def of_box(predicted: Predictions, corner: tf.Tensor, true: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        if rules.iou_loss == "mse":
            aims = squared_error_aims(true, corner, anchors, grid, level.new_coords)
            return small_counts_more(true) * (aims - predicted.entries) * (rules.iou_normalizer * weight)
        slopes = iou_slopes(predicted.boxes, true, rules.iou_loss)
        if not level.new_coords:
            sizes = size_factors(predicted.entries[..., 2:])
            slopes *= tf.concat([tf.ones_like(sizes), sizes], axis=-1)
        return bounded(slopes * (rules.iou_normalizer * weight), predicted.entries, true, rules)

    delta = delta_of(predicted, targets, rules, Section(of_box, _is_set))
    if rules.iou_thresh < 1:
        delta = averaged(delta, delta.objectness != 0)
    cost, parts = _cost(delta, targets, predicted.boxes, rules)
    return HeadLoss(cost, parts, _whole(delta), targets, diagnostics_of(targets, predicted.boxes))


def _whole(delta: Delta) -> tf.Tensor:
    return tf.concat(list(delta), axis=-1)  # [batch, rows, columns, anchors, 5 + classes]


def _is_set(delta: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(own & (delta != 0), axis=-1, keepdims=True)


def squared_error_aims(
    true: Float32[tf.Tensor, "*truths cxcywh=4"],
    corner: Float32[tf.Tensor, "*cells 2"],
    anchors: Float32[tf.Tensor, "anchors 2"],
    grid: tuple[int, int],
    new_coords: bool,
) -> Float32[tf.Tensor, "*slots txtytwth=4"]:
    """What x, y, width and height [..., 4] should be: in cells from the cell's corner (column, row), and raw.

    true: cxcywh boxes; anchors: relative (width, height); grid: (rows, columns).
    """
    offsets = true[..., :2] * tf.constant(grid[::-1], tf.float32) - corner
    factors = true[..., 2:] / anchors
    sizes = tf.sqrt(factors / 4) if new_coords else tf.math.log(factors)
    # The offset belongs to a cell, the size to an anchor in it.
    shape = tf.broadcast_static_shape(offsets.shape, sizes.shape)
    return tf.concat([tf.broadcast_to(offsets, shape), sizes], axis=-1)


def small_counts_more(true: Float32[tf.Tensor, "*truths cxcywh=4"]) -> Float32[tf.Tensor, "*truths 1"]:
    """2 minus the area of cxcywh boxes."""
    return (2 - true[..., 2] * true[..., 3])[..., tf.newaxis]


def iou_slopes(predicted: A, true: B, kind: str) -> Float32[tf.Tensor, "*pairs cxcywh=4"]:
    """`iou_gradient` (cxcywh), with 1 for a predicted side of 0."""
    sizes = predicted[..., 2:]
    safe = tf.concat([predicted[..., :2], tf.where(sizes == 0, 1.0, sizes)], axis=-1)
    return iou.iou_gradient(safe, true, kind)


def bounded(
    delta: Float32[tf.Tensor, "*slots entries"],
    predicted: Float32[tf.Tensor, "*slots entries"],
    true: Float32[tf.Tensor, "*truths cxcywh=4"],
    rules: YoloLoss | GaussianYoloLoss,
) -> Float32[tf.Tensor, "*slots entries"]:
    """Of the entries, [..., _]: 0 for what is not finite, and at most max_delta.

    What was not finite before, in the prediction or the truth, stays so (Darknet: 0, unless built to ignore NaN).
    """
    source = tf.reduce_sum(predicted, axis=-1, keepdims=True) + tf.reduce_sum(true, axis=-1, keepdims=True)
    delta = tf.where(tf.math.is_finite(delta), delta, 0 * source)
    return delta if rules.max_delta is None else tf.clip_by_value(delta, -rules.max_delta, rules.max_delta)


def _cost(delta: Delta, targets: Targets, boxes: tf.Tensor, rules: YoloLoss) -> tuple[Scalar, dict[str, Scalar]]:
    """(cost, its parts), as in HeadLoss."""
    objectness, classes = squares(delta.objectness), squares(delta.classes)
    if rules.iou_loss == "mse" or not rules.show_details:
        parts = {"box": squares(delta.entries), "objectness": objectness, "class": classes}
        return added_in_turn(_whole(delta)), parts
    claims = targets.claims
    kind = iou.giou if rules.iou_loss == "giou" else iou.iou
    missing = 1 - kind(at_claims(boxes, claims), claims.truth.boxes[:, :, tf.newaxis])  # [batch, truths, anchors]
    missing = tf.reduce_sum(tf.where(claims.claimed, missing, 0.0))
    box = rules.iou_normalizer * tf.math.divide_no_nan(missing, tf.reduce_sum(tf.cast(claims.claimed, tf.float32)))
    without_box = added_in_turn(_whole(delta._replace(entries=tf.zeros_like(delta.entries))))
    parts = {"box": box, "objectness": rules.obj_normalizer * objectness, "class": rules.obj_normalizer * classes}
    return box + rules.obj_normalizer * without_box, parts


def delta_of(predicted: Predictions, targets: Targets, rules: YoloLoss | GaussianYoloLoss, section: Section) -> Delta:
    """Both passes over one level. The box of a slot is not yet averaged over its truths.

    Raises:
        UserError: rules.counters_per_class are of another number of classes.
    """
    counters, classes = rules.counters_per_class, predicted.classes.shape[-1]
    if counters is not None and len(counters) != classes:
        raise UserError(f"counters_per_class has {len(counters)} counts; the head has {classes} classes")
    return _second_pass(_first_pass(predicted, targets, rules, section), predicted, targets, rules, section)


def averaged(delta: Delta, where: Bool[tf.Tensor, "*slots"]) -> Delta:
    """The box of a slot, `where` so, divided by the number of classes asked for in it (averages_yolo_deltas)."""
    asked = tf.reduce_sum(tf.cast(delta.classes > 0, tf.float32), axis=-1, keepdims=True)
    return delta._replace(entries=delta.entries / tf.where(where, tf.maximum(asked, 1.0), 1.0))


def class_weights(
    labels: Int32[tf.Tensor, "*slots"], rules: YoloLoss | GaussianYoloLoss
) -> Float32[tf.Tensor, "*slots"]:
    """How much an object of each class weighs: the rarer, the more (parser.c get_classes_multipliers)."""
    if rules.counters_per_class is None:
        return tf.ones(labels.shape)
    largest = max(rules.counters_per_class)
    weights = [largest / count for count in rules.counters_per_class]
    if rules.max_delta is not None:
        weights = [min(weight, rules.max_delta) for weight in weights]
    return tf.gather(tf.constant(weights, tf.float32), labels)


def _first_pass(predicted: Predictions, targets: Targets, rules, section: Section) -> Delta:
    """All predictions are background, but for those that overlap a truth too much."""
    best = targets.overlap[..., tf.newaxis]  # [batch, rows, columns, anchors, 1]
    objectness = rules.obj_normalizer * (0 - predicted.objectness)
    if _smooth(rules):
        instead = tf.maximum(objectness, rules.obj_normalizer * (best - predicted.objectness))
    else:
        instead = tf.zeros_like(objectness)
    objectness = tf.where(targets.overlapping[..., tf.newaxis], instead, objectness)
    delta = Delta(tf.zeros_like(predicted.entries), objectness, tf.zeros_like(predicted.classes))
    return _above_truth_thresh(delta, predicted, targets, rules, section) if rules.truth_thresh < 1 else delta


def _above_truth_thresh(delta: Delta, predicted: Predictions, targets: Targets, rules, section: Section) -> Delta:
    """Predictions that overlap a truth by more than truth_thresh are asked for it."""
    truth, nearest, best = targets.claims.truth, targets.nearest, targets.overlap[..., tf.newaxis]
    rows, columns = predicted.boxes.shape[1:3]
    row, column = tf.meshgrid(tf.range(rows, dtype=tf.float32), tf.range(columns, dtype=tf.float32), indexing="ij")
    corner = tf.stack([column, row], axis=-1)[:, :, tf.newaxis]  # [rows, columns, 1, 2]
    labels = tf.gather(truth.classes, nearest, batch_dims=1)  # [batch, rows, columns, anchors]
    weights = class_weights(labels, rules)[..., tf.newaxis]
    target = best * best if _smooth(rules) else tf.ones_like(best)
    classes = _of_classes(delta.classes, predicted.classes, labels, rules, section)
    if _smooth(rules):
        own = tf.one_hot(labels, classes.shape[-1], on_value=True, off_value=False)
        classes = tf.where(own, weights * (target - predicted.classes), classes)
    asked = Delta(
        section.of_box(predicted, corner, tf.gather(truth.boxes, nearest, batch_dims=1), weights),
        rules.obj_normalizer * (target - predicted.objectness),
        classes,
    )
    return Delta(*(tf.where(best > rules.truth_thresh, new, old) for new, old in zip(asked, delta, strict=True)))


def _second_pass(first: Delta, predicted: Predictions, targets: Targets, rules, section: Section) -> Delta:
    """The truths, in order, ask the slots that they claim for their box, an object and their class."""
    claims = targets.claims
    mine = Predictions(*(at_claims(part, claims) for part in predicted))  # of [batch, truths, anchors]
    anchors = claims.claimed.shape[2]
    labels = tf.repeat(claims.truth.classes[..., tf.newaxis], anchors, axis=2)  # [batch, truths, anchors]
    weights = class_weights(labels, rules)[..., tf.newaxis]
    corner = tf.cast(claims.cells[:, :, tf.newaxis, ::-1], tf.float32)  # [batch, truths, 1, 2]
    of_boxes = section.of_box(mine, corner, claims.truth.boxes[:, :, tf.newaxis], weights)

    def ask(slots: list[tf.Tensor], number: tf.Tensor) -> list[tf.Tensor]:
        entries, objectness, classes = slots
        asked = _of_truth(weights, number) * rules.obj_normalizer * (1 - mine.objectness)
        if _smooth(rules):
            asked = tf.where(objectness == 0, asked, objectness)
        classes = _of_classes(classes, mine.classes, _of_truth(labels, number), rules, section)
        return [entries + _of_truth(of_boxes, number), asked, classes]

    return Delta(*_in_turn(targets, list(first), ask))


def _of_classes(delta: tf.Tensor, probabilities: tf.Tensor, labels: tf.Tensor, rules, section: Section) -> tf.Tensor:
    """The classes' delta [*slots, classes] after a truth of class `labels` [*slots] (delta_yolo_class)."""
    own = tf.one_hot(labels, delta.shape[-1], on_value=True, off_value=False)  # [*slots, classes]
    weights = class_weights(labels, rules)[..., tf.newaxis]
    low = rules.label_smoothing / 2
    high = 1 - low
    added = tf.where(own, (high - probabilities) * weights, delta)
    if isinstance(rules, YoloLoss) and rules.focal_loss:
        chance = tf.reduce_sum(tf.where(own, probabilities, 0.0), axis=-1, keepdims=True) + 1e-15
        slope = -(1 - chance) * (2 * chance * tf.math.log(chance) + chance - 1)
        fresh = (tf.cast(own, tf.float32) - probabilities) * (0.5 * slope)
    else:
        fresh = tf.where(own, high, low) - probabilities
        if rules.counters_per_class is not None:
            fresh *= tf.where(own, weights * rules.cls_normalizer, 1.0)
    return tf.where(section.is_set(delta, own), added, fresh)


def _smooth(rules) -> bool:
    return isinstance(rules, YoloLoss) and rules.objectness_smooth


def _in_turn(
    targets: Targets, slots: list[Slots], change: Callable[[list[tf.Tensor], tf.Tensor], list[tf.Tensor]]
) -> list[Slots]:
    """What the truths, one after the other, leave of the slots they claim.

    What a truth does may depend on what earlier ones did to the same slot, but never on another slot. So all slots are
    changed at once, first by the first truth of each, then by its second, as many times as the most claimed slot has
    truths.

    slots: [batch, rows, columns, anchors, _] tensors. change(some, number) gets them for each truth and anchor,
    [batch, truths, anchors, _], and, for the truth that is to change each, its number in the image [batch, truths,
    anchors]; it returns the changed ones.
    """
    claims = targets.claims
    truths = claims.claimed.shape[1]
    start = tf.where(claims.first, tf.range(truths)[:, tf.newaxis], truths)  # [batch, truths, anchors]

    def turn(number: tf.Tensor, *some: tf.Tensor) -> list[tf.Tensor]:
        acting = number < truths
        number = tf.minimum(number, truths - 1)
        changed = change(list(some), number)
        some = [tf.where(acting[..., tf.newaxis], new, old) for new, old in zip(changed, some, strict=True)]
        return [tf.where(acting, _of_truth(claims.following, number), truths), *some]

    _, *some = tf.while_loop(
        lambda number, *_: tf.reduce_any(number < truths),
        turn,
        [start, *(at_claims(values, claims) for values in slots)],
        maximum_iterations=truths,
    )
    # Each claimed slot has exactly one `first` claim, whose row holds what all left of it.
    some = [tf.where(claims.first[..., tf.newaxis], values, 0.0) for values in some]
    left = [into_slots(values, claims, targets.object.shape) for values in some]
    return [tf.where(targets.object[..., tf.newaxis], new, old) for new, old in zip(left, slots, strict=True)]


def _of_truth(
    values: Shaped[tf.Tensor, "batch truths anchors *rest"], number: Int32[tf.Tensor, "batch truths anchors"]
) -> Shaped[tf.Tensor, "batch truths anchors *rest"]:
    """values [batch, truths, anchors, ...] of the truth with this number [batch, truths, anchors], anchor by anchor."""
    moved = tf.experimental.numpy.swapaxes
    picked = tf.gather(moved(values, 1, 2), moved(number, 1, 2), axis=2, batch_dims=2)  # [batch, anchors, truths, ...]
    return moved(picked, 1, 2)
