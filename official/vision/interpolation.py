"""How an image gets another size: three rules of bilinear interpolation, by the names that the protocol knows them by.

    bilinear        half-pixel centres, rounded once to whole levels
    opencv          the same in OpenCV's integers: cv2.resize(..., INTER_LINEAR) of uint8 pixels, bit for bit
    align_corners   Darknet's own resize_image: the corner pixels of both images coincide, levels are not rounded

None smooths before it shrinks. They differ by at most about one level (bilinear, opencv), or by how far the sampling
points lie apart (align_corners: up to half a pixel of the image). Sizes may be unknown until run time.
"""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8

_STEPS = 2048  # OpenCV's weights are whole numbers of this (INTER_RESIZE_COEF_SCALE)

Pixels = UInt8[tf.Tensor, "H W c"] | Float32[tf.Tensor, "H W c"]


def bilinear(image: UInt8[tf.Tensor, "h w c"], size: Int32[tf.Tensor, "2"]) -> UInt8[tf.Tensor, "H W c"]:
    """Half-pixel centres in float32, rounded to whole levels, halves to even."""
    resized = tf.image.resize(image, size, method="bilinear", antialias=False)  # float32 [H, W, c]
    return tf.cast(tf.round(resized), tf.uint8)


def opencv(image: UInt8[tf.Tensor, "h w c"], size: Int32[tf.Tensor, "2"]) -> UInt8[tf.Tensor, "H W c"]:
    """cv2.resize(image, interpolation=INTER_LINEAR) on uint8: weights in 1/2048, cut off twice, rounded at the end.

    Columns first. Source: OpenCV's modules/imgproc/src/resize.cpp (hal::resize, VResizeLinear for uchar).
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    column, right = _half_pixel_positions(width, size[1])
    # Beyond the outermost pixels' centres a column is that pixel; a row (below) is blended with itself, which differs
    # by the bits that each product loses.
    outside = (column < 0) | (column >= width - 1)
    columns, right = tf.clip_by_value(column, 0, width - 1), tf.where(outside, 0.0, right)
    left_weight, right_weight = (weight[:, tf.newaxis] for weight in _whole_weights(right))  # [W, 1]
    levels = tf.cast(image, tf.int32)
    wide = tf.gather(levels, columns, axis=1) * left_weight
    wide += tf.gather(levels, tf.minimum(columns + 1, width - 1), axis=1) * right_weight  # [h, W, c]
    wide = tf.bitwise.right_shift(wide, 4)

    row, lower = _half_pixel_positions(height, size[0])
    weights = _whole_weights(lower)
    total = tf.constant(2)
    for rows, weight in zip((row, row + 1), weights, strict=True):
        product = tf.gather(wide, tf.clip_by_value(rows, 0, height - 1)) * weight[:, tf.newaxis, tf.newaxis]
        total += tf.bitwise.right_shift(product, 16)  # [H, W, c]
    return tf.cast(tf.bitwise.right_shift(total, 2), tf.uint8)


def align_corners(image: UInt8[tf.Tensor, "h w c"], size: Int32[tf.Tensor, "2"]) -> Float32[tf.Tensor, "H W c"]:
    """Levels 0..255, not rounded, by Darknet's image.c resize_image, with its float32 operations in its order.

    So with its flaw, too: where the last row's position rounds to just below the image's last row, in one of twenty
    pairs of heights, that row comes out black. A target of one column is the last column, of one row the first.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    levels = tf.cast(image, tf.float32)
    columns, right = _corner_positions(width, size[1])
    last = tf.range(size[1]) == size[1] - 1
    columns, right = tf.where(last, width - 1, columns), tf.where(last, 0.0, right)[:, tf.newaxis]  # [W], [W, 1]
    beside = tf.gather(levels, tf.minimum(columns + 1, width - 1), axis=1)
    wide = (1.0 - right) * tf.gather(levels, columns, axis=1) + right * beside  # [h, W, c]

    rows, lower = _corner_positions(height, size[0])
    last = tf.range(size[0]) == size[0] - 1
    upper, lower = (part[:, tf.newaxis, tf.newaxis] for part in (1.0 - lower, tf.where(last, 0.0, lower)))  # [H, 1, 1]
    below = tf.gather(wide, tf.minimum(rows + 1, height - 1))
    return upper * tf.gather(wide, rows) + lower * below  # [H, W, c]


INTERPOLATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], Pixels]] = {
    "bilinear": bilinear,
    "opencv": opencv,
    "align_corners": align_corners,
}
UNROUNDED = frozenset({"align_corners"})  # those that give float32 levels, all others uint8


def _half_pixel_positions(
    source: Int32[tf.Tensor, ""], target: Int32[tf.Tensor, ""]
) -> tuple[Int32[tf.Tensor, " n"], Float32[tf.Tensor, " n"]]:
    """Of each target pixel: the source pixel at or before its centre (-1: before the first), and how far beyond it."""
    # In float64 and by way of the inverse, as OpenCV does, then rounded once.
    scale = 1.0 / (tf.cast(target, tf.float64) / tf.cast(source, tf.float64))
    position = tf.cast((tf.range(target, dtype=tf.float64) + 0.5) * scale - 0.5, tf.float32)
    before = tf.floor(position)
    return tf.cast(before, tf.int32), position - before


def _whole_weights(share: Float32[tf.Tensor, " n"]) -> tuple[Int32[tf.Tensor, " n"], Int32[tf.Tensor, " n"]]:
    """Of the pixel before and the one behind, in 1/2048, halves rounded to even."""
    return tf.cast(tf.round((1.0 - share) * _STEPS), tf.int32), tf.cast(tf.round(share * _STEPS), tf.int32)


def _corner_positions(
    source: Int32[tf.Tensor, ""], target: Int32[tf.Tensor, ""]
) -> tuple[Int32[tf.Tensor, " n"], Float32[tf.Tensor, " n"]]:
    """Of each target pixel: the source pixel at or before it, and how far beyond that it lies."""
    scale = tf.cast(source - 1, tf.float32) / tf.cast(tf.maximum(target - 1, 1), tf.float32)
    position = tf.range(target, dtype=tf.float32) * scale
    before = tf.cast(position, tf.int32)
    return before, position - tf.cast(before, tf.float32)
