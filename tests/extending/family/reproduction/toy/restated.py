"""The toy's formulas once more, in float64 NumPy."""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32, UInt8

from configs.data import DarknetAugmentation
from reproduction.seeded.family import Stated

Raw = Float[np.ndarray, "batch rows columns entries"]
Boxes = Float[np.ndarray, "batch truths cxcywh=4"]  # cxcywh relative to the input
Classes = Int32[np.ndarray, "batch truths"]
Valid = Bool[np.ndarray, "batch truths"]


def sigmoid(raw: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return 1 / (1 + np.exp(-np.asarray(raw, float)))


def loss(raw: Raw, boxes: Boxes, classes: Classes, valid: Valid, box_weight: float) -> Stated:
    """Value, parts and gradient of the mean over the examples, truth by truth."""
    count, rows, columns, _ = raw.shape
    found = sigmoid(raw)
    wanted = np.zeros(found[..., 4:].shape)
    off, taken = np.zeros(found[..., :4].shape), np.zeros(found.shape[:3], bool)
    for image, number in np.argwhere(valid):
        cx, cy, width, height = boxes[image, number].astype(float)
        column, row = min(int(cx * columns), columns - 1), min(int(cy * rows), rows - 1)
        if taken[image, row, column]:
            continue
        taken[image, row, column] = True
        wanted[image, row, column, classes[image, number]] = 1
        target = np.array([cx * columns - column, cy * rows - row, width, height])
        off[image, row, column] = found[image, row, column, :4] - target
    score, box = found[..., 4:], found[..., :4]
    logits = raw[..., 4:].astype(float)
    entropy = np.logaddexp(0, logits) - wanted * logits
    parts = {"box": box_weight * np.square(off).sum() / count, "score": entropy.sum() / count}
    by_box = 2 * box_weight * off * box * (1 - box) / count
    gradient = np.concatenate([by_box, (score - wanted) / count], axis=-1)
    return Stated(parts["box"] + parts["score"], parts, [gradient])


def decode(raw: Raw) -> tuple[Float64[np.ndarray, "batch boxes yxyx=4"], Float64[np.ndarray, "batch boxes classes"]]:
    """Boxes yxyx relative to the input, and scores, cell by cell."""
    count, rows, columns, _ = raw.shape
    found = sigmoid(raw)
    boxes = np.zeros((count, rows, columns, 4))
    for row in range(rows):
        for column in range(columns):
            x, y, width, height = np.moveaxis(found[:, row, column, :4], -1, 0)
            cx, cy = (column + x) / columns, (row + y) / rows
            edges = [cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2]
            boxes[:, row, column] = np.stack(edges, axis=-1)
    return boxes.reshape(count, -1, 4), found[..., 4:].reshape(count, rows * columns, -1)


def inputs(
    image: UInt8[np.ndarray, "batch height width 3"], boxes: Boxes, valid: Valid, flip: Bool[np.ndarray, " batch"]
) -> tuple[Float64[np.ndarray, "batch height width 3"], Boxes]:
    """Pixels RGB 0..1 and boxes, mirrored where drawn."""
    pixels, moved = image / 255.0, boxes.copy()
    for number in np.flatnonzero(flip):
        pixels[number] = pixels[number, :, ::-1]
        moved[number, valid[number], 0] = 1 - boxes[number, valid[number], 0]
    return pixels, moved


def drawn(
    config: DarknetAugmentation, size: tuple[int, int], rng: np.random.Generator, count: int
) -> dict[str, Bool[np.ndarray, " count"]]:
    """What the accelerator applies: a fair coin."""
    return {"flip": config.flip & (rng.random(count) < 0.5)}
