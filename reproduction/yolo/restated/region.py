"""The [region] head (YOLOv2; region_layer.c), with Darknet's own gradient. Its cost is the sum of the delta's squares.

All slots are background, unless they overlap a truth by more than thresh. A truth asks the slot of its cell and of the
anchor with its shape; a later truth of the slot takes it. During prior_steps all other boxes are drawn to their
anchors, with a weight of 0.01. What passed a sigmoid has its slope in the delta.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from configs.yolo.heads import RegionHead
from configs.yolo.losses import RegionLoss
from reproduction.yolo.restated.boxes import darknet_iou
from reproduction.yolo.restated.common import (
    Costs,
    DarknetResult,
    Outputs,
    Raw,
    Truths,
    cell_of,
    corners,
    in_one_row,
    of_heads,
    relative,
    sigmoid,
    size_factors,
    softmax,
    squares,
    taking_part,
    truths_of,
)

PRIOR_SCALE = 0.01


class Decoded(NamedTuple):
    """The predictions of the one level."""

    boxes: Float64[np.ndarray, "batch rows columns anchors cxcywh=4"]  # cxcywh relative to the network input
    objectness: Float64[np.ndarray, "batch rows columns anchors"]  # 0..1
    classes: Float64[np.ndarray, "batch rows columns anchors classes"]  # with softmax: they add up to 1
    offsets: Float64[np.ndarray, "batch rows columns anchors 2"]  # of the centre (x, y) from its cell's corner, 0..1


class Claimed(NamedTuple):
    """Which truth has each slot of an image."""

    truth: dict[tuple[int, int, int], int]  # (row, column, anchor) -> the truth's row in the image
    over: Bool[np.ndarray, "rows columns anchors"]  # overlaps a truth too much to be background


def decode(raw: Raw, head: RegionHead) -> Decoded:
    """The predictions (get_region_box). raw: x, y, width, height, objectness, classes. Anchors are in cells."""
    raw = raw.astype(np.float64)
    grid = raw.shape[1:3]
    offsets = sigmoid(raw[..., :2])
    sides = size_factors(raw[..., 2:4]) * relative(head.anchors, grid)
    boxes = np.concatenate([(offsets + corners(grid)) / np.array(grid[::-1]), sides], axis=-1)
    return Decoded(boxes, sigmoid(raw[..., 4]), softmax(raw[..., 5:]) if head.softmax else raw[..., 5:], offsets)


def decode_all(
    outputs: Sequence[Outputs], head: RegionHead
) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """Every prediction: yxyx boxes relative to the network input, and scores = objectness * class.

    outputs: raw, one array. Boxes are ordered by row, column, anchor.
    """
    (raw,) = outputs
    decoded = decode(raw, head)
    return in_one_row([decoded.boxes], [decoded.objectness[..., np.newaxis] * decoded.classes])


def darknet_deltas(
    outputs: Sequence[Outputs], truth: Any, head: RegionHead, rules: RegionLoss, step: int
) -> DarknetResult:
    """Darknet's cost and its hand-written gradient.

    outputs: raw, one array; truth: anything with boxes (cxcywh), classes and valid; step: of the optimiser, from 1.
    """
    (raw,) = outputs
    raw, truths = raw.astype(np.float64), truths_of(truth)
    decoded, grid = decode(raw, head), raw.shape[1:3]
    now = np.concatenate([decoded.offsets, raw[..., 2:4]], axis=-1)
    slope = np.concatenate([_slope(decoded.offsets), np.ones_like(decoded.offsets)], axis=-1)
    delta = np.zeros(raw.shape)
    if step <= rules.prior_steps:
        delta[..., :4] = PRIOR_SCALE * (np.array([0.5, 0.5, 0, 0]) - now) * slope
    delta[..., 4] = -rules.noobject_scale * decoded.objectness * _slope(decoded.objectness)
    for image in range(len(raw)):
        truth_of, over = _claimed(decoded, image, truths, head, rules)
        delta[image, ..., 4][over] = 0
        for slot, number in truth_of.items():
            row, column, anchor = slot
            at = (image, *slot)
            box = truths.boxes[image, number].astype(np.float64)
            offsets = box[:2] * grid[::-1] - [column, row]
            aims = np.concatenate([offsets, np.log(box[2:] * grid[::-1] / head.anchors[anchor])])
            delta[at][:4] = rules.coord_scale * (aims - now[at]) * slope[at]
            aim = darknet_iou(decoded.boxes[at][np.newaxis], box[np.newaxis])[0] if rules.rescore else 1
            objectness = decoded.objectness[at]
            delta[at][4] = rules.object_scale * (aim - objectness) * _slope(objectness)
            own = np.arange(raw.shape[4] - 5) == truths.classes[image, number]
            delta[at][5:] = rules.class_scale * (own - decoded.classes[at])
    return of_heads([delta], [Costs(squares(delta[..., :4]), squares(delta[..., 4]), squares(delta[..., 5:]))])


def _slope(probability: np.ndarray | float) -> np.ndarray | float:
    """The sigmoid's, where it has this value."""
    return probability * (1 - probability)


def _claimed(decoded: Decoded, image: int, truths: Truths, head: RegionHead, rules: RegionLoss) -> Claimed:
    boxes = decoded.boxes[image]
    grid = boxes.shape[:2]
    overlap, claimed = np.zeros(boxes.shape[:3]), {}
    for truth in taking_part(truths, image, decoded.classes.shape[4]):
        overlap = np.fmax(overlap, darknet_iou(boxes, truth.box[np.newaxis]))
        cell = cell_of(truth.box, grid)
        sides = relative(head.anchors, grid) if rules.bias_match else boxes[cell][:, 2:]
        shapes = np.concatenate([np.zeros_like(sides), sides], axis=-1)
        best = darknet_iou(shapes, np.array([[0, 0, *truth.box[2:]]])).argmax()
        claimed[(*cell, int(best))] = truth.number
    return Claimed(claimed, overlap > rules.thresh)
