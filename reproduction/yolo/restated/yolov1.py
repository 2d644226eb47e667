"""The [detection] head (YOLOv1; detection_layer.c), with Darknet's own gradient, whose squares are the cost.

An image has one row of numbers: the classes of all cells, row by row, then the objectness of all boxes, then x and y
(in the cell), width and height (of the image, or their roots) of each. A cell has at most one truth: the first whose
centre is in it. Of its boxes the one that overlaps the truth most is asked for it, or the nearest where none does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from configs.yolo.heads import DetectionHead
from configs.yolo.losses import DetectionLoss
from reproduction.yolo.restated.boxes import darknet_iou
from reproduction.yolo.restated.common import (
    Costs,
    DarknetResult,
    cell_of,
    corners,
    in_one_row,
    of_heads,
    softmax,
    squares,
    truths_of,
)

SMALLEST_SIDE = 0.001  # of the image; smaller truths take no part
Row = Float[np.ndarray, "batch numbers"]


class Cells(NamedTuple):
    """The numbers of each cell (row, column), as they are but for a softmax."""

    classes: Float64[np.ndarray, "batch side side classes"]
    objectness: Float64[np.ndarray, "batch side side num"]
    boxes: Float64[np.ndarray, "batch side side num cxcywh=4"]  # as cxcywh: x, y in the cell; sizes, or their roots


class CellTruths(NamedTuple):
    """What each cell should say; zeros where it has no object."""

    object: Bool[np.ndarray, "batch side side"]
    classes: Float64[np.ndarray, "batch side side classes"]  # one-hot
    boxes: Float64[
        np.ndarray, "batch side side cxcywh=4"
    ]  # cxcywh: x, y in the cell, 0..1; sizes relative to the image


def cells_of(raw: Row, head: DetectionHead) -> Cells:
    """A row of numbers, taken apart."""
    batch, side, num = len(raw), head.side, head.num
    cells = side * side
    classes = raw.shape[1] // cells - 5 * num
    ends = np.cumsum([cells * classes, cells * num])
    per_class, objectness, boxes = np.split(raw.astype(np.float64), ends, axis=1)
    per_class = per_class.reshape(batch, side, side, classes)
    return Cells(
        softmax(per_class) if head.softmax else per_class,
        objectness.reshape(batch, side, side, num),
        boxes.reshape(batch, side, side, num, 4),
    )


def decode_all(
    outputs: Sequence[Row], head: DetectionHead
) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """Every box: yxyx relative to the network input, and scores = objectness * class of the cell.

    outputs: one array. Boxes are ordered by row, column, box (get_detection_detections).
    """
    (raw,) = outputs
    cells = cells_of(raw, head)
    return in_one_row([_in_image(cells.boxes, head, True)], [cells.objectness[..., np.newaxis] * _per_box(cells)])


def _per_box(cells: Cells) -> np.ndarray:
    return cells.classes[..., np.newaxis, :]


def _in_image(boxes: np.ndarray, head: DetectionHead, placed: bool) -> np.ndarray:
    """Boxes [..., 4] as cxcywh of the image; not `placed`: as if their cell were the first."""
    corner = corners((head.side, head.side)) if placed else 0
    sides = boxes[..., 2:] ** 2 if head.sqrt else boxes[..., 2:]
    return np.concatenate([(boxes[..., :2] + corner) / head.side, sides], axis=-1)


def cell_truths(truth: Any, side: int, classes: int) -> CellTruths:
    """The truths of a grid (data.c fill_truth_region). One of a class that is not there is an object of no class.

    truth: anything with boxes (cxcywh relative to the network input), classes and valid.
    """
    truths = truths_of(truth)
    batch = len(truths.boxes)
    grid = (batch, side, side)
    found = CellTruths(np.zeros(grid, bool), np.zeros((*grid, classes)), np.zeros((*grid, 4)))
    for image, number in np.argwhere(truths.valid):
        box, label = truths.boxes[image, number], truths.classes[image, number]
        row, column = cell_of(box, (side, side))
        at = image, row, column
        if np.any(box[2:] < np.float32(SMALLEST_SIDE)) or found.object[at]:
            continue
        found.object[at] = True
        found.classes[at] = np.arange(classes) == label
        found.boxes[at] = [*(box[:2].astype(np.float64) * side - [column, row]), *box[2:]]
    return found


def cell_deltas(raw: Row, cells: CellTruths, head: DetectionHead, rules: DetectionLoss) -> DarknetResult:
    """Darknet's cost and its hand-written gradient, from the truth of each cell."""
    predicted = cells_of(raw, head)
    mine = _in_image(predicted.boxes, head, placed=False)
    true = np.concatenate([cells.boxes[..., :2] / head.side, cells.boxes[..., 2:]], axis=-1)[..., np.newaxis, :]
    overlap, apart = darknet_iou(mine, true), np.square(mine - true).sum(axis=-1)  # [batch, side, side, num]
    which = np.where((overlap > 0).any(axis=-1), overlap.argmax(axis=-1), apart.argmin(axis=-1))
    asked = (np.arange(head.num) == which[..., np.newaxis]) & cells.object[..., np.newaxis]
    aims = cells.boxes[..., np.newaxis, :].copy()
    if head.sqrt:
        aims[..., 2:] = np.sqrt(aims[..., 2:])
    aim = overlap if rules.rescore else 1
    objectness = np.where(asked, rules.object_scale * (aim - predicted.objectness), 0)
    objectness = np.where(asked, objectness, -rules.noobject_scale * predicted.objectness)
    classes = rules.class_scale * (cells.classes - predicted.classes) * cells.object[..., np.newaxis]
    boxes = rules.coord_scale * (aims - predicted.boxes) * asked[..., np.newaxis]
    delta = np.concatenate([part.reshape(len(raw), -1) for part in (classes, objectness, boxes)], axis=1)
    return of_heads([delta], [Costs(squares(boxes), squares(objectness), squares(classes))])


def darknet_deltas(outputs: Sequence[Row], truth: Any, head: DetectionHead, rules: DetectionLoss) -> DarknetResult:
    """Darknet's cost and its hand-written gradient.

    outputs: one array; truth: anything with boxes (cxcywh), classes and valid.
    """
    (raw,) = outputs
    classes = raw.shape[1] // head.side**2 - 5 * head.num
    return cell_deltas(raw, cell_truths(truth, head.side, classes), head, rules)
