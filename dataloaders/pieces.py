"""An example as a composition of pieces: which pixels of which source fill which rectangle of the network's input.

A jittered image is one piece, Darknet's mosaic is four, Scaled-YOLOv4's mosaic with its scale and shift four, YOLOv7's
nine. All follow from what was drawn, before anything is decoded; so only what will be seen is decoded, at the scale at
which it will be seen, and goes straight to its place: no canvas larger than the input is ever made.

`cut` rounds what a piece shows to whole pixels of its source and of the input, by at most half a pixel each. Boxes go
by the rounded numbers, so that they lie where the pixels do.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8

RATIOS = (1, 2, 4, 8)  # by which a JPEG decoder can shrink an image at no cost


class Pieces(NamedTuple):
    """First dimension of every field: the piece."""

    window: Float32[tf.Tensor, "p 4"]  # top, left, bottom, right in pixels of the source; may reach beyond it
    cell: Int32[tf.Tensor, "p 4"]  # the rectangle that it fills: top, left, bottom, right in pixels of the input
    frame: Float32[tf.Tensor, "p 4"]  # beyond it nothing is shown but the fill, and boxes are clipped to it; as `cell`
    flip: Bool[tf.Tensor, " p"]  # the window is shown mirrored, left to right


class Cuts(NamedTuple):
    """What is decoded of each source, and where it goes. First dimension of every field: the piece."""

    ratio: Int32[tf.Tensor, " p"]  # the source is decoded at 1 / ratio of its size
    crop: Int32[tf.Tensor, "p 4"]  # top, left, bottom, right in pixels of that
    place: Int32[tf.Tensor, "p 4"]  # of the same pixels in the cell, after a flip; empty where nothing is seen
    scale: Float32[tf.Tensor, "p 2"]  # (y, x): position in the input = scale * position in the source + offset, pixels
    offset: Float32[tf.Tensor, "p 2"]


class Truths(NamedTuple):
    """What is known of the images of an example. First dimension of every field: the image."""

    size: Int32[tf.Tensor, "p 2"]  # (height, width) in pixels
    example_id: Int64[tf.Tensor, " p"]
    count: Int32[tf.Tensor, " p"]  # of boxes
    yxyx: Float32[tf.Tensor, "p n 4"]  # relative to the image; zeros after its boxes
    classes: Int32[tf.Tensor, "p n"]


@runtime_checkable
class Pixels(Protocol):
    """The pixels of the images of an example."""

    def ratio(self, shrink: Float32[tf.Tensor, " p"]) -> Int32[tf.Tensor, " p"]:
        """Of each of the first p images one of RATIOS, at which to decode what will be shown `shrink` times smaller."""

    def patch(
        self, number: Int32[tf.Tensor, ""], ratio: Int32[tf.Tensor, ""], crop: Int32[tf.Tensor, "4"]
    ) -> UInt8[tf.Tensor, "h w 3"]:
        """A crop of one of the images, as `Cuts` tells it."""


def shrink_of(pieces: Pieces) -> Float32[tf.Tensor, " p"]:
    """How many times smaller each source is shown, in the direction in which that is less."""
    return tf.reduce_min(_sampling(pieces)[1], axis=1)


def cut(pieces: Pieces, sizes: Int32[tf.Tensor, "p 2"], ratio: Int32[tf.Tensor, " p"], rim: bool) -> Cuts:
    """What of each piece can be seen: input pixels whose centre falls inside the source and inside the frame.

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
    scale, offset, place = _mirrored(pieces, scale, offset, tf.concat([first, last], axis=1))
    return Cuts(ratio, tf.concat([from_, until], axis=1), place, scale, offset)


def exact_map(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """(scale, offset) of (y, x), as in `Cuts`, but nothing is rounded."""
    start, step = _sampling(pieces)
    scale, offset, _ = _mirrored(pieces, 1.0 / step, -start / step, pieces.cell)
    return scale, offset


def boxes_in_input(
    boxes: Float32[tf.Tensor, "p n 4"],
    sizes: Int32[tf.Tensor, "p 2"],
    scale: Float32[tf.Tensor, "p 2"],
    offset: Float32[tf.Tensor, "p 2"],
) -> Float32[tf.Tensor, "p n 4"]:
    """Boxes yxyx relative to sources of `sizes` -> yxyx in pixels of the input; not clipped."""
    per_side = scale * tf.cast(sizes, tf.float32)
    corners = boxes * tf.tile(per_side, [1, 2])[:, tf.newaxis] + tf.tile(offset, [1, 2])[:, tf.newaxis]
    top, left, bottom, right = tf.unstack(corners, axis=-1)  # a mirrored piece has its left and right exchanged
    return tf.stack([top, tf.minimum(left, right), bottom, tf.maximum(left, right)], axis=-1)


def sides(boxes: Shaped[tf.Tensor, "*batch 4"]) -> Shaped[tf.Tensor, "*batch 2"]:
    """(height, width) of rectangles top, left, bottom, right: [..., 4] -> [..., 2]."""
    return boxes[..., 2:] - boxes[..., :2]


def clip_to(boxes: Float32[tf.Tensor, "p n 4"], limits: Float32[tf.Tensor, "#p 4"]) -> Float32[tf.Tensor, "p n 4"]:
    """Boxes yxyx, clipped to a rectangle top, left, bottom, right for all of a piece."""
    limits = limits[:, tf.newaxis]
    low, high = tf.tile(limits[..., :2], [1, 1, 2]), tf.tile(limits[..., 2:], [1, 1, 2])
    return tf.clip_by_value(boxes, low, high)


def _sampling(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """(start, step) of (y, x): pixel i of the cell, before a flip, shows the source from start + step * i on.

    An empty cell has any step: what lies beyond it stays beyond it.
    """
    length = tf.cast(sides(pieces.cell), tf.float32)
    return pieces.window[:, :2], tf.where(length > 0.0, sides(pieces.window) / tf.maximum(length, 1.0), 1.0)


def _frame_in_cell(pieces: Pieces) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"]]:
    """The frame's (top, left) and (bottom, right) in pixels of the cell, before a flip."""
    cell = tf.cast(pieces.cell, tf.float32)
    low, high = pieces.frame[:, :2] - cell[:, :2], pieces.frame[:, 2:] - cell[:, :2]
    mirror = pieces.flip[:, tf.newaxis] & tf.constant([False, True])
    length = sides(cell)
    return tf.where(mirror, length - high, low), tf.where(mirror, length - low, high)


def _mirrored(
    pieces: Pieces,
    scale: Float32[tf.Tensor, "p 2"],
    offset: Float32[tf.Tensor, "p 2"],
    place: Int32[tf.Tensor, "p 4"],
) -> tuple[Float32[tf.Tensor, "p 2"], Float32[tf.Tensor, "p 2"], Int32[tf.Tensor, "p 4"]]:
    """A map into the cell before its flip -> into the input; and a place in the cell, after the flip."""
    mirror = pieces.flip[:, tf.newaxis] & tf.constant([False, True])
    corner, length = tf.cast(pieces.cell[:, :2], tf.float32), sides(pieces.cell)
    offset = corner + tf.where(mirror, tf.cast(length, tf.float32) - offset, offset)
    low = tf.where(mirror, length - place[:, 2:], place[:, :2])
    high = tf.where(mirror, length - place[:, :2], place[:, 2:])
    return tf.where(mirror, -scale, scale), offset, tf.concat([low, high], axis=1)


def _nearest(position: Float32[tf.Tensor, "*b"]) -> Int32[tf.Tensor, "*b"]:
    return tf.cast(tf.round(position), tf.int32)
