"""Scaled-YOLOv4's and YOLOv7's geometry: mosaics of four and of nine images and the affine map that follows.

Source: utils/datasets.py of WongKinYiu/ScaledYOLOv4 and WongKinYiu/yolov7: load_image, load_mosaic, load_mosaic9,
random_perspective, box_candidates. The originals resize each image to the input's size (its longer side), lay the
images out on a canvas twice as large, and map that into the input. Where the map is a scale and a shift, as in every
published recipe, each image's rectangle of the input is known beforehand, and its pixels go there at once; exact.py
has all other maps.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64

from configs.data import AffineAugmentation
from dataloaders.augment.colour import draw_gains
from dataloaders.batch import ColourDraws
from dataloaders.compose.pieces import Pieces, clip_to, sides

FILL = 114  # level around the images
_ROW, _COLUMN = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)  # of the images of a mosaic of four
# Of nine, as `_around` numbers them: which edges (top, left, bottom, right) of their parts of the input are its own.
_OUTER = np.array([[edge in own for edge in "tlbr"] for own in ("", "t", "tr", "r", "rb", "b", "bl", "l", "tl")])
# Of the matrices of shift, shear, rotation and perspective, among: 0, 1, two shifts, two shears, cosine, sine, -sine,
# two tilts. At once, since a graph of single entries takes long to start.
_ENTRIES = np.array(
    [
        [[1, 0, 2], [0, 1, 3], [0, 0, 1]],
        [[1, 4, 0], [5, 1, 0], [0, 0, 1]],
        [[6, 7, 0], [8, 6, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0], [9, 10, 1]],
    ]
)


class AffineDraws(NamedTuple):
    """Of one composition. Positions are (y, x)."""

    corner: Int32[tf.Tensor, "p 2"]  # of each resized image on the canvas, in its pixels
    resized: Int32[tf.Tensor, "p 2"]  # (height, width) of each image on the canvas
    meeting: Int32[tf.Tensor, "2"]  # where the four images of a mosaic meet, on the canvas
    matrix: Float32[tf.Tensor, "3 3"]  # canvas (x, y, 1) -> input
    scale: Float32[tf.Tensor, ""]  # the part of the matrix by which boxes are judged


def canvas_of(count: int, input_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the canvas: the input's own for one image, twice that for a mosaic."""
    return input_size if count == 1 else (2 * input_size[0], 2 * input_size[1])


def draw(
    config: AffineAugmentation,
    seed: Int64[tf.Tensor, "2"],
    sizes: Int32[tf.Tensor, "p 2"],
    input_size: tuple[int, int],
) -> AffineDraws:
    """Draws one letterboxed image (p = 1), a mosaic of four, or the part of one of nine that fits the canvas."""
    count = sizes.shape[0]
    u = tf.random.stateless_uniform([10], seed)
    resized = _resized(sizes, input_size)
    whole = tf.constant(input_size)
    meeting = whole
    if count == 1:
        corner = (whole - resized) // 2
    elif count == 4:
        if config.centre == "random":
            meeting = whole // 2 + tf.cast(u[:2] * tf.cast(whole, tf.float32), tf.int32)
        corner = meeting - tf.stack([1 - _ROW, 1 - _COLUMN], axis=1) * resized
    else:
        corner = _around(resized, whole) - tf.cast(u[:2] * tf.cast(whole, tf.float32), tf.int32)
    low, high = config.scale
    scale = low + (high - low) * u[2]
    return AffineDraws(corner, resized, meeting, _matrix(config, scale, u[3:], count, input_size), scale)


def pieces_of(draws: AffineDraws, sizes: Int32[tf.Tensor, "p 2"], input_size: tuple[int, int]) -> Pieces:
    """One piece, four that meet in a point, or nine around the first of them; for maps that are a scale and a shift.

    Their cells tile the input. The pairs on each side of the middle one lie between its border and the input's, from
    one of its corners to beyond the next, so the four pairs turn around it like the arms of a wheel.
    """
    count = sizes.shape[0]
    scale, shift = _scale_and_shift(draws.matrix)
    on_canvas = tf.cast(tf.concat([draws.corner, draws.corner + draws.resized], axis=1), tf.float32)  # [p, 4]
    in_input = on_canvas * tf.tile(scale, [2]) + tf.tile(shift, [2])
    limits = tf.constant([[0, 0, *input_size]])
    if count == 1:
        cells = limits
    elif count == 4:
        met = tf.cast(draws.meeting, tf.float32) * scale + shift
        y, x = tf.unstack(tf.clip_by_value(tf.cast(tf.round(met), tf.int32), 0, tf.constant(input_size)))
        height, width = input_size
        cells = tf.stack([(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)])
    else:
        inner = tf.clip_by_value(tf.cast(tf.round(in_input), tf.int32), 0, tf.tile(tf.constant(input_size), [2]))
        cells = tf.where(_OUTER, limits, inner)
    per_pixel = tf.cast(sizes, tf.float32) / (tf.cast(draws.resized, tf.float32) * scale)  # source pixels, [p, 2]
    moved = tf.cast(cells, tf.float32) - tf.tile(in_input[:, :2], [1, 2])
    window = moved * tf.tile(per_pixel, [1, 2])
    canvas = tf.constant(canvas_of(count, input_size), tf.float32)
    frame = tf.concat([shift, canvas * scale + shift], axis=0)
    return Pieces(window, cells, tf.tile(frame[tf.newaxis], [count, 1]), tf.zeros([count], tf.bool))


def candidates(
    config: AffineAugmentation,
    before: Float32[tf.Tensor, "p n 4"],
    after: Float32[tf.Tensor, "p n 4"],
) -> Bool[tf.Tensor, "p n"]:
    """Which boxes yxyx are left, by what the input's border and the map have left of them (box_candidates).

    Args:
        before: on the canvas, clipped to it, times the scale of the map.
        after: in the input, clipped to it, in pixels.
    """
    size, size_before = sides(after), sides(before)
    height, width = tf.unstack(size, axis=-1)
    area, area_before = tf.reduce_prod(size, axis=-1), tf.reduce_prod(size_before, axis=-1)
    aspect = tf.maximum(width / (height + 1e-16), height / (width + 1e-16))
    large = tf.reduce_all(size > config.least_side, axis=-1)
    return large & (area / (area_before + 1e-16) > config.least_area) & (aspect < config.most_aspect)


def truths_of(
    config: AffineAugmentation,
    boxes: Float32[tf.Tensor, "p n 4"],
    frame: Float32[tf.Tensor, "p 4"],
    input_size: tuple[int, int],
) -> tuple[Float32[tf.Tensor, "p n 4"], Bool[tf.Tensor, "p n"]]:
    """Boxes yxyx in pixels of the input, clipped to the canvas and to the input; and which are left."""
    before = clip_to(boxes, frame)
    after = clip_to(before, tf.constant([[0.0, 0.0, *input_size]]))
    return after, candidates(config, before, after)


def draw_share(config: AffineAugmentation, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
    """The first of two blended images' share: Beta(8, 8)."""
    gammas = tf.random.stateless_gamma([2], seed, alpha=config.mixup_beta)
    return gammas[0] / tf.reduce_sum(gammas)


def draw_colour(config: AffineAugmentation, seed: Int64[tf.Tensor, "2"]) -> ColourDraws:
    """Flip, and the gains of augment_hsv."""
    u = tf.random.stateless_uniform([4], seed)
    return ColourDraws(u[0] < config.flip, *draw_gains(config.colour, u[1:]))


def _resized(sizes: Int32[tf.Tensor, "p 2"], input_size: tuple[int, int]) -> Int32[tf.Tensor, "p 2"]:
    """As large as fits into the input, cut to whole pixels, at least 1; in float64, as load_image does."""
    side = tf.cast(sizes, tf.float64)
    ratio = tf.reduce_min(tf.constant(input_size, tf.float64) / side, axis=1, keepdims=True)
    return tf.maximum(tf.cast(side * ratio, tf.int32), 1)


def _around(resized: Int32[tf.Tensor, "9 2"], whole: Int32[tf.Tensor, "2"]) -> Int32[tf.Tensor, "9 2"]:
    """Corners of nine images: one in the middle, eight around it, clockwise from above; on thrice the input's size."""
    h, w = (tf.unstack(side) for side in tf.unstack(resized, axis=1))
    top, left = tf.unstack(whole)
    bottom, right = top + h[0], left + w[0]
    corners = [
        (top, left),
        (top - h[1], left),
        (top - h[2], left + w[1]),
        (top, right),
        (top + h[3], right),
        (bottom, right - w[5]),
        (bottom, right - w[5] - w[6]),
        (bottom - h[7], left - w[7]),
        (bottom - h[7] - h[8], left - w[8]),
    ]
    return tf.stack([tf.stack(corner) for corner in corners])


def _matrix(
    config: AffineAugmentation,
    scale: Float32[tf.Tensor, ""],
    u: Float32[tf.Tensor, "7"],
    count: int,
    input_size: tuple[int, int],
) -> Float32[tf.Tensor, "3 3"]:
    """Canvas to input, in pixels: centre, perspective, rotation and scale, shear, shift (random_perspective)."""
    (canvas_height, canvas_width), side = canvas_of(count, input_size), np.float32(input_size[::-1])
    to_centre = np.array([[1, 0, -canvas_width / 2], [0, 1, -canvas_height / 2], [0, 0, 1]], np.float32)
    shift = (0.5 + config.translate * (2.0 * u[:2] - 1.0)) * side
    angle = math.radians(config.degrees) * (2.0 * u[2:3] - 1.0)
    shear = tf.tan(math.radians(config.shear) * (2.0 * u[3:5] - 1.0))
    tilt = config.perspective * (2.0 * u[5:7] - 1.0)
    cosine, sine = scale * tf.cos(angle), scale * tf.sin(angle)
    values = tf.concat([[0.0, 1.0], shift, shear, cosine, sine, -sine, tilt], axis=0)
    moved, sheared, rotation, perspective = tf.unstack(tf.gather(values, _ENTRIES))  # [3, 3] each
    return moved @ sheared @ rotation @ perspective @ to_centre


def _scale_and_shift(
    matrix: Float32[tf.Tensor, "3 3"],
) -> tuple[Float32[tf.Tensor, "2"], Float32[tf.Tensor, "2"]]:
    """Of (y, x), of a matrix that has nothing else."""
    return tf.stack([matrix[1, 1], matrix[0, 0]]), tf.stack([matrix[1, 2], matrix[0, 2]])
