"""The [yolo] head: what its numbers mean, and its loss with either gradient.

With the automatic gradient the loss is, summed over levels and a mean over the examples:
- box: of each match 1 - IoU of the level's kind; or with mse half the squared errors of x, y (in cells) and raw width
  and height, times 2 minus the truth's area. With iou_thresh below 1 a slot has the mean over its matches.
- objectness: binary cross-entropy of all slots that are not ignored.
- class: binary cross-entropies of the slots that are asked, each target drawn to 1/2 by label_smoothing.
Each has its normalizer as its weight.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from configs.yolo.heads import YoloHead, YoloLevel
from configs.yolo.losses import YoloLoss
from reproduction.yolo.restated import boxes as overlaps
from reproduction.yolo.restated.assignment import Assigned, assigned_to
from reproduction.yolo.restated.boxes import MIN_SIDE
from reproduction.yolo.restated.common import (
    LARGEST_SIZE_LOGIT,
    Costs,
    DarknetResult,
    Outputs,
    Raw,
    Result,
    Truths,
    anchors_of,
    corners,
    in_one_row,
    of_heads,
    saturated,
    sigmoid,
    size_factors,
    squares,
    table_of,
    truths_of,
)
from reproduction.yolo.restated.darknet_passes import (
    Aims,
    Delta,
    Section,
    Slots,
    averaged,
    bounded,
    iou_slopes,
    passes,
    squared_error_aims,
)

SMALLEST_PROBABILITY = 1e-7  # where a logarithm is taken of what is no logit


class Decoded(NamedTuple):
    """The predictions of one level."""

    boxes: Float64[np.ndarray, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float64[np.ndarray, "batch rows columns anchors"]  # 0..1
    classes: Float64[np.ndarray, "batch rows columns anchors classes"]  # 0..1, independent of each other


def decode(raw: Raw, head: YoloHead, level: YoloLevel, input_size: tuple[int, int]) -> Decoded:
    """One level's predictions (yolo_layer.c forward_yolo_layer, get_yolo_box).

    raw: x, y, width, height, objectness and classes, logits or with new_coords numbers in 0..1; input_size: (height,
    width) in pixels. With scale_x_y s, a centre is sigmoid(x) * s - (s - 1) / 2 cells from its cell's corner.
    """
    raw = raw.astype(np.float64)
    grid = raw.shape[1:3]
    near, probabilities = (part if level.new_coords else sigmoid(part) for part in (raw[..., :2], raw[..., 4:]))
    factors = 4 * raw[..., 2:4] ** 2 if level.new_coords else size_factors(raw[..., 2:4])
    offsets = near * level.scale_x_y - (level.scale_x_y - 1) / 2
    centres = (offsets + corners(grid)) / np.array(grid[::-1])
    sides = factors * anchors_of(head, level, input_size)
    return Decoded(np.concatenate([centres, sides], axis=-1), probabilities[..., 0], probabilities[..., 1:])


def decode_all(
    outputs: Sequence[Outputs], head: YoloHead, input_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """Every prediction: yxyx boxes relative to the network input, and scores = objectness * class.

    outputs: raw, of each level. Boxes are ordered by level, row, column, anchor.
    """
    levels = [decode(raw, head, level, input_size) for raw, level in zip(outputs, head.levels, strict=True)]
    scores = [level.objectness[..., np.newaxis] * level.classes for level in levels]
    return in_one_row([level.boxes for level in levels], scores)


def assign(
    raw: Raw, truth: Any, head: YoloHead, level: YoloLevel, rules: YoloLoss, input_size: tuple[int, int]
) -> Assigned:
    """The assignment of one level. raw: as in `decode`; truth: anything with boxes (cxcywh), classes and valid."""
    predicted, table = decode(raw, head, level, input_size), table_of(head, level, input_size)
    return assigned_to(predicted.boxes, predicted.classes, truths_of(truth), table, level.mask, rules)


def loss(
    outputs: Sequence[Outputs], truth: Any, head: YoloHead, rules: YoloLoss, input_size: tuple[int, int]
) -> Result:
    """The loss and its derivatives. outputs: raw, of each level; truth: anything with boxes, classes and valid."""
    batch, parts, gradients = len(outputs[0]), np.zeros(3), []
    for raw, level in zip(outputs, head.levels, strict=True):
        own = level.loss or rules
        assigned = assign(raw, truth, head, level, own, input_size)
        exact = raw.astype(np.float64)
        gradient = np.zeros(exact.shape)
        smoothed = assigned.classes * (1 - own.label_smoothing) + own.label_smoothing / 2
        weights = own.iou_normalizer, own.obj_normalizer, own.cls_normalizer
        losses = [
            _box(exact, assigned, head, level, own, input_size),
            _cross_entropy(assigned.object.astype(np.float64), exact[..., 4], ~assigned.ignored, level.new_coords),
            _cross_entropy(smoothed, exact[..., 5:], assigned.object[..., np.newaxis], level.new_coords),
        ]
        for entries, weight, (_, slopes) in zip((slice(4), 4, slice(5, None)), weights, losses, strict=True):
            gradient[..., entries] = weight * slopes / batch
        parts += [weight * value / batch for weight, (value, _) in zip(weights, losses, strict=True)]
        gradients.append(gradient)
    names = ("box", "objectness", "class")
    return Result(float(parts.sum()), dict(zip(names, parts.tolist(), strict=True)), gradients)


def _cross_entropy(
    target: np.ndarray, number: np.ndarray, where: np.ndarray, is_probability: bool
) -> tuple[float, np.ndarray]:
    """The sum of binary cross-entropies `where` so, and its derivative by each number."""
    where = np.broadcast_to(where, number.shape)
    if is_probability:
        is_, is_not = np.maximum(number, SMALLEST_PROBABILITY), np.maximum(1 - number, SMALLEST_PROBABILITY)
        value = -target * np.log(is_) - (1 - target) * np.log(is_not)
        slopes = (1 - target) / is_not * (1 - number >= SMALLEST_PROBABILITY)
        slopes = slopes - target / is_ * (number >= SMALLEST_PROBABILITY)
    else:
        value = np.logaddexp(0, number) - number * target
        slopes = sigmoid(number) - target
    return float(value[where].sum()), np.where(where, slopes, 0)


def _box(
    raw: np.ndarray,
    assigned: Assigned,
    head: YoloHead,
    level: YoloLevel,
    rules: YoloLoss,
    input_size: tuple[int, int],
) -> tuple[float, np.ndarray]:
    """The sum of the boxes' losses of one level, and its derivative by x, y, width and height of all slots."""
    where = tuple(assigned.matches[:, :4].T)
    count = np.zeros(raw.shape[:4])
    np.add.at(count, where, 1)
    share = 1 / count[where] if rules.iou_thresh < 1 else np.ones(len(assigned.matches))
    predicted = decode(raw, head, level, input_size).boxes[where]
    mine, true = raw[where][:, :4], assigned.boxes
    anchors = anchors_of(head, level, input_size)[where[3]]
    by_raw = _by_raw(mine, predicted[:, 2:], level, anchors)
    grid = np.array(raw.shape[2:0:-1], np.float64)  # (columns, rows)
    by_raw[:, :2] /= grid
    if rules.iou_loss == "mse":
        factors = np.maximum(true[:, 2:], MIN_SIDE) / anchors
        aims = np.sqrt(factors / 4) if level.new_coords else np.log(factors)
        errors = np.concatenate([(predicted[:, :2] - true[:, :2]) * grid, mine[:, 2:] - aims], axis=-1)
        scale = (2 - true[:, 2] * true[:, 3]) * share
        by_raw[:, :2] *= grid
        by_raw[:, 2:] = 1
        value, slopes = scale * np.square(errors).sum(axis=-1) / 2, scale[:, np.newaxis] * errors * by_raw
    else:
        value = share * (1 - overlaps.KINDS[rules.iou_loss](predicted, true))
        slopes = -share[:, np.newaxis] * overlaps.slopes(predicted, true, rules.iou_loss) * by_raw
    gradient = np.zeros((*raw.shape[:4], 4))
    np.add.at(gradient, where, slopes)
    return float(value.sum()), gradient


def _by_raw(mine: np.ndarray, sides: np.ndarray, level: YoloLevel, anchors: np.ndarray) -> np.ndarray:
    """Derivatives [matches, 4] of centre (in cells) and size by the raw numbers."""
    near = sigmoid(mine[:, :2])
    if level.new_coords:
        return np.concatenate([np.full_like(near, level.scale_x_y), 8 * mine[:, 2:] * anchors], axis=-1)
    followed = mine[:, 2:] <= LARGEST_SIZE_LOGIT
    return np.concatenate([level.scale_x_y * near * (1 - near), sides * followed], axis=-1)


def darknet_deltas(
    outputs: Sequence[Outputs], truth: Any, head: YoloHead, rules: YoloLoss, input_size: tuple[int, int]
) -> DarknetResult:
    """Darknet's cost and its hand-written gradient (yolo_layer.c). The arguments are as in `loss`."""
    truths = truths_of(truth)
    found = [
        _darknet_level(raw, truths, head, level, level.loss or rules, input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]
    return of_heads(*zip(*found, strict=True))


def _darknet_level(
    raw: Raw, truths: Truths, head: YoloHead, level: YoloLevel, rules: YoloLoss, input_size: tuple[int, int]
) -> tuple[Float[np.ndarray, "batch rows columns anchors channels"], Costs]:
    exact = raw.astype(np.float64)
    decoded, assigned = decode(raw, head, level, input_size), assign(raw, truths, head, level, rules, input_size)
    near = exact[..., :2] if level.new_coords else saturated(sigmoid(exact[..., :2]))
    offsets = near * level.scale_x_y - (level.scale_x_y - 1) / 2
    entries = np.concatenate([offsets, exact[..., 2:4]], axis=-1)
    predicted = Slots(entries, decoded.boxes, saturated(decoded.objectness), saturated(decoded.classes))

    def of_box(mine: Slots, aims: Aims) -> np.ndarray:
        weight = (rules.iou_normalizer * aims.weight)[:, np.newaxis]
        if rules.iou_loss == "mse":
            scale = (2 - aims.boxes[:, 2] * aims.boxes[:, 3])[:, np.newaxis]
            return scale * (squared_error_aims(aims, level.new_coords) - mine.entries) * weight
        slopes = iou_slopes(mine.boxes, aims, rules.iou_loss)
        if not level.new_coords:
            slopes[:, 2:] *= size_factors(mine.entries[:, 2:])
        return bounded(slopes * weight, rules)

    anchors = anchors_of(head, level, input_size)
    delta = passes(predicted, assigned, truths, anchors, rules, Section(of_box, asks_class_0=False))
    if rules.iou_thresh < 1:
        delta = averaged(delta, delta.objectness != 0)
    whole = np.concatenate([delta.entries, delta.objectness[..., np.newaxis], delta.classes], axis=-1)
    return whole, _cost(delta, assigned, decoded.boxes, rules)


def _cost(delta: Delta, assigned: Assigned, boxes: np.ndarray, rules: YoloLoss) -> Costs:
    """All squares; or the mean of 1 - IoU (or GIoU) of the matches, and the squares that are no box's."""
    objectness, classes = squares(delta.objectness), squares(delta.classes)
    if rules.iou_loss == "mse" or not rules.show_details:
        return Costs(squares(delta.entries), objectness, classes)
    kind = overlaps.darknet_giou if rules.iou_loss == "giou" else overlaps.darknet_iou
    missing = 1 - kind(boxes[tuple(assigned.matches[:, :4].T)], assigned.boxes)
    box = rules.iou_normalizer * float(missing.mean()) if len(missing) else 0.0
    return Costs(box, rules.obj_normalizer * objectness, rules.obj_normalizer * classes)
