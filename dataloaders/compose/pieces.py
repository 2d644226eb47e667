"""An example as a composition of pieces: which pixels of which source fill which rectangle of the network's input.

A jittered image is one piece, Darknet's mosaic is four, Scaled-YOLOv4's mosaic with its scale and shift four, YOLOv7's
nine. All follow from what was drawn, before anything is decoded; so only what will be seen is decoded, at the scale at
which it will be seen, and goes straight to its place: no canvas larger than the input is ever made.

`cut` rounds what a piece shows to whole pixels of its source and of the input, by at most half a pixel each. Boxes go
by the rounded numbers, so that they lie where the pixels do.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8

from official.vision.resize import Rect

RATIOS = (1, 2, 4, 8)  # by which a JPEG decoder can shrink an image at no cost


class Pieces(NamedTuple):
    """First dimension of every field: the piece."""

    window: Float32[tf.Tensor, "p yxyx=4"]  # top, left, bottom, right in pixels of the source; may reach beyond it
    cell: Int32[tf.Tensor, "p yxyx=4"]  # the rectangle that it fills: top, left, bottom, right in pixels of the input
    frame: Float32[tf.Tensor, "p yxyx=4"]  # as `cell`: beyond it there is but the fill, and boxes are clipped to it
    flip: Bool[tf.Tensor, " p"]  # the window is shown mirrored, left to right


class Cuts(NamedTuple):
    """The part that is decoded of each source, and where it goes. First dimension of every field: the piece."""

    ratio: Int32[tf.Tensor, " p"]  # the source is decoded at 1 / ratio of its size
    crop: Rect  # [p, 4]: top, left, height, width in pixels of that
    place: Rect  # [p, 4]: of the same pixels in the cell, after a flip; empty where nothing is seen
    scale: Float32[tf.Tensor, "p 2"]  # (y, x): position in the input = scale * position in the source + offset, pixels
    offset: Float32[tf.Tensor, "p 2"]


class Truths(NamedTuple):
    """Size, id and boxes of the images of an example. First dimension of every field: the image."""

    size: Int32[tf.Tensor, "p 2"]  # (height, width) in pixels
    example_id: Int64[tf.Tensor, " p"]
    count: Int32[tf.Tensor, " p"]  # of boxes
    yxyx: Float32[tf.Tensor, "p n yxyx=4"]  # relative to the image; zeros after its boxes
    classes: Int32[tf.Tensor, "p n"]


@runtime_checkable
class Pixels(Protocol):
    """The pixels of the images of an example."""

    def ratio(self, shrink: Float32[tf.Tensor, " p"]) -> Int32[tf.Tensor, " p"]:
        """One of RATIOS for each image, at which to decode what will be shown `shrink` times smaller."""

    def patch(self, number: Int32[tf.Tensor, ""], ratio: Int32[tf.Tensor, ""], crop: Rect) -> UInt8[tf.Tensor, "h w 3"]:
        """A crop [4] of one of the images, as `Cuts` states it."""


def no_pieces() -> Pieces:
    """The pieces of no image."""
    shapes = ([0, 4], tf.float32), ([0, 4], tf.int32), ([0, 4], tf.float32), ([0], tf.bool)
    return Pieces(*(tf.zeros(shape, dtype) for shape, dtype in shapes))


def shrink_of(pieces: Pieces) -> Float32[tf.Tensor, " p"]:
    """The factor by which each source is shown smaller, in the direction in which that is less."""
    return tf.reduce_min(_sampling(pieces)[1], axis=1)


def cut(pieces: Pieces, sizes: Int32[tf.Tensor, "p 2"], ratio: Int32[tf.Tensor, " p"], rim: bool) -> Cuts:
    """The visible part of each piece: input pixels whose centre falls inside the source and inside the frame.

    Args:
        ratio: at 1 / ratio of its size each source is decoded.
        rim: show at least one row and column, the source's nearest, since the fill is made of them.
    """
    length = sides(pieces.cell)
    start, step = _sampling(pieces)
    low, high = _frame_in_cell(pieces)
    side = tf.cast(sizes, tf.float32)
    first = tf.math.ceil(tf.maximum(tf.maximum(-start / step, low) - 0.5, 0.0))
    last = tf.floor(tf.minimum(tf.minimum((side - start) / step, high) + 0.5, tf.cast(length, tf.float32)))
    if rim:
        first = tf.minimum(first, tf.cast(length - 1, tf.float32))
        last = tf.maximum(last, first + 1.0)
    else:
        shown = tf.reduce_all(last > first, axis=1, keepdims=True)
        first, last = tf.where(shown, first, 0.0), tf.where(shown, last, 0.0)

    unit = tf.cast(ratio, tf.float32)[:, tf.newaxis]
    limit = -(-sizes // ratio[:, tf.newaxis])  # [p, 2]: sides of the decoded image
    from_ = tf.clip_by_value(_nearest((start + step * first) / unit), 0, limit - 1)
    until = tf.clip_by_value(_nearest((start + step * last) / unit), from_ + 1, limit)

    scale = (last - first) / (tf.cast(until - from_, tf.float32) * unit)
    scale = tf.where(last > first, scale, 1.0 / step)
    offset = tf.where(last > first, first - scale * tf.cast(from_, tf.float32) * unit, -start / step)
    first, last = tf.cast(first, tf.int32), tf.cast(last, tf.int32)
    scale, offset, corner = _mirrored(pieces, scale, offset, first, last)
    crop, place = tf.concat([from_, until - from_], axis=1), tf.concat([corner, last - first], axis=1)
    return Cuts(ratio, crop, place, scale, offset)


def exact_map(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """(scale, offset) of (y, x), as in `Cuts`, but nothing is rounded."""
    start, step = _sampling(pieces)
    scale, offset, _ = _mirrored(pieces, 1.0 / step, -start / step, *tf.split(pieces.cell, 2, axis=1))
    return scale, offset


def boxes_in_input(
    boxes: Float32[tf.Tensor, "p n yxyx=4"],
    sizes: Int32[tf.Tensor, "p 2"],
    scale: Float32[tf.Tensor, "p 2"],
    offset: Float32[tf.Tensor, "p 2"],
) -> Float32[tf.Tensor, "p n yxyx=4"]:
    """Boxes yxyx relative to sources of `sizes` -> yxyx in pixels of the input; not clipped."""
    per_side = scale * tf.cast(sizes, tf.float32)
    corners = boxes * tf.tile(per_side, [1, 2])[:, tf.newaxis] + tf.tile(offset, [1, 2])[:, tf.newaxis]
    top, left, bottom, right = tf.unstack(corners, axis=-1)  # a mirrored piece has its left and right exchanged
    return tf.stack([top, tf.minimum(left, right), bottom, tf.maximum(left, right)], axis=-1)


def sides(boxes: Shaped[tf.Tensor, "*batch yxyx=4"]) -> Shaped[tf.Tensor, "*batch 2"]:
    """(height, width) of rectangles top, left, bottom, right: [..., 4] -> [..., 2]."""
    low, high = tf.split(boxes, 2, axis=-1)
    return high - low


def clip_to(
    boxes: Float32[tf.Tensor, "p n yxyx=4"], limits: Float32[tf.Tensor, "#p yxyx=4"]
) -> Float32[tf.Tensor, "p n yxyx=4"]:
    """Boxes yxyx, clipped to a rectangle top, left, bottom, right for all of a piece."""
    low, high = (tf.tile(edge, [1, 1, 2]) for edge in tf.split(limits[:, tf.newaxis], 2, axis=-1))
    return tf.clip_by_value(boxes, low, high)


def explain_pieces(
    cells: Int32[tf.Tensor, "p yxyx=4"], flip: Bool[tf.Tensor, " p"], cuts: Cuts, count: int
) -> tuple[list[dict[str, Any]], list[Float32[np.ndarray, "yxyx=4"]]]:
    """Of the first `count` images: what is decoded and where it goes; and what is shown, yxyx in the image's pixels."""
    pieces, shown = [], []
    for at in range(count):
        of_piece = {name: field[at] for name, field in cuts._asdict().items()}
        pieces.append({"cell": cells[at], "flip": flip[at], **of_piece})
        top, left, height, width = cuts.crop[at].numpy().astype(np.float32) * int(cuts.ratio[at])
        shown.append(np.stack([top, left, top + height, left + width]))
    return pieces, shown


def _sampling(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """(start, step) of (y, x): pixel i of the cell, before a flip, shows the source from start + step * i on.

    An empty cell has any step: what lies beyond it stays beyond it.
    """
    length = tf.cast(sides(pieces.cell), tf.float32)
    return pieces.window[:, :2], tf.where(length > 0.0, sides(pieces.window) / tf.maximum(length, 1.0), 1.0)


def _frame_in_cell(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """The frame's (top, left) and (bottom, right) in pixels of the cell, before a flip."""
    corner, end = tf.split(tf.cast(pieces.cell, tf.float32), 2, axis=1)
    low, high = (edge - corner for edge in tf.split(pieces.frame, 2, axis=1))
    mirror = pieces.flip[:, tf.newaxis] & tf.constant([False, True])
    length = end - corner
    return tf.where(mirror, length - high, low), tf.where(mirror, length - low, high)


def _mirrored(
    pieces: Pieces,
    scale: Float32[tf.Tensor, "p 2"],
    offset: Float32[tf.Tensor, "p 2"],
    first: Int32[tf.Tensor, "p 2"],
    last: Int32[tf.Tensor, "p 2"],
) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"], Int32[tf.Tensor, "p 2"]]:
    """A map into the cell before its flip -> into the input; and what lies from `first` to `last` begins there."""
    mirror = pieces.flip[:, tf.newaxis] & tf.constant([False, True])
    corner, end = tf.split(pieces.cell, 2, axis=1)
    length = end - corner
    offset = tf.cast(corner, tf.float32) + tf.where(mirror, tf.cast(length, tf.float32) - offset, offset)
    return tf.where(mirror, -scale, scale), offset, tf.where(mirror, length - last, first)


def _nearest(position: Float32[tf.Tensor, "*b"]) -> Int32[tf.Tensor, "*b"]:
    return tf.cast(tf.round(position), tf.int32)
