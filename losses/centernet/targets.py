"""What a CenterNet should predict, drawn on the accelerator from padded boxes.

Boxes of a `Truth` are xyxy in output pixels, after flip and affine map; clipped or not.

The rules (CenterNet lib/datasets/sample/ctdet.py CTDetDataset.__getitem__), in static shapes and for all images at
once:
- A box is clipped to the output map first: one that is cut by the border has the centre and the size of what is left.
- A box left without width or height keeps its row, all zeros: rows are not compacted.
- Its centre, truncated to a cell, is the peak of a Gaussian in the map of its class; where Gaussians meet, the larger
  value stays. Two objects of one class may so share a peak, and are still two rows.
- Size and offset are asked for at the centre's cell, or, dense, the size wherever the object was drawn.

Everything is computed inside the step, without gradient. Rows that are not valid have indices in range. A valid row
with NaN is not hidden: its cell is in range and its size and offset are NaN.
"""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

from losses.centernet.gaussian import draw_heatmap, draw_size, gaussian_radius
from losses.truth import Truth
from official.core.expect import expect_fields


class Objects(NamedTuple):
    """The truths on the output map; all fields are 0 where `mask` is False. Names are the original's."""

    wh: Float32[tf.Tensor, "batch truths 2"]  # (width, height) in output pixels
    reg: Float32[tf.Tensor, "batch truths 2"]  # (x, y) of the centre minus its cell, 0 <= reg < 1
    ct_int: Int32[tf.Tensor, "batch truths 2"]  # (column, row) of the centre's cell, in range
    radius: Int32[tf.Tensor, "batch truths"]  # of the Gaussian, in cells
    classes: Int32[tf.Tensor, "batch truths"]
    mask: Bool[tf.Tensor, "batch truths"]  # whether this row is an object


class Targets(NamedTuple):
    """What the heads should predict. Names are the original's."""

    hm: Float32[tf.Tensor, "batch rows columns classes"]  # 0..1, exactly 1 in the cell of a centre and nowhere else
    wh: Float32[tf.Tensor, "batch truths 2"]
    reg: Float32[tf.Tensor, "batch truths 2"]
    ind: Int32[tf.Tensor, "batch truths"]  # row * columns + column of the centre; 0 where there is no object
    reg_mask: Bool[tf.Tensor, "batch truths"]
    classes: Int32[tf.Tensor, "batch truths"]


class DenseSize(NamedTuple):
    """What the size head should predict with `dense_wh`."""

    wh: Float32[tf.Tensor, "batch rows columns 2"]  # 0 where nothing was drawn
    mask: Float32[tf.Tensor, "batch rows columns"]  # weight of the cell: the maximum of its heatmaps


def check_truth(truth: Truth, batch: int | None) -> None:
    """Raises a TensorError of a truth that is no `Truth` of as many images."""
    meanings = {
        "boxes": "xyxy in output pixels (of the maps, not of the input)",
        "classes": "contiguous ids from 0",
        "valid": "False for padding",
    }
    expect_fields("labels", truth, Truth, meanings, {"batch": batch})


def place(truth: Truth, grid: tuple[int, int], num_classes: int) -> Objects:
    """The truths on an output map of `grid` = (rows, columns). The arithmetic is float32, as the original's."""
    rows, columns = grid
    boxes = tf.where(truth.valid[..., tf.newaxis], truth.boxes, 0.0)
    boxes = tf.clip_by_value(boxes, 0.0, tf.constant([columns - 1, rows - 1] * 2, tf.float32))
    corner, far_corner = boxes[..., :2], boxes[..., 2:]
    wh = far_corner - corner
    mask = truth.valid & ~tf.reduce_any(wh <= 0, axis=-1)  # [batch, truths]; NaN stays
    centre = tf.where(mask[..., tf.newaxis], (corner + far_corner) / 2, 0.0)
    wh = tf.where(mask[..., tf.newaxis], wh, 0.0)
    ct_int = tf.clip_by_value(tf.cast(centre, tf.int32), 0, [columns - 1, rows - 1])
    whole = tf.clip_by_value(tf.cast(tf.math.ceil(wh), tf.int32), 0, [columns, rows])
    return Objects(
        wh=wh,
        reg=centre - tf.cast(ct_int, tf.float32),
        ct_int=ct_int,
        radius=gaussian_radius(height=whole[..., 1], width=whole[..., 0]),
        classes=tf.where(mask, tf.clip_by_value(truth.classes, 0, num_classes - 1), 0),
        mask=mask,
    )


def assign(objects: Objects, grid: tuple[int, int], num_classes: int) -> Targets:
    """Targets of the heatmap, size and offset heads on a map of `grid` = (rows, columns)."""
    hm = draw_heatmap(objects.ct_int, objects.radius, objects.classes, objects.mask, grid, num_classes)
    ind = objects.ct_int[..., 1] * grid[1] + objects.ct_int[..., 0]
    return Targets(hm, objects.wh, objects.reg, ind, objects.mask, objects.classes)


def assign_dense_size(objects: Objects, grid: tuple[int, int]) -> DenseSize:
    """Targets of the size head with `dense_wh` on a map of `grid` = (rows, columns)."""
    return DenseSize(*draw_size(objects.ct_int, objects.radius, objects.wh, objects.mask, grid))
