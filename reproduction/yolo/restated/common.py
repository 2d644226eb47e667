"""What all heads of the YOLO family share: truths, the cell of a centre, activations, and what a loss comes to."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from configs.yolo.heads import GaussianYoloHead, GaussianYoloLevel, YoloHead, YoloLevel

LARGEST_SIZE_LOGIT = 30.0  # a side is at most e^30 times its anchor's; Darknet: unbounded

AnchorHead = YoloHead | GaussianYoloHead
AnchorLevel = YoloLevel | GaussianYoloLevel
Raw = Float[np.ndarray, "batch rows columns anchors channels"]
Outputs = Float[np.ndarray, "batch _ _ _ channels"]  # the raw numbers of one level of several


class Truths(NamedTuple):
    """The objects of each image, padded to a fixed count."""

    boxes: Float32[np.ndarray, "batch truths cxcywh=4"]  # cxcywh relative to the network input, 0..1
    classes: Int64[np.ndarray, "batch truths"]  # from 0
    valid: Bool[np.ndarray, "batch truths"]  # False: padding, whatever the other fields hold


class Object(NamedTuple):
    """One truth that takes part."""

    number: int  # its row in the image
    box: Float32[np.ndarray, "cxcywh=4"]  # cxcywh relative to the network input
    label: int


class Result(NamedTuple):
    """What a loss comes to: the mean over the examples, and its derivatives."""

    value: float
    parts: dict[str, float]  # `box`, `objectness`, `class`: they add up to the value
    gradients: list[Float64[np.ndarray, "batch ..."]]  # of the value by each output, in its shape


class DarknetResult(NamedTuple):
    """The same of a gradient that is written by hand, and what it is made of."""

    value: float
    parts: dict[str, float]
    gradients: list[Float64[np.ndarray, "batch ..."]]
    deltas: list[Float64[np.ndarray, "batch ..."]]  # of each head, Darknet's: minus the gradient, summed over the batch
    costs: list[float]  # of each head, as Darknet prints it, summed over the batch


class Costs(NamedTuple):
    """The parts of one head's cost, summed over the batch."""

    box: float
    objectness: float
    classes: float


def truths_of(truth: Any) -> Truths:
    """`Truths` of anything with the fields boxes, classes and valid."""
    boxes, classes, valid = (np.asarray(part) for part in (truth.boxes, truth.classes, truth.valid))
    return Truths(boxes.astype(np.float32), classes.astype(np.int64), valid.astype(bool))


def taking_part(truths: Truths, image: int, classes: int) -> Iterator[Object]:
    """The truths of an image that are no padding, have an area and a class below `classes`, in their order."""
    for number in np.flatnonzero(truths.valid[image]):
        box, label = truths.boxes[image, number], int(truths.classes[image, number])
        if not np.any(box[2:] <= 0) and 0 <= label < classes:
            yield Object(int(number), box, label)


def cell_of(box: Float32[np.ndarray, "cxcywh=4"], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the centre of a cxcywh box in a grid of (rows, columns) cells.

    The product is rounded to float32, as Darknet's (int)(truth.x * l.w) is. The far border belongs to the last cell.
    """
    rows, columns = grid
    row, column = int(box[1] * np.float32(rows)), int(box[0] * np.float32(columns))
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


def sigmoid(logits: Float[np.ndarray, "*slots"]) -> Float64[np.ndarray, "*slots"]:
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1, small) / (1 + small)


def saturated(probabilities: Float64[np.ndarray, "*slots"]) -> Float64[np.ndarray, "*slots"]:
    """Exactly 0 or 1 where float32 is. A hand-written gradient asks whether what it has written so far is 0."""
    rounded = probabilities.astype(np.float32)
    return np.where((rounded == 0) | (rounded == 1), rounded, probabilities)


def size_factors(logits: Float[np.ndarray, "*slots"]) -> Float64[np.ndarray, "*slots"]:
    """How many times its anchor's a side is."""
    return np.exp(np.minimum(logits.astype(np.float64), LARGEST_SIZE_LOGIT))


def softmax(numbers: Float64[np.ndarray, "*slots classes"]) -> Float64[np.ndarray, "*slots classes"]:
    powers = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def corners(grid: tuple[int, int]) -> Float64[np.ndarray, "rows columns 1 2"]:
    """(column, row) of each cell of a grid of (rows, columns)."""
    row, column = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in grid), indexing="ij")
    return np.stack([column, row], axis=-1)[:, :, np.newaxis]


def relative(anchors: Sequence[tuple[float, float]], size: tuple[int, int]) -> Float64[np.ndarray, "anchors 2"]:
    """(width, height) of anchors as fractions of an input of (height, width) in the anchors' unit."""
    return np.array(anchors, np.float64) / np.array([size[1], size[0]], np.float64)


def table_of(head: AnchorHead, level: AnchorLevel, size: tuple[int, int]) -> Float64[np.ndarray, "all 2"]:
    """Relative (width, height) of all anchors among which a truth of a level finds its best. size: of the input."""
    return relative(head.anchors if level.anchors is None else level.anchors, size)


def anchors_of(head: AnchorHead, level: AnchorLevel, size: tuple[int, int]) -> Float64[np.ndarray, "anchors 2"]:
    """Those of them that the level predicts, in the order of its mask."""
    return table_of(head, level, size)[list(level.mask)]


def of_heads(deltas: Sequence[Float64[np.ndarray, "batch ..."]], costs: Sequence[Costs]) -> DarknetResult:
    """Darknet's cost: the mean over the heads (network.c get_network_cost), here of one example.

    Its gradient is not its derivative: minus the delta of each head, divided by the examples and not by the heads.
    """
    batch, heads = len(deltas[0]), len(deltas)
    box, objectness, classes = (float(sum(part)) / (heads * batch) for part in zip(*costs, strict=True))
    parts = {"box": box, "objectness": objectness, "class": classes}
    gradients = [delta / -batch for delta in deltas]
    return DarknetResult(sum(parts.values()), parts, gradients, list(deltas), [float(sum(cost)) for cost in costs])


def squares(delta: Float64[np.ndarray, "*shape"]) -> float:
    """The sum of the squares of all numbers."""
    return float(np.square(delta).sum())


def in_one_row(
    boxes: Sequence[Float64[np.ndarray, "batch ... cxcywh=4"]],
    scores: Sequence[Float64[np.ndarray, "batch ... classes"]],
) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """cxcywh boxes and scores of all levels, as yxyx boxes and scores by level, row, column, anchor."""
    batch = len(boxes[0])
    x, y, width, height = np.moveaxis(np.concatenate([part.reshape(batch, -1, 4) for part in boxes], axis=1), -1, 0)
    corners_of = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=-1)
    return corners_of, np.concatenate([part.reshape(batch, -1, part.shape[-1]) for part in scores], axis=1)
