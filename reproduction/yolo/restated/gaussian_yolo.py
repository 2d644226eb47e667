"""The [Gaussian_yolo] head (gaussian_yolo_layer.c; Gaussian YOLOv3, Choi et al. 2019), with Darknet's own gradient.

Each of x, y, width and height is a normal distribution, of a mean and a sigma. Delta is roughly that of the truth's
log likelihood, in which 0.3 was added to sigma in one place; with an iou_loss the means have the delta of [yolo]. A
slot's box is always averaged over its classes, and whether its classes are set is seen from class 0.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from configs.yolo.heads import GaussianYoloHead, GaussianYoloLevel
from configs.yolo.losses import GaussianYoloLoss
from reproduction.yolo.restated.assignment import Assigned, assigned_to
from reproduction.yolo.restated.common import (
    Costs,
    DarknetResult,
    Outputs,
    Raw,
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
    Section,
    Slots,
    averaged,
    bounded,
    iou_slopes,
    passes,
    squared_error_aims,
)

SIGMA_CONST = 0.3
EPSILON = 1e-9


class Decoded(NamedTuple):
    """The predictions of one level."""

    boxes: Float64[np.ndarray, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    sigmas: Float64[np.ndarray, "batch rows columns anchors cxcywh=4"]  # 0..1, of x, y, width and height
    objectness: Float64[np.ndarray, "batch rows columns anchors"]  # 0..1
    classes: Float64[np.ndarray, "batch rows columns anchors classes"]  # 0..1, independent of each other
    offsets: Float64[np.ndarray, "batch rows columns anchors 2"]  # of the centre (x, y) from its cell's corner, cells


def decode(raw: Raw, head: GaussianYoloHead, level: GaussianYoloLevel, input_size: tuple[int, int]) -> Decoded:
    """One level's predictions (forward_gaussian_yolo_layer).

    raw: x, y, width and height, each before its sigma, objectness, classes; input_size: (height, width) in pixels.
    """
    raw = raw.astype(np.float64)
    grid = raw.shape[1:3]
    offsets = saturated(sigmoid(raw[..., 0:4:2])) * level.scale_x_y - (level.scale_x_y - 1) / 2
    sides = size_factors(raw[..., 4:8:2]) * anchors_of(head, level, input_size)
    boxes = np.concatenate([(offsets + corners(grid)) / np.array(grid[::-1]), sides], axis=-1)
    probabilities = saturated(sigmoid(raw[..., 8:]))
    return Decoded(boxes, sigmoid(raw[..., 1:8:2]), probabilities[..., 0], probabilities[..., 1:], offsets)


def decode_all(
    outputs: Sequence[Outputs], head: GaussianYoloHead, input_size: tuple[int, int]
) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """Every prediction: yxyx boxes relative to the network input, and scores, by level, row, column, anchor.

    A score is objectness * class * (1 - mean of the sigmas). outputs: raw, of each level.
    """
    levels = [decode(raw, head, level, input_size) for raw, level in zip(outputs, head.levels, strict=True)]
    certain = [level.objectness * (1 - level.sigmas.mean(axis=-1)) for level in levels]
    scores = [one[..., np.newaxis] * level.classes for one, level in zip(certain, levels, strict=True)]
    return in_one_row([level.boxes for level in levels], scores)


def assign(
    raw: Raw,
    truth: Any,
    head: GaussianYoloHead,
    level: GaussianYoloLevel,
    rules: GaussianYoloLoss,
    input_size: tuple[int, int],
) -> Assigned:
    """The assignment of one level. raw: as in `decode`; truth: anything with boxes (cxcywh), classes and valid."""
    predicted, table = decode(raw, head, level, input_size), table_of(head, level, input_size)
    return assigned_to(predicted.boxes, predicted.classes, truths_of(truth), table, level.mask, rules)


def darknet_deltas(
    outputs: Sequence[Outputs], truth: Any, head: GaussianYoloHead, rules: GaussianYoloLoss, input_size: tuple[int, int]
) -> DarknetResult:
    """Darknet's cost and its hand-written gradient.

    outputs: raw, of each level; truth: anything with boxes (cxcywh), classes and valid.
    """
    truths = truths_of(truth)
    found = [
        _level(raw, truths, head, level, level.loss or rules, input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]
    return of_heads(*zip(*found, strict=True))


def _level(
    raw: Raw,
    truths: Truths,
    head: GaussianYoloHead,
    level: GaussianYoloLevel,
    rules: GaussianYoloLoss,
    input_size: tuple[int, int],
) -> tuple[np.ndarray, Costs]:
    decoded, assigned = decode(raw, head, level, input_size), assign(raw, truths, head, level, rules, input_size)
    means = np.concatenate([decoded.offsets, raw[..., 4:8:2].astype(np.float64)], axis=-1)
    entries = np.concatenate([means, decoded.sigmas], axis=-1)

    def of_box(mine: Slots, aims: Aims) -> np.ndarray:
        means, sigmas = mine.entries[:, :4], mine.entries[:, 4:]
        scale = (2 - aims.boxes[:, 2] * aims.boxes[:, 3])[:, np.newaxis]
        of_means, of_sigmas = _likelihood(squared_error_aims(aims, new_coords=False) - means, sigmas, scale)
        if rules.iou_loss != "mse":
            of_means = iou_slopes(mine.boxes, aims, rules.iou_loss)
            of_means[:, 2:] *= size_factors(means[:, 2:])
        of_means = of_means * (rules.iou_normalizer * aims.weight)[:, np.newaxis]
        return bounded(np.concatenate([of_means, of_sigmas * rules.uc_normalizer], axis=-1), rules)

    anchors = anchors_of(head, level, input_size)
    predicted = Slots(entries, decoded.boxes, decoded.objectness, decoded.classes)
    delta = passes(predicted, assigned, truths, anchors, rules, Section(of_box, asks_class_0=True))
    delta = averaged(delta, np.array(True))
    interleaved = delta.entries[..., [0, 4, 1, 5, 2, 6, 3, 7]]
    whole = np.concatenate([interleaved, delta.objectness[..., np.newaxis], delta.classes], axis=-1)
    return whole, Costs(squares(delta.entries), squares(delta.objectness), squares(delta.classes))


def _likelihood(errors: np.ndarray, sigmas: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Delta of means and sigmas, [n, 4] each (delta_gaussian_yolo_box). scale: 2 minus the truth's area."""
    with np.errstate(all="ignore"):
        z = errors / sigmas
        density = np.exp(-z * z / 2) / (math.sqrt(2 * math.pi) * (sigmas + SIGMA_CONST))
        factor = scale / 2 * density / (density + EPSILON)
        return factor * z / sigmas, factor * (z * z / sigmas - 1 / (sigmas + SIGMA_CONST))
