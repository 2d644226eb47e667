"""CenterNet's targets, loss with its gradients, and decoding, in NumPy, box by box.

Sources: CenterNet lib/datasets/sample/ctdet.py, lib/utils/image.py, lib/trains/ctdet.py, lib/models/losses.py,
lib/models/decode.py. Targets are float32, as the original's are: what is drawn twice is compared after that rounding.
Losses and gradients are float64. Maps are [batch, rows, columns, channels].
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from configs.centernet.task import CenterNetHead, CenterNetLoss

OVERLAP = 0.7
LEAST, SMALL = 1e-4, 1e-4  # the clamp of probabilities; what normalisers have added


class Targets(NamedTuple):
    """What the heads should predict; names are the original's. Rows without an object are 0."""

    hm: Float32[np.ndarray, "batch rows columns classes"]
    wh: Float32[np.ndarray, "batch truths 2"]  # width, height in output pixels
    reg: Float32[np.ndarray, "batch truths 2"]  # x, y of the centre in its cell
    ind: Int64[np.ndarray, "batch truths"]  # row * columns + column of the centre
    reg_mask: Bool[np.ndarray, "batch truths"]
    classes: Int64[np.ndarray, "batch truths"]
    radius: Int64[np.ndarray, "batch truths"]
    dense_wh: Float32[np.ndarray, "batch rows columns 2"]  # with loss.dense_wh what the size map is for


Radius = Callable[[float, float], float]
Maps = Float[np.ndarray, "batch rows columns _"]
Gradient = Float64[np.ndarray, "batch rows columns _"]


def radius(height: float, width: float, overlap: float = OVERLAP) -> float:
    """The Gaussian's radius of a box in cells: the least of three roots of (b + root) / 2, as the original has them."""
    return min((b + root) / 2 for _, b, root in quadratics(height, width, overlap))


def quadratics(height: float, width: float, overlap: float = OVERLAP) -> list[tuple[float, float, float]]:
    """(a, b, root of the discriminant) of the three ways in which two boxes of one size overlap by so much."""
    total, area = height + width, height * width
    terms = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    return [(a, b, math.sqrt(b * b - 4 * a * c)) for a, b, c in terms]


def whole_radius(height: float, width: float, rule: Radius = radius) -> int:
    """That which is drawn: of whole sides, and rounded down."""
    return max(0, int(rule(float(np.ceil(height)), float(np.ceil(width)))))


def targets(
    boxes: Float[np.ndarray, "batch truths xyxy=4"],
    classes: Int[np.ndarray, "batch truths"],
    valid: Bool[np.ndarray, "batch truths"],
    grid: tuple[int, int],
    num_classes: int,
    rule: Radius = radius,
) -> Targets:
    """What the heads should predict for these objects; rows that are not valid are not looked at.

    boxes: xyxy in output pixels, clipped to the map of `grid` = (rows, columns) first. One that is left without width
    or height leaves its row empty. rule: gives a Gaussian's radius by the height and width of its box.
    """
    rows, columns = grid
    batch, truths = valid.shape
    pair, number = np.zeros((batch, truths, 2), np.float32), np.zeros((batch, truths), np.int64)
    made = Targets(
        np.zeros((batch, rows, columns, num_classes), np.float32), pair, pair.copy(), number, np.zeros_like(valid),
        number.copy(), number.copy(), np.zeros((batch, rows, columns, 2), np.float32),
    )  # fmt: skip
    for image, row in np.argwhere(valid).tolist():
        box = clipped(boxes[image, row], grid)
        wide, high = box[2:] - box[:2]
        if wide > 0 and high > 0:
            add(made, (image, row), box, int(classes[image, row]), whole_radius(float(high), float(wide), rule))
    return made


def clipped(box: Float[np.ndarray, "xyxy=4"], grid: tuple[int, int]) -> Float32[np.ndarray, "xyxy=4"]:
    """A box xyxy within the map of (rows, columns)."""
    return np.clip(box.astype(np.float32), 0, np.array([grid[1] - 1, grid[0] - 1] * 2, np.float32))


def add(made: Targets, place: tuple[int, int], box: Float32[np.ndarray, "xyxy=4"], kind: int, around: int) -> None:
    """Writes an object of this class and radius. place: (image, row); box: xyxy, clipped."""
    image, grid = place[0], made.hm.shape[1:3]
    sides, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
    x, y = centre.astype(int).tolist()
    window, gaussian = _gaussian((y, x), around, grid)
    np.maximum(made.hm[image][(*window, kind)], gaussian, out=made.hm[image][(*window, kind)], casting="same_kind")
    drawn = gaussian >= made.hm[image][window].max(axis=-1)  # float64 beside its float32
    made.dense_wh[image][window][drawn] = sides
    made.wh[place], made.reg[place], made.ind[place] = sides, centre - [x, y], y * grid[1] + x
    made.reg_mask[place], made.classes[place], made.radius[place] = True, kind, around


def _gaussian(cell: tuple[int, int], around: int, grid: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of a map that a Gaussian of this radius covers, and its values there, 1 in `cell` = (row, column)."""
    window = tuple(slice(max(at - around, 0), min(at + around + 1, side)) for at, side in zip(cell, grid, strict=True))
    down, across = (np.arange(part.start, part.stop) - at for part, at in zip(window, cell, strict=True))
    sigma = (2 * around + 1) / 6
    return window, np.exp(-(down[:, np.newaxis] ** 2 + across**2) / (2 * sigma * sigma))


def loss(
    outputs: Sequence[Maps], truth: Targets, head: CenterNetHead, config: CenterNetLoss
) -> tuple[float, dict[str, float], list[Gradient]]:
    """The loss, its parts before their weights (each the mean over stacks), and the gradient by every map.

    outputs: hm (logits), wh and, with reg_offset, reg of each stack.
    """
    count = 3 if head.reg_offset else 2
    stacks = [[np.asarray(part, np.float64) for part in outputs[n : n + count]] for n in range(0, len(outputs), count)]
    names = (("hm_loss", config.hm_weight), ("wh_loss", config.wh_weight), ("off_loss", config.off_weight))[:count]
    parts, gradients = dict.fromkeys((name for name, _ in names), 0.0), []
    for stack in stacks:
        losses = [focal_loss(stack[0], truth.hm), _size_loss(stack[1], truth, head, config)]
        if head.reg_offset:
            losses.append(_at_centres(stack[2], truth.reg, truth, np.zeros_like(truth.classes), config.reg_loss))
        for (name, weight), (value, gradient) in zip(names, losses, strict=True):
            parts[name] += value / len(stacks)
            gradients.append(gradient * (weight / len(stacks)))
    total = sum(weight * parts[name] for name, weight in names)
    return float(total), parts | {"objects": float(truth.reg_mask.sum() / len(truth.reg_mask))}, gradients


def focal_loss(
    logits: Float64[np.ndarray, "batch rows columns classes"], hm: Float32[np.ndarray, "batch rows columns classes"]
) -> tuple[float, Float64[np.ndarray, "batch rows columns classes"]]:
    """_neg_loss and its gradient: (1 - p)^2 log p where hm is 1, else p^2 (1 - hm)^4 log(1 - p), over minus the ones.

    p is kept within 1e-4 .. 1 - 1e-4, and has no gradient where it was beyond.
    """
    right = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    p = np.clip(right, LEAST, 1 - LEAST)
    weight = np.square(np.square(1 - hm.astype(np.float64)))  # 0 where hm is 1
    log_other = np.log(1 - p)
    squared = p * p * weight
    cells, slopes = log_other * squared, squared * (2 * (1 - p) * log_other - p)
    positive = np.nonzero(hm == 1)
    one = p[positive]
    cells[positive] = np.log(one) * (1 - one) ** 2
    slopes[positive] = (1 - one) ** 3 - 2 * one * (1 - one) ** 2 * np.log(one)
    count = max(len(one), 1)
    return float(-cells.sum() / count), np.where(right == p, -slopes / count, 0.0)


def _size_loss(maps: Gradient, truth: Targets, head: CenterNetHead, config: CenterNetLoss) -> tuple[float, Gradient]:
    if config.dense_wh:
        weight = truth.hm.max(axis=-1, keepdims=True).astype(np.float64)
        errors = maps * weight - truth.dense_wh * weight
        normaliser = 2 * weight.sum() + SMALL
        return float(np.abs(errors).sum() / normaliser), np.sign(errors) * weight / normaliser
    if head.cat_spec_wh:  # the original has no other loss here
        return _at_centres(maps, truth.wh, truth, truth.classes, "l1")
    return _at_centres(maps, truth.wh, truth, np.zeros_like(truth.classes), config.reg_loss)


def _at_centres(
    maps: Gradient, true: np.ndarray, truth: Targets, pair: np.ndarray, kind: str
) -> tuple[float, Gradient]:
    """RegL1Loss over the numbers, or RegLoss (smooth L1) over the objects, and the gradient by the map.

    pair: which pair of channels counts for each truth. Objects that share a cell add up there.
    """
    gradient = np.zeros_like(maps)
    objects = truth.reg_mask.sum()
    normaliser = (2 * objects if kind == "l1" else objects) + SMALL
    total = 0.0
    for image, row in np.argwhere(truth.reg_mask):
        y, x = divmod(int(truth.ind[image, row]), maps.shape[2])
        channels = 2 * pair[image, row] + np.arange(2)
        error = maps[image, y, x, channels] - true[image, row]
        size, slope = np.abs(error), np.sign(error)
        if kind == "sl1":
            size, slope = np.where(size < 1, size**2 / 2, size - 0.5), np.clip(error, -1, 1)
        total += size.sum()
        gradient[image, y, x, channels] += slope / normaliser
    return float(total / normaliser), gradient


def decode(
    heat: Float[np.ndarray, "batch rows columns classes"],
    wh: Float[np.ndarray, "batch rows columns sizes"],
    reg: Float[np.ndarray, "batch rows columns 2"] | None,
    most: int,
) -> tuple[Float64[np.ndarray, "batch peaks yxyx=4"], Float64[np.ndarray, "batch peaks classes"]]:
    """The `most` best peaks: boxes yxyx relative to the map, and scores, 0 but for the peak's own class.

    A peak is a cell that is no less than its eight neighbours. Equal scores are ordered by class, then row, then
    column; where there are fewer peaks, other cells follow with score 0.

    heat: probabilities, 0..1. wh: width and height in cells, for all classes or a pair for each. reg: x and y of the
    centre in its cell; None: its middle.
    """
    batch, rows, columns, classes = heat.shape
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    around = [padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    peaks = np.where(heat >= np.max(around, axis=0), heat, 0)
    ranked = np.moveaxis(peaks, 3, 1).reshape(batch, -1)  # class by class, row by row
    order = np.argsort(-ranked, axis=1, kind="stable")[:, : min(most, classes * min(most, rows * columns))]
    boxes, scores = np.zeros((*order.shape, 4)), np.zeros((*order.shape, classes))
    for image, row in np.ndindex(order.shape):
        kind, cell = divmod(int(order[image, row]), rows * columns)
        y, x = divmod(cell, columns)
        first = 2 * kind if wh.shape[3] > 2 else 0
        wide, high = wh[image, y, x, first : first + 2].astype(np.float64)
        off_x, off_y = (0.5, 0.5) if reg is None else reg[image, y, x].astype(np.float64)
        box = y + off_y - high / 2, x + off_x - wide / 2, y + off_y + high / 2, x + off_x + wide / 2
        boxes[image, row] = np.array(box) / [rows, columns, rows, columns]
        scores[image, row, kind] = ranked[image, order[image, row]]
    return boxes, scores
