"""The two passes by which Darknet makes the gradient of [yolo] and [Gaussian_yolo] (yolo_layer.c process_batch).

The first goes over all predictions: background, unless they overlap a truth by more than ignore_thresh. The second goes
over the truths, in order, and asks the slots that each claims for it. What follows from the order is kept: of several
truths in a slot each adds its box and its class, the last sets the objectness (with objectness_smooth none does, unless
it is 0), and the first sets all classes, as does one that finds its class not set yet.

Not Darknet's: truths without an area take no part, and a NaN of the network or the truth stays NaN, so that it is seen.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

from configs.yolo_losses import GaussianYoloLoss, YoloLoss
from losses.darknet_slots import Claims, at_claims, best_overlap, in_turn, is_claimed, of_truth

CLASS_PROBABILITY_TO_IGNORE = 0.25


class Predictions(NamedTuple):
    """Of all slots of a level, [batch, rows, columns, anchors], or of those truths claim, [batch, truths, anchors]."""

    entries: Float32[tf.Tensor, "*slots coordinates"]  # that make the box: its raw sizes, the rest after the sigmoid
    boxes: Float32[tf.Tensor, "*slots 4"]  # cxcywh relative to the network input
    objectness: Float32[tf.Tensor, "*slots 1"]
    classes: Float32[tf.Tensor, "*slots classes"]


class Delta(NamedTuple):
    """Darknet's delta: minus the gradient by what each number was before its sigmoid, of the sum over the batch."""

    entries: Float32[tf.Tensor, "batch rows columns anchors coordinates"]
    objectness: Float32[tf.Tensor, "batch rows columns anchors 1"]
    classes: Float32[tf.Tensor, "batch rows columns anchors classes"]


class Targets(NamedTuple):
    """What was assigned on one level."""

    claims: Claims
    object: Bool[tf.Tensor, "batch rows columns anchors"]  # slots that a truth claims
    ignored: Bool[tf.Tensor, "batch rows columns anchors"]  # others that overlap a truth too much to be background


class Section(NamedTuple):
    """In what [yolo] and [Gaussian_yolo] differ."""

    # (predictions, (column, row) of their cells, boxes of their truths, weight) -> delta of the entries
    of_box: Callable[[Predictions, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    # (delta of the classes, one-hot class of a truth) -> whether an earlier truth has set them
    is_set: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def delta_of(
    predicted: Predictions, claims: Claims, rules: YoloLoss | GaussianYoloLoss, section: Section
) -> tuple[Delta, Targets]:
    """Both passes over one level. The box of a slot is not yet averaged over its truths."""
    first, over = _first_pass(predicted, claims, rules, section)
    delta = _second_pass(first, predicted, claims, rules, section)
    owned = is_claimed(claims, predicted.boxes.shape)
    return delta, Targets(claims, owned, over & ~owned)


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


def _first_pass(predicted: Predictions, claims: Claims, rules, section: Section) -> tuple[Delta, tf.Tensor]:
    """(delta, [batch, rows, columns, anchors] whether a prediction overlaps a truth by more than ignore_thresh)."""
    best, which = best_overlap(predicted.boxes, claims.truth.boxes)
    confident = tf.reduce_any(predicted.classes > CLASS_PROBABILITY_TO_IGNORE, axis=-1)
    over = confident & (best > rules.ignore_thresh)
    best = best[..., tf.newaxis]  # [batch, rows, columns, anchors, 1]
    objectness = rules.obj_normalizer * (0 - predicted.objectness)
    if _smooth(rules):
        instead = tf.maximum(objectness, rules.obj_normalizer * (best - predicted.objectness))
    else:
        instead = tf.zeros_like(objectness)
    objectness = tf.where(over[..., tf.newaxis], instead, objectness)
    delta = Delta(tf.zeros_like(predicted.entries), objectness, tf.zeros_like(predicted.classes))
    if rules.truth_thresh < 1:
        delta = _above_truth_thresh(delta, predicted, best, which, claims, rules, section)
    return delta, over


def _above_truth_thresh(delta: Delta, predicted, best, which, claims: Claims, rules, section: Section) -> Delta:
    """Predictions that overlap a truth by more than truth_thresh are asked for it."""
    rows, columns = predicted.boxes.shape[1:3]
    row, column = tf.meshgrid(tf.range(rows, dtype=tf.float32), tf.range(columns, dtype=tf.float32), indexing="ij")
    corner = tf.stack([column, row], axis=-1)[:, :, tf.newaxis]  # [rows, columns, 1, 2]
    labels = tf.gather(claims.truth.classes, which, batch_dims=1)  # [batch, rows, columns, anchors]
    weights = class_weights(labels, rules)[..., tf.newaxis]
    target = best * best if _smooth(rules) else tf.ones_like(best)
    classes = _of_classes(delta.classes, predicted.classes, labels, rules, section)
    if _smooth(rules):
        own = tf.one_hot(labels, classes.shape[-1], on_value=True, off_value=False)
        classes = tf.where(own, weights * (target - predicted.classes), classes)
    asked = Delta(
        section.of_box(predicted, corner, tf.gather(claims.truth.boxes, which, batch_dims=1), weights),
        rules.obj_normalizer * (target - predicted.objectness),
        classes,
    )
    return Delta(*(tf.where(best > rules.truth_thresh, new, old) for new, old in zip(asked, delta, strict=True)))


def _second_pass(first: Delta, predicted: Predictions, claims: Claims, rules, section: Section) -> Delta:
    mine = Predictions(*(at_claims(part, claims) for part in predicted))  # of [batch, truths, anchors]
    anchors = claims.claimed.shape[2]
    labels = tf.repeat(claims.truth.classes[..., tf.newaxis], anchors, axis=2)  # [batch, truths, anchors]
    weights = class_weights(labels, rules)[..., tf.newaxis]
    corner = tf.cast(claims.cells[:, :, tf.newaxis, ::-1], tf.float32)  # [batch, truths, 1, 2]
    of_boxes = section.of_box(mine, corner, claims.truth.boxes[:, :, tf.newaxis], weights)

    def ask(slots: list[tf.Tensor], number: tf.Tensor) -> list[tf.Tensor]:
        entries, objectness, classes = slots
        asked = of_truth(weights, number) * rules.obj_normalizer * (1 - mine.objectness)
        if _smooth(rules):
            asked = tf.where(objectness == 0, asked, objectness)
        classes = _of_classes(classes, mine.classes, of_truth(labels, number), rules, section)
        return [entries + of_truth(of_boxes, number), asked, classes]

    return Delta(*in_turn(claims, list(first), ask))


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
