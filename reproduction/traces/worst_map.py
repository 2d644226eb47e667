"""The place where two arrays differ most, as a small picture of numbers that can be stored and drawn later."""

import math

import numpy as np

from reproduction.traces.compare import Numbers, Stored

SIDE = 64  # rows and columns of a picture at most
Grid = tuple[tuple[float, ...], ...]


class Maps(Stored):
    """One map [rows, columns] of both arrays. Of larger ones the element of each block that differs most is kept."""

    where: str
    block: int
    ours: Grid
    expected: Grid


def worst_map(ours: Numbers, expected: Numbers, layout: str = "") -> Maps | None:
    """The map with the largest difference of two arrays of the same shape; None where they have no rows and columns.

    layout: a letter for each axis, H and W among them. By default the last two axes are rows and columns.
    """
    a, b = (np.asarray(values, np.float64) for values in (ours, expected))
    if a.shape != b.shape or a.ndim < 3:
        return None
    rows, columns = (layout.index(axis) for axis in "HW") if {"H", "W"} <= set(layout) else (a.ndim - 2, a.ndim - 1)
    a, b = (np.moveaxis(values, [rows, columns], [-2, -1]) for values in (a, b))
    if min(a.shape[-2:]) < 2:
        return None
    difference = np.nan_to_num(np.abs(a - b), nan=np.inf)
    index = np.unravel_index(int(np.argmax(difference)), difference.shape)[:-2]
    block = math.ceil(max(a.shape[-2:]) / SIDE)
    picked = _picked(difference[index], block)
    others = ", ".join(str(int(number)) for number in index)
    grids = (tuple(tuple(_short(value) for value in row) for row in values[index][picked]) for values in (a, b))
    return Maps(where=f"[{others}, :, :]", block=block, **dict(zip(("ours", "expected"), grids, strict=True)))


def _picked(difference: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the largest element of each block x block, [rows / block, columns / block] each."""
    height, width = difference.shape
    down, across = math.ceil(height / block), math.ceil(width / block)
    padded = np.full((down * block, across * block), -1.0)
    padded[:height, :width] = difference
    blocks = padded.reshape(down, block, across, block).swapaxes(1, 2).reshape(down, across, -1)
    best = np.argmax(blocks, axis=-1)
    row = np.arange(down)[:, np.newaxis] * block + best // block
    return row, np.arange(across) * block + best % block


def _short(value: float) -> float:
    return float(f"{value:.5g}")
