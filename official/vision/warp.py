"""Scales and shifts an image into another canvas, zeros around it: cv2.warpAffine for maps without rotation.

A map takes pixel (y, x) of the image to scale * (y, x) + offset of the canvas, both counted at the pixels' centres, as
OpenCV counts them. Beyond its outermost centres an image fades into the zeros over one pixel.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float64, UInt8

_STEPS = 32  # OpenCV samples at whole numbers of this part of a pixel (INTER_TAB_SIZE) ...
_FINER_STEPS = 1024  # ... which it finds from whole numbers of this one (AB_SCALE)


class Map(NamedTuple):
    """canvas = scale * image + offset, in pixels at their centres."""

    scale: Float64[tf.Tensor, "2"]  # (y, x)
    offset: Float64[tf.Tensor, "2"]


def warp_bilinear(image: UInt8[tf.Tensor, "h w c"], where: Map, size: tuple[int, int]) -> UInt8[tf.Tensor, "H W c"]:
    """Bilinear in float32, without smoothing, rounded to whole levels."""
    framed = tf.pad(image, [[1, 1], [1, 1], [0, 0]])  # what an outermost pixel blends with
    scale = tf.cast(where.scale, tf.float32)
    # ScaleAndTranslate counts from the pixels' upper left corners.
    shift = tf.cast(where.offset + 0.5 - 1.5 * where.scale, tf.float32)
    warped = tf.raw_ops.ScaleAndTranslate(
        images=framed[tf.newaxis], size=size, scale=scale, translation=shift, kernel_type="triangle", antialias=False
    )[0]  # float32 [H, W, c]
    return tf.cast(tf.round(warped), tf.uint8)


def warp_opencv(image: UInt8[tf.Tensor, "h w c"], where: Map, size: tuple[int, int]) -> UInt8[tf.Tensor, "H W c"]:
    """The same in OpenCV's integers: cv2.warpAffine(..., INTER_LINEAR) of uint8 pixels, bit for bit up to 4.12.

    Positions are cut to 1/32 of a pixel, and the four weights are exact in 1/1024. Source: OpenCV's
    modules/imgproc/src/imgwarp.cpp (WarpAffineInvoker, remapBilinear).
    """
    framed = tf.pad(tf.cast(image, tf.int32), [[1, 1], [1, 1], [0, 0]])
    sides = tf.unstack(tf.shape(framed)[:2])
    step, start = 1 / where.scale, -where.offset / where.scale
    y, x = (tf.range(length, dtype=tf.float64) for length in size)
    # OpenCV rounds a row's position once, a column's in two parts.
    rows, below = _positions(0, tf.round((step[0] * y + start[0]) * _FINER_STEPS), sides[0])
    columns, right = _positions(tf.round(start[1] * _FINER_STEPS), tf.round(step[1] * x * _FINER_STEPS), sides[1])
    upper, lower = (tf.gather(framed, tf.minimum(rows + step, sides[0] - 1)) for step in (0, 1))  # [H, w + 2, c]
    mixed = upper * (_STEPS - below)[:, tf.newaxis, tf.newaxis] + lower * below[:, tf.newaxis, tf.newaxis]
    first, second = (tf.gather(mixed, tf.minimum(columns + step, sides[1] - 1), axis=1) for step in (0, 1))
    total = first * (_STEPS - right)[:, tf.newaxis] + second * right[:, tf.newaxis]  # [H, W, c], in 1/1024 levels
    return tf.cast(tf.bitwise.right_shift(total + _STEPS * _STEPS // 2, 10), tf.uint8)


WARPS: dict[str, Callable[..., tf.Tensor]] = {"bilinear": warp_bilinear, "opencv": warp_opencv}


def _positions(start: tf.Tensor | int, along: tf.Tensor, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of canvas pixels at start + along (in 1/1024): the framed image's pixel at or before; how far beyond, in 1/32."""
    finer = tf.cast(along, tf.int64) + tf.cast(start, tf.int64) + _FINER_STEPS // _STEPS // 2
    fine = tf.bitwise.right_shift(finer, 5)  # in 1/32
    pixel, beyond = tf.bitwise.right_shift(fine, 5) + 1, tf.bitwise.bitwise_and(fine, _STEPS - 1)
    inside = (pixel >= 0) & (pixel < tf.cast(side, tf.int64))  # farther out there are only zeros
    return tf.cast(tf.where(inside, pixel, 0), tf.int32), tf.cast(tf.where(inside, beyond, 0), tf.int32)
