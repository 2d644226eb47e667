"""Darknet's hand-written gradient of [yolo] and [Gaussian_yolo] (yolo_layer.c process_batch, delta_yolo_class).

First all slots are background, unless they overlap a truth by more than ignore_thresh; with truth_thresh below 1 those
above it are asked for that truth. Then the truths have their turn, one after the other: each adds its box to the slots
it asks, sets their objectness, and their classes. What a later truth does depends on what earlier ones wrote.

`delta` is minus the gradient by what each number was before its sigmoid, summed over the batch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from reproduction.yolo.restated.assignment import Assigned
from reproduction.yolo.restated.boxes import darknet_slopes
from reproduction.yolo.restated.common import Truths, corners, saturated

Rules = YoloLoss | GaussianYoloLoss


class Slots(NamedTuple):
    """The predictions of some slots. Their numbers are float64, and exactly 0 or 1 where float32 is."""

    entries: Float64[np.ndarray, "*slots coordinates"]  # that make the box: its raw sizes, the rest after the sigmoid
    boxes: Float64[np.ndarray, "*slots cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float64[np.ndarray, "*slots"]
    classes: Float64[np.ndarray, "*slots classes"]


class Aims(NamedTuple):
    """Of each of some slots the truth that it is asked for."""

    boxes: Float64[np.ndarray, "*slots cxcywh=4"]  # cxcywh relative to the network input
    corner: Float64[np.ndarray, "*slots 2"]  # (column, row) of the slot's cell
    anchors: Float64[np.ndarray, "*slots 2"]  # relative (width, height)
    weight: Float64[np.ndarray, "*slots"]  # of the truth's class
    grid: tuple[int, int]  # (rows, columns)


class Delta(NamedTuple):
    """Darknet's delta."""

    entries: Float64[np.ndarray, "batch rows columns anchors coordinates"]
    objectness: Float64[np.ndarray, "batch rows columns anchors"]
    classes: Float64[np.ndarray, "batch rows columns anchors classes"]


class Section(NamedTuple):
    """In what [yolo] and [Gaussian_yolo] differ."""

    of_box: Callable[[Slots, Aims], np.ndarray]  # delta of the entries
    asks_class_0: bool  # whether classes are set is seen from class 0, not from the truth's own


def passes(
    predicted: Slots,
    assigned: Assigned,
    truths: Truths,
    anchors: Float64[np.ndarray, "anchors 2"],
    rules: Rules,
    section: Section,
) -> Delta:
    """Both passes over one level. The box of a slot is not yet averaged. anchors: relative (width, height)."""
    grid = predicted.boxes.shape[1:3]

    def aims(where: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> Aims:
        corner = corners(grid)[where[:, 1], where[:, 2], 0]
        return Aims(boxes, corner, anchors[where[:, 3]], class_weights(labels, rules), grid)

    def some(where: np.ndarray) -> Slots:
        return Slots(*(part[tuple(where.T)] for part in predicted))

    delta = _background(predicted, assigned, rules)
    if rules.truth_thresh < 1:
        above = np.argwhere(assigned.overlap > rules.truth_thresh)
        which = above[:, 0], assigned.nearest[tuple(above.T)]
        boxes, labels = truths.boxes[which].astype(np.float64), truths.classes[which]
        _ask_above(delta, above, some(above), aims(above, boxes, labels), labels, assigned, rules, section)
    where = assigned.matches[:, :4]
    mine, asked = some(where), aims(where, assigned.boxes, assigned.labels)
    np.add.at(delta.entries, tuple(where.T), section.of_box(mine, asked))
    for match, label in enumerate(assigned.labels):
        slot, objectness = tuple(where[match]), mine.objectness[match]
        if not smooth(rules) or delta.objectness[slot] == 0:
            delta.objectness[slot] = asked.weight[match] * rules.obj_normalizer * (1 - objectness)
        before = delta.classes[slot]
        is_set = before[0 if section.asks_class_0 else label] != 0
        one = slice(match, match + 1)
        if is_set:
            own = (1 - rules.label_smoothing / 2 - mine.classes[match, label]) * asked.weight[match]
            delta.classes[(*slot, label)] = own
        else:
            delta.classes[slot] = _all_classes(mine.classes[one], assigned.labels[one], rules)[0]
    return delta


def smooth(rules: Rules) -> bool:
    return isinstance(rules, YoloLoss) and rules.objectness_smooth


def class_weights(labels: Int64[np.ndarray, " n"], rules: Rules) -> Float64[np.ndarray, " n"]:
    """How much a truth of each class weighs: the most frequent one's count over its own, at most max_delta."""
    if rules.counters_per_class is None:
        return np.ones(len(labels))
    counters = np.array(rules.counters_per_class, np.float64)
    return np.minimum(counters.max() / counters, rules.max_delta or math.inf)[labels]


def averaged(delta: Delta, where: Bool[np.ndarray, "*slots"]) -> Delta:
    """The box of a slot, `where` so, divided by the number of classes that are pulled up in it."""
    pulled = np.maximum(np.count_nonzero(delta.classes > 0, axis=-1), 1)
    return delta._replace(entries=delta.entries / np.where(where, pulled, 1)[..., np.newaxis])


def squared_error_aims(aims: Aims, new_coords: bool) -> Float64[np.ndarray, "*slots txtytwth=4"]:
    """What x, y, width and height should be: in cells from the cell's corner, and raw."""
    offsets = aims.boxes[..., :2] * np.array(aims.grid[::-1]) - aims.corner
    factors = aims.boxes[..., 2:] / aims.anchors
    sizes = np.sqrt(factors / 4) if new_coords else np.log(factors)
    return np.concatenate([offsets, sizes], axis=-1)


def iou_slopes(
    boxes: Float64[np.ndarray, "*slots cxcywh=4"], aims: Aims, kind: str
) -> Float64[np.ndarray, "*slots cxcywh=4"]:
    """`darknet_slopes` of predicted cxcywh boxes, a side of 0 taken for 1 (delta_yolo_box)."""
    empty = boxes[..., 2:].astype(np.float32) == 0
    sides = np.where(empty, 1, boxes[..., 2:])
    return darknet_slopes(np.concatenate([boxes[..., :2], sides], axis=-1), aims.boxes, kind)


def bounded(delta: Float64[np.ndarray, "*slots entries"], rules: Rules) -> Float64[np.ndarray, "*slots entries"]:
    """0 for what is no finite number, and at most max_delta."""
    delta = np.where(np.isfinite(delta), delta, 0)
    return delta if rules.max_delta is None else np.clip(delta, -rules.max_delta, rules.max_delta)


def _background(predicted: Slots, assigned: Assigned, rules: Rules) -> Delta:
    """The first pass, without truth_thresh."""
    objectness = rules.obj_normalizer * (0 - predicted.objectness)
    over = assigned.over
    if smooth(rules):
        instead = np.maximum(objectness, rules.obj_normalizer * (assigned.overlap - predicted.objectness))
    else:
        instead = np.zeros_like(objectness)
    entries, classes = np.zeros(predicted.entries.shape), np.zeros(predicted.classes.shape)
    return Delta(entries, np.where(over, instead, objectness), classes)


def _ask_above(
    delta: Delta,
    where: np.ndarray,
    mine: Slots,
    aims: Aims,
    labels: np.ndarray,
    assigned: Assigned,
    rules: Rules,
    section: Section,
) -> None:
    """Slots that overlap a truth by more than truth_thresh are asked for it, in the first pass already."""
    at = tuple(where.T)
    target = assigned.overlap[at] ** 2 if smooth(rules) else np.ones(len(where))
    classes = _all_classes(mine.classes, labels, rules)
    if smooth(rules):
        own = np.arange(len(labels)), labels
        classes[own] = aims.weight * (target - mine.classes[own])
    delta.entries[at] = section.of_box(mine, aims)
    delta.objectness[at] = rules.obj_normalizer * (target - mine.objectness)
    delta.classes[at] = classes


def _all_classes(probabilities: np.ndarray, labels: np.ndarray, rules: Rules) -> np.ndarray:
    """Delta [n, classes] of classes that no truth has set yet, for a truth of `labels` [n]."""
    own = np.arange(probabilities.shape[1]) == labels[:, np.newaxis]
    if isinstance(rules, YoloLoss) and rules.focal_loss:
        chance = saturated(probabilities[own] + 1e-15)[:, np.newaxis]
        slope = -(1 - chance) * (2 * chance * np.log(chance) + chance - 1)
        return (own - probabilities) * 0.5 * slope
    low = rules.label_smoothing / 2
    delta = np.where(own, 1 - low, low) - probabilities
    if rules.counters_per_class is None:
        return delta
    return delta * np.where(own, class_weights(labels, rules)[:, np.newaxis] * rules.cls_normalizer, 1)
