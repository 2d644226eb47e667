"""Gaussians on heatmaps, for a whole batch at once: radius, heatmaps by class, dense sizes (CenterNet utils/image.py).

A heatmap is large, [batch, rows, columns, classes], and almost empty. It is drawn from planes [batch, boxes, rows,
columns], one for each box, which one scatter lays into the plane of the box's class with a maximum. The work is that of
the boxes, not boxes times classes, and there is never a tensor with both axes. A Gaussian cut to a square window is the
outer product of two cut rows; the original's other truncation, below the float64 epsilon, never strikes inside the
window (its smallest value is e^-9), so the planes cost one multiplication a cell.
"""

import math

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

BOXES_AT_ONCE = 32  # bounds the memory of the planes: 0.4 of the heatmap's with 80 classes

Centres = Int32[tf.Tensor, "batch boxes 2"]  # (column, row), in range
Radii = Int32[tf.Tensor, "batch boxes"]  # in cells, not negative
Mask = Bool[tf.Tensor, "batch boxes"]


def gaussian_radius(height: Int32[tf.Tensor, "*any"], width: Int32[tf.Tensor, "*any"]) -> Int32[tf.Tensor, "*any"]:
    """The original's radius, truncated, of boxes with whole sizes in cells (CenterNet gaussian_radius, overlap 0.7).

    The original takes the least of three roots, all of them of wrong formulas: it is 3.4 to 4 times what IoU 0.7
    allows. The least is always the third, (-1.4 s + sqrt(1.96 s^2 + 3.36 p)) / 2 with s = height + width, p = height *
    width. Its whole part is settled in whole numbers, r <= root <=> 25 r^2 + 35 r s <= 21 p, so it does not hang on a
    device's square root. It equals the original's float64 for all sizes with a side below 845 (beyond, float64 falls
    one short where the root is a whole number: 14 of the four million sizes up to 2048). Sizes above 8000 overflow.
    """
    total, area = height + width, height * width
    s, p = tf.cast(total, tf.float32), tf.cast(area, tf.float32)
    near = tf.cast((tf.sqrt(1.96 * s * s + 3.36 * p) - 1.4 * s) / 2 + 0.5, tf.int32)  # the root's whole part, or 1 more
    return tf.where(25 * near * near + 35 * near * total <= 21 * area, near, near - 1)


def draw_heatmap(
    centres: Centres,
    radii: Radii,
    classes: Int32[tf.Tensor, "batch boxes"],
    mask: Mask,
    grid: tuple[int, int],
    num_classes: int,
) -> Float32[tf.Tensor, "batch rows columns classes"]:
    """A Gaussian of height 1 for each box in the map of its class, the larger where they meet.

    Its deviation is (2 radius + 1) / 6 cells, and it is 0 outside the square of 2 radius + 1 cells (CenterNet
    draw_umich_gaussian). Boxes whose mask is False draw nothing; their classes too must be in range.
    """
    (batch, boxes), (rows, columns) = mask.shape, grid
    across = cut_gaussian(centres[..., 0], radii, columns)  # [batch, boxes, columns]
    down = tf.where(mask[..., tf.newaxis], cut_gaussian(centres[..., 1], radii, rows), 0.0)  # [batch, boxes, rows]
    plane_of = tf.range(batch)[:, tf.newaxis] * num_classes + classes  # [batch, boxes]
    some = min(boxes, BOXES_AT_ONCE)

    def draw_some(start: tf.Tensor, heatmaps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows_of = tf.minimum(start, boxes - some) + tf.range(some)  # the last ones may be drawn twice: it is a maximum
        down_, across_, plane = (tf.gather(part, rows_of, axis=1) for part in (down, across, plane_of))
        planes = down_[..., tf.newaxis] * across_[:, :, tf.newaxis]  # [batch, some, rows, columns]
        planes = tf.reshape(planes, [batch * some, rows, columns])
        return start + some, tf.tensor_scatter_nd_max(heatmaps, tf.reshape(plane, [-1, 1]), planes)

    # A loop, one part after the other: at once, the planes of all parts would be held.
    start = (tf.constant(0), tf.zeros([batch * num_classes, rows, columns]))
    _, heatmaps = tf.while_loop(
        lambda start, _: start < boxes, draw_some, start, maximum_iterations=-(-boxes // some), parallel_iterations=1
    )
    heatmaps = tf.reshape(heatmaps, [batch, num_classes, rows, columns])
    return tf.transpose(heatmaps, [0, 2, 3, 1])  # [batch, rows, columns, classes]


def cut_gaussian(
    centre: Int32[tf.Tensor, "batch boxes"], radius: Radii, cells: int
) -> Float32[tf.Tensor, "batch boxes {cells}"]:
    """One axis of the Gaussians, [batch, boxes, cells]; exactly 1 at the centre, whatever a device's exp makes of 0."""
    distance = tf.range(cells) - centre[..., tf.newaxis]  # [batch, boxes, cells]
    value = tf.where(distance == 0, 1.0, tf.exp(-_exponent(distance * distance, radius[..., tf.newaxis])))
    return tf.where(tf.abs(distance) <= radius[..., tf.newaxis], value, 0.0)


def _exponent(squared_distance: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """distance^2 / (2 deviation^2) with deviation = (2 radius + 1) / 6."""
    diameter = tf.cast(2 * radius + 1, tf.float32)
    return tf.cast(squared_distance, tf.float32) * (18.0 / (diameter * diameter))


def draw_size(
    centres: Centres, radii: Radii, sizes: Float32[tf.Tensor, "batch boxes 2"], mask: Mask, grid: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "batch rows columns 2"], Float32[tf.Tensor, "batch rows columns"]]:
    """Each box's size where its Gaussian is the largest so far, box after box; and the maximum of all Gaussians.

    The original (CenterNet draw_dense_reg) compares its float64 Gaussian with that maximum, which holds the same number
    rounded to float32: a box writes its size only where rounding did not raise it, in about every other cell, and there
    a later box of equal value takes the place of an earlier one. A table made on the host says where.
    Radii must be those of boxes that fit on the grid.
    """
    (batch, boxes), (rows, columns) = mask.shape, grid
    kept = tf.constant(_not_rounded_up(*grid))  # [radii, squared distances]
    row, column = tf.range(rows)[:, tf.newaxis], tf.range(columns)

    def write(index: tf.Tensor, sizes_so_far: tf.Tensor, least: tf.Tensor) -> tuple[tf.Tensor, ...]:
        x, y, radius = (
            part[:, tf.newaxis, tf.newaxis] for part in (centres[:, index, 0], centres[:, index, 1], radii[:, index])
        )
        inside = (tf.abs(row - y) <= radius) & (tf.abs(column - x) <= radius) & mask[:, index, tf.newaxis, tf.newaxis]
        squared = tf.where(inside, tf.square(row - y) + tf.square(column - x), 0)  # [batch, rows, columns]
        exponent = tf.where(inside, _exponent(squared, radius), np.inf)
        not_rounded_up = tf.gather(tf.gather(kept, radii[:, index]), squared, batch_dims=1)
        writes = inside & (exponent <= least) & not_rounded_up
        size = sizes[:, index, tf.newaxis, tf.newaxis]  # [batch, 1, 1, 2]
        return index + 1, tf.where(writes[..., tf.newaxis], size, sizes_so_far), tf.minimum(least, exponent)

    start = (tf.constant(0), tf.zeros([batch, rows, columns, 2]), tf.fill([batch, rows, columns], np.float32(np.inf)))
    _, drawn, least = tf.while_loop(
        lambda index, *_: index < boxes, write, start, maximum_iterations=boxes, parallel_iterations=1
    )
    return drawn, tf.exp(-least)


def _not_rounded_up(rows: int, columns: int) -> np.ndarray:
    """Whether the Gaussian in float64 is at least its float32, by radius and squared distance; bool."""
    total, area = rows + columns, rows * columns
    largest = int((math.sqrt(1.96 * total**2 + 3.36 * area) - 1.4 * total) / 2)
    sigma = (2 * np.arange(largest + 1)[:, np.newaxis] + 1) / 6
    exact = np.exp(-np.arange(2.0 * largest**2 + 1) / (2 * sigma * sigma))  # [radii, squared distances]
    return exact >= exact.astype(np.float32)
