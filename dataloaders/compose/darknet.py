"""Darknet's geometry: jitter crop, letterbox, flip, mosaic and mixup, drawn before anything is decoded.

Source: data.c load_data_detection, correct_boxes, fill_truth_detection, blend_truth_mosaic; image_opencv.cpp
image_data_augmentation. A window of each image, in its whole pixels, becomes a frame of the network input's size. A
lone image is its frame; a mosaic shows of each of four frames what a cut leaves, moved so that less of it is fill.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import DarknetAugmentation
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import ColourDraws
from dataloaders.compose.geometry import Boxes
from dataloaders.compose.jpeg import crop_pixels
from dataloaders.compose.pieces import Pieces, Truths, boxes_in_input, clip_to, exact_map, sides
from dataloaders.compose.pixels import Fill, surround
from dataloaders.schedule.images import Makeup
from official.vision.interpolation import INTERPOLATIONS
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import Rect, whole_levels

_LEAST_CUT = np.float32(0.2)  # of the side
_ROW, _COLUMN = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)  # of the pieces of a mosaic


class DarknetDraws(NamedTuple):
    """All that was drawn for one composition. First dimension, where there is one: the image."""

    window: Rect  # [p, 4]: top, left, height, width of what the frame shows, in pixels of the image
    flip: Bool[tf.Tensor, " p"]  # of the frame, left to right
    offset: Int32[tf.Tensor, "p 2"]  # (y, x) of the frame's corner in the input
    cut: Int32[tf.Tensor, "2"]  # (y, x) where the four images of a mosaic meet; one image: the input's size


class DarknetGeometry:
    """Jitter, mosaic and mixup of Darknet: a `Geometry`."""

    rounding = 0.5

    def __init__(self, config: DarknetAugmentation, input_size: tuple[int, int], protocol: EvaluationProtocol) -> None:
        self._config, self._input_size, self._protocol = config, input_size, protocol
        self.fill = round(protocol.padding_value) if config.fill == "padding" else config.fill
        self.composes, self.precise = config.composes, config.precise

    def shares(self) -> list[tuple[Makeup, float]]:
        mosaic, mixup = self._config.mosaic, self._config.mixup
        return [((1,), 1 - mosaic - mixup), ((4,), mosaic), ((1, 1), mixup)]

    def draw(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> DarknetDraws:
        letterbox = self._protocol.resize == "letterbox"
        return draw(self._config, seed, sizes, self._input_size, letterbox, flip=~alone)

    def pieces(self, draws: DarknetDraws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        return pieces_of(draws, self._input_size)

    def truths(self, boxes: Float32[tf.Tensor, "p n yxyx=4"], pieces: Pieces) -> Boxes:
        """boxes: yxyx in pixels of the input."""
        boxes, keep = truths_of(boxes, pieces.frame)
        if not self._config.mosaic:
            return boxes, keep
        met, left = truths_of_mosaic(boxes, pieces.cell, self._input_size, self._config.mosaic_bound)
        lone = tf.reduce_all(sides(pieces.cell) == self._input_size, axis=1)[:, tf.newaxis]  # [p, 1]
        return tf.where(lone[..., tf.newaxis], boxes, met), keep & (lone | left)

    def precise_image(
        self, draws: DarknetDraws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]
    ) -> UInt8[tf.Tensor, "H W 3"]:
        return precise_image(images, draws, self.fill, self._protocol.interpolation, self._input_size)

    def precise_truths(self, draws: DarknetDraws, truths: Truths) -> Boxes:
        pieces = pieces_of(draws, self._input_size)
        return self.truths(boxes_in_input(truths.yxyx, truths.size, *exact_map(pieces)), pieces)

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        return tf.constant(0.5)

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        draws = draw_colour(self._config, seed)
        return draws._replace(flip=draws.flip & alone)  # other images were mirrored one by one


def draw(
    config: DarknetAugmentation,
    seed: Int64[tf.Tensor, "2"],
    sizes: Int32[tf.Tensor, "p 2"],
    input_size: tuple[int, int],
    letterbox: bool,
    flip: Bool[tf.Tensor, ""],
) -> DarknetDraws:
    """Draws one image (p = 1) or a mosaic (p = 4).

    A window without pixels becomes the whole image, as in Darknet's OpenCV build.

    Args:
        flip: whether images are mirrored, each for itself; a lone image's flip is left to the accelerator.
    """
    count = sizes.shape[0]
    u = tf.random.stateless_uniform([count, 10], seed)
    of_edges, of_flip, of_corner, of_cut = tf.split(u, [6, 1, 1, 2], axis=1)
    edges = draw_edges(config, of_edges, sizes)
    if letterbox:
        edges = _to_aspect(edges, sizes, input_size)
    mirrored = (tf.squeeze(of_flip, axis=1) < 0.5) & tf.constant(config.flip) & flip  # [p]
    whole = tf.constant(input_size)
    if count == 1:
        edges = _valid(edges, sizes)
        return DarknetDraws(_window(edges, sizes), mirrored, tf.zeros([1, 2], tf.int32), whole)
    edges = _valid(tf.where(of_corner < 0.5, _to_corner(edges, mirrored), edges), sizes)
    cut = _draw_cut(of_cut[0], input_size)
    seen = tf.where(mirrored[:, tf.newaxis], tf.gather(edges, [0, 3, 2, 1], axis=1), edges)
    beyond = tf.maximum(-seen, 0) * tf.tile(whole, [2]) // tf.tile(sizes, [1, 2])  # [4, 4], of the fill, input pixels
    shift = tf.minimum(beyond, tf.concat([cut, whole - cut], axis=0))
    second = tf.stack([_ROW, _COLUMN], axis=1) == 1  # [4, 2]
    before, after = tf.split(shift, 2, axis=1)
    offset = tf.where(second, cut - before, cut + after - whole)
    return DarknetDraws(_window(edges, sizes), mirrored, offset, cut)


def draw_edges(
    config: DarknetAugmentation, u: Float32[tf.Tensor, "p 6"], sizes: Int32[tf.Tensor, "p 2"]
) -> Int32[tf.Tensor, "p tlbr=4"]:
    """Draws how far top, left, bottom and right move inwards: each by up to `jitter` of the side, independently.

    On top of it, top and left together, and bottom and right together, move by a share of the side drawn between those
    that shrink and enlarge the objects by the factor `resize` (below 1: that only shrink them). In whole pixels, limits
    and sums cut towards zero.

    Args:
        u: uniform in 0..1.
    """
    side = tf.cast(tf.tile(sizes, [1, 2]), tf.float32)  # [p, 4]: height, width, height, width
    shift = tf.floor(side * config.jitter) * (2.0 * u[:, :4] - 1.0)
    if config.resize != 1.0:
        smaller = min(config.resize, 1 / config.resize)
        most_out = -tf.floor(side * (1 / smaller - 1) / 2)
        most_in = tf.floor(side * (1 - smaller) / 2) if config.resize > 1 else tf.zeros_like(side)
        shift = tf.floor(tf.abs(shift)) * tf.sign(shift) + most_out
        shift += (most_in - most_out) * tf.repeat(u[:, 4:], 2, axis=1)
    return tf.cast(shift, tf.int32)


def pieces_of(draws: DarknetDraws, input_size: tuple[int, int]) -> Pieces:
    """Four pieces of a mosaic, left to right and top to bottom, or one."""
    count = draws.window.shape[0]
    (height, width), (cut_y, cut_x) = input_size, tf.unstack(draws.cut)
    if count == 1:
        cells = tf.constant([[0, 0, height, width]])
    else:
        cells = tf.stack(
            [(0, 0, cut_y, cut_x), (0, cut_x, cut_y, width), (cut_y, 0, height, cut_x), (cut_y, cut_x, height, width)]
        )
    whole = tf.constant(input_size, tf.float32)
    offset = tf.cast(draws.offset, tf.float32)
    local = tf.cast(cells, tf.float32) - tf.tile(offset, [1, 2])  # [p, 4], in the frame
    top, left, bottom, right = tf.unstack(local, axis=1)
    mirrored = tf.stack([top, width - right, bottom, width - left], axis=1)
    local = tf.where(draws.flip[:, tf.newaxis], mirrored, local)
    start, side = tf.split(tf.cast(draws.window, tf.float32), 2, axis=1)
    shown = tf.tile(start, [1, 2]) + tf.tile(side / whole, [1, 2]) * local
    return Pieces(shown, cells, tf.concat([offset, offset + whole], axis=1), draws.flip)


def truths_of(
    boxes: Float32[tf.Tensor, "p n yxyx=4"], frame: Float32[tf.Tensor, "p yxyx=4"]
) -> tuple[Float32[tf.Tensor, "p n yxyx=4"], Bool[tf.Tensor, "p n"]]:
    """Boxes yxyx in pixels of the input, clipped to their frame; kept if at least 1 pixel high and wide. False for NaN.

    Source: correct_boxes, and fill_truth_detection with its lowest_w and lowest_h.
    """
    clipped = clip_to(boxes, frame)
    return clipped, tf.reduce_all(sides(clipped) >= 1.0, axis=-1)


def truths_of_mosaic(
    boxes: Float32[tf.Tensor, "p n yxyx=4"],
    cell: Int32[tf.Tensor, "p yxyx=4"],
    input_size: tuple[int, int],
    bound: bool,
) -> tuple[Float32[tf.Tensor, "p n yxyx=4"], Bool[tf.Tensor, "p n"]]:
    """The boxes that blend_truth_mosaic makes of boxes yxyx in pixels of the input, and which it keeps.

    Edges beyond the input come back by whole pixels, so that up to a pixel stays outside; with `bound` (mosaic_bound)
    all edges are cut to whole pixels and clipped to the image's part. Kept are boxes wider and higher than 1 pixel,
    but less than the whole input.
    """
    whole = tf.constant(input_size, tf.float32)
    low, high = tf.split(boxes, 2, axis=-1)
    if bound:
        limits = tf.cast(cell, tf.float32)[:, tf.newaxis]
        low, high = tf.maximum(_cut_off(low), limits[..., :2]), tf.minimum(_cut_off(high), limits[..., 2:])
    else:
        low, high = low - tf.minimum(_cut_off(low), 0.0), high - tf.maximum(_cut_off(high) - whole, 0.0)
    side, centre = high - low, (low + high) / 2
    keep = (side > 1.0) & (side < whole) & (centre > 0.0) & (centre < whole)
    return tf.concat([low, high], axis=-1), tf.reduce_all(keep, axis=-1)


def precise_image(
    images: Sequence[UInt8[tf.Tensor, "_ _ 3"]],
    draws: DarknetDraws,
    fill: Fill,
    interpolation: str,
    input_size: tuple[int, int],
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input of a lone image or of a mosaic of four, which are decoded as a whole: exact, and slow.

    Crop with the fill, resize to the input's size, mirror, cut: the original's own order of work.
    """
    frames = [
        _frame(image, draws.window[number], draws.flip[number], fill, interpolation, input_size)
        for number, image in enumerate(images)
    ]
    if len(frames) == 1:
        return frames[0]
    rows = []
    for row in (0, 1):
        parts = []
        for column in (0, 1):
            number, whole = 2 * row + column, tf.constant(input_size)
            second = tf.constant([row == 1, column == 1])
            low, high = tf.where(second, draws.cut, 0), tf.where(second, whole, draws.cut)
            part = tf.concat([low - draws.offset[number], high - low], axis=0)
            parts.append(crop_pixels(frames[number], part))
        rows.append(tf.concat(parts, axis=1))
    return tf.ensure_shape(tf.concat(rows, axis=0), [*input_size, 3])


def crop_image(image: UInt8[tf.Tensor, "h w c"], window: Rect) -> UInt8[tf.Tensor, "H W c"]:
    """The window's pixels, [4]; beyond the image its outermost ones, repeated (Darknet image.c crop_image)."""
    top, left, height, width = tf.unstack(window)
    rows, columns = (
        tf.clip_by_value(start + tf.range(length), 0, side - 1)
        for start, length, side in zip((top, left), (height, width), tf.unstack(tf.shape(image)[:2]), strict=True)
    )
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def _to_aspect(
    edges: Int32[tf.Tensor, "p tlbr=4"], sizes: Int32[tf.Tensor, "p 2"], input_size: tuple[int, int]
) -> Int32[tf.Tensor, "p tlbr=4"]:
    """Both edges of one axis move out by what the whole image lacks to the input's aspect (letter_box=1).

    So a window that jitter has made narrower is distorted by the same jitter.
    """
    height, width = tf.unstack(tf.cast(sizes, tf.float32), axis=1)
    aspect = np.float32(input_size[1]) / np.float32(input_size[0])
    wide = width / height / aspect > 1.0
    zero = tf.zeros_like(width)
    missing_y = tf.where(wide, (width / aspect - height) / 2, zero)
    missing_x = tf.where(wide, zero, (height * aspect - width) / 2)
    missing = tf.stack([missing_y, missing_x, missing_y, missing_x], axis=1)
    return tf.cast(tf.cast(edges, tf.float32) - missing, tf.int32)


def _to_corner(edges: Int32[tf.Tensor, "4 tlbr=4"], flip: Bool[tf.Tensor, " images=4"]) -> Int32[tf.Tensor, "4 tlbr=4"]:
    """Windows moved so that their image reaches the outer corner of the mosaic, in the frame as it will be flipped."""
    top, left, bottom, right = tf.unstack(edges, axis=1)
    zero = tf.zeros_like(top)
    upper, to_left = _ROW == 0, tf.not_equal(_COLUMN == 0, flip)
    return tf.stack(
        [
            tf.where(upper, zero, top + bottom),
            tf.where(to_left, zero, left + right),
            tf.where(upper, top + bottom, zero),
            tf.where(to_left, left + right, zero),
        ],
        axis=1,
    )


def _valid(edges: Int32[tf.Tensor, "p tlbr=4"], sizes: Int32[tf.Tensor, "p 2"]) -> Int32[tf.Tensor, "p tlbr=4"]:
    """The whole image in place of a window that holds nothing or lies behind the image."""
    start, side = tf.split(_window(edges, sizes), 2, axis=1)
    valid = tf.reduce_all((side > 0) & (start < sizes), axis=1, keepdims=True)
    return tf.where(valid, edges, 0)


def _window(edges: Int32[tf.Tensor, "p tlbr=4"], sizes: Int32[tf.Tensor, "p 2"]) -> Rect:
    start, end = tf.split(edges, 2, axis=1)
    return tf.concat([start, sizes - start - end], axis=1)


def _draw_cut(u: Float32[tf.Tensor, "2"], input_size: tuple[int, int]) -> Int32[tf.Tensor, "2"]:
    """Uniform over whole pixels from 0.2 to 0.8 of each side, both included."""
    side = np.float32(input_size)
    least, most = (side * _LEAST_CUT).astype(np.int32), (side * (1 - _LEAST_CUT)).astype(np.int32)
    return tf.minimum(least + tf.cast(u * (most - least + 1), tf.int32), most)


def _cut_off(position: Float32[tf.Tensor, "*b"]) -> Float32[tf.Tensor, "*b"]:
    """Towards zero, as C's (int)."""
    return tf.cast(tf.cast(position, tf.int32), tf.float32)


def _frame(
    image: UInt8[tf.Tensor, "h w 3"],
    window: Rect,
    flip: tf.Tensor,
    fill: Fill,
    interpolation: str,
    input_size: tuple[int, int],
) -> UInt8[tf.Tensor, "H W 3"]:
    """One image's frame: image_data_augmentation (OpenCV build), or crop_image and resize_image."""
    if fill == "edge":
        cropped = crop_image(image, window)
    else:
        size, start, side = tf.shape(image)[:2], window[:2], window[2:]
        low, high = tf.minimum(tf.maximum(start, 0), size), tf.minimum(start + side, size)
        high = tf.maximum(high, low)
        place = tf.concat([low - start, high - low], axis=0)
        part = crop_pixels(image, tf.concat([low, high - low], axis=0))
        cropped = surround(part, side, place, _mean_colour(image) if fill == "mean" else fill)
    sized = whole_levels(INTERPOLATIONS[interpolation](cropped, tf.constant(input_size)))
    return tf.ensure_shape(tf.cond(flip, lambda: tf.reverse(sized, [1]), lambda: sized), [*input_size, 3])


def _mean_colour(image: UInt8[tf.Tensor, "h w 3"]) -> UInt8[tf.Tensor, "3"]:
    return tf.cast(tf.round(tf.reduce_mean(tf.cast(image, tf.float64), axis=[0, 1])), tf.uint8)
