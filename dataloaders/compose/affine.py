"""Scaled-YOLOv4's and YOLOv7's geometry: mosaics of four and of nine images and the affine map that follows.

Source: utils/datasets.py of WongKinYiu/ScaledYOLOv4 and WongKinYiu/yolov7: load_image, load_mosaic, load_mosaic9,
random_perspective, box_candidates. The originals resize each image to the input's size (its longer side), lay the
images out on a canvas twice as large, and map that into the input. Where the map is a scale and a shift, as in every
published recipe, each image's rectangle of the input is known beforehand, and its pixels go there at once;
`warped_image` has all other maps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import AffineAugmentation
from dataloaders.augment.colour import draw_gains
from dataloaders.batch import ColourDraws
from dataloaders.compose.geometry import Boxes
from dataloaders.compose.jpeg import crop_pixels
from dataloaders.compose.pieces import Pieces, Truths, clip_to, sides
from dataloaders.compose.pixels import surround
from dataloaders.schedule.images import Makeup
from official.vision.interpolation import INTERPOLATIONS
from official.vision.protocol import EvaluationProtocol

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
    """All that was drawn for one composition. Positions are (y, x)."""

    corner: Int32[tf.Tensor, "p 2"]  # of each resized image on the canvas, in its pixels
    resized: Int32[tf.Tensor, "p 2"]  # (height, width) of each image on the canvas
    meeting: Int32[tf.Tensor, "2"]  # where the four images of a mosaic meet, on the canvas
    matrix: Float32[tf.Tensor, "3 3"]  # canvas (x, y, 1) -> input
    scale: Float32[tf.Tensor, ""]  # the part of the matrix by which boxes are judged


class AffineGeometry:
    """Mosaics, the affine map and mixup of Scaled-YOLOv4 and YOLOv7: a `Geometry`."""

    composes = True
    rounding = 0.0
    fill = FILL

    def __init__(self, config: AffineAugmentation, input_size: tuple[int, int], protocol: EvaluationProtocol) -> None:
        self._config, self._input_size = config, input_size
        self.precise = config.precise or not config.is_crop

    def shares(self) -> list[tuple[Makeup, float]]:
        config = self._config
        layouts = [((4,), 1 - config.nine), ((9,), config.nine)]
        alone = [(makeup, config.mosaic * (1 - config.mixup) * share) for makeup, share in layouts]
        pairs = [
            (one + other, config.mosaic * config.mixup * share * other_share)
            for one, share in layouts
            for other, other_share in layouts
        ]
        return [((1,), 1 - config.mosaic), *alone, *pairs]

    def draw(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> AffineDraws:
        return draw(self._config, seed, sizes, self._input_size)

    def pieces(self, draws: AffineDraws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        return pieces_of(draws, sizes, self._input_size)

    def truths(self, boxes: Float32[tf.Tensor, "p n yxyx=4"], pieces: Pieces) -> Boxes:
        """boxes: yxyx in pixels of the input."""
        return truths_of(self._config, boxes, pieces.frame, self._input_size)

    def precise_image(
        self, draws: AffineDraws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]
    ) -> UInt8[tf.Tensor, "H W 3"]:
        return warped_image(images, draws, self._input_size)

    def precise_truths(self, draws: AffineDraws, truths: Truths) -> Boxes:
        canvas = canvas_of(truths.size.shape[0], self._input_size)
        before = clip_to(boxes_on_canvas(truths.yxyx, draws), tf.constant([[0, 0, *canvas]], tf.float32))
        limits = tf.constant([[0, 0, *self._input_size]], tf.float32)
        after = clip_to(warped_boxes(before, draws.matrix), limits)
        return after, candidates(self._config, before * draws.scale, after)

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        return draw_share(self._config, seed)

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        return draw_colour(self._config, seed)


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
    before: Float32[tf.Tensor, "p n yxyx=4"],
    after: Float32[tf.Tensor, "p n yxyx=4"],
) -> Bool[tf.Tensor, "p n"]:
    """Marks the boxes yxyx of which the input's border and the map have left enough (box_candidates).

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
    boxes: Float32[tf.Tensor, "p n yxyx=4"],
    frame: Float32[tf.Tensor, "p yxyx=4"],
    input_size: tuple[int, int],
) -> tuple[Float32[tf.Tensor, "p n yxyx=4"], Bool[tf.Tensor, "p n"]]:
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


def warped_image(
    images: Sequence[UInt8[tf.Tensor, "_ _ 3"]], draws: AffineDraws, input_size: tuple[int, int]
) -> UInt8[tf.Tensor, "H W 3"]:
    """The canvas, mapped into the network's input: bilinear between whole pixels' centres, rounded. Exact, and slow.

    Images are decoded as a whole, resized, laid out and warped: the original's own order of work, for any map.
    """
    canvas = canvas_image(images, draws, canvas_of(len(images), input_size))
    inverse = tf.linalg.inv(tf.cast(draws.matrix, tf.float64))
    inverse = tf.reshape(tf.cast(inverse / inverse[2, 2], tf.float32), [9])[:8]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(canvas, tf.float32)[tf.newaxis],
        transforms=inverse[tf.newaxis],
        output_shape=tf.constant(input_size),
        fill_value=float(FILL),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]  # [H, W, 3]
    return tf.ensure_shape(tf.cast(tf.round(warped), tf.uint8), [*input_size, 3])


def canvas_image(
    images: Sequence[UInt8[tf.Tensor, "_ _ 3"]], draws: AffineDraws, canvas_size: tuple[int, int]
) -> UInt8[tf.Tensor, "H W 3"]:
    """The images, resized as OpenCV does, at their places; what reaches beyond the canvas is cut off."""
    limits, parts, places = tf.constant(canvas_size), [], []
    for number, image in enumerate(images):
        sized = INTERPOLATIONS["opencv"](image, draws.resized[number])
        corner = draws.corner[number]
        low, high = tf.clip_by_value(corner, 0, limits), tf.clip_by_value(corner + draws.resized[number], 0, limits)
        inside = tf.clip_by_value(low - corner, 0, draws.resized[number])  # empty outside the canvas
        parts.append(crop_pixels(sized, tf.concat([inside, high - low], axis=0)))
        places.append(tf.concat([low, high - low], axis=0))
    # What they differ from the fill by, modulo 256, summed: they do not overlap.
    level = tf.constant(FILL, tf.uint8)
    return level + tf.add_n(
        [surround(part - level, limits, place, 0) for part, place in zip(parts, places, strict=True)]
    )


def warped_boxes(
    boxes: Float32[tf.Tensor, "p n yxyx=4"], matrix: Float32[tf.Tensor, "3 3"]
) -> Float32[tf.Tensor, "p n yxyx=4"]:
    """The upright rectangles around boxes yxyx on the canvas, mapped into the input; in pixels."""
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    x, y = tf.stack([left, right, left, right], axis=-1), tf.stack([top, bottom, bottom, top], axis=-1)  # [p, n, 4]
    mapped = tf.stack([x, y, tf.ones_like(x)], axis=-1) @ tf.transpose(matrix)  # [p, n, 4, 3]
    x, y = tf.unstack(mapped[..., :2] / mapped[..., 2:], axis=-1)
    edges = (tf.reduce_min(y, -1), tf.reduce_min(x, -1), tf.reduce_max(y, -1), tf.reduce_max(x, -1))
    return tf.stack(edges, axis=-1)


def boxes_on_canvas(boxes: Float32[tf.Tensor, "p n yxyx=4"], draws: AffineDraws) -> Float32[tf.Tensor, "p n yxyx=4"]:
    """Boxes yxyx relative to their image -> in pixels of the canvas."""
    size, corner = (tf.cast(tf.tile(part, [1, 2]), tf.float32)[:, tf.newaxis] for part in (draws.resized, draws.corner))
    return boxes * size + corner


def _resized(sizes: Int32[tf.Tensor, "p 2"], input_size: tuple[int, int]) -> Int32[tf.Tensor, "p 2"]:
    """Sizes as large as fit into the input, cut to whole pixels, at least 1; in float64, as load_image does."""
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
    """Scale and shift of (y, x), of a matrix that has nothing else."""
    return tf.stack([matrix[1, 1], matrix[0, 0]]), tf.stack([matrix[1, 2], matrix[0, 2]])
