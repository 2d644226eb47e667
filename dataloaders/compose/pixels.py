"""From pieces to the network's input: cut, resize, fill, put together."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, UInt8

from dataloaders.compose.pieces import Cuts, Pixels, sides
from official.vision.resize import Rect

Fill = int | str  # a level 0..255; "edge": the outermost pixels go on; "mean": the mean of what is seen

_MEAN_OF_EVERY = 8  # rows, of which the mean is taken


class Cells:
    """Pieces with their fill: uint8 [h, w, 3], each of its cell's size."""

    def __init__(
        self, count: Int32[tf.Tensor, ""], most: int, make: Callable[[Int32[tf.Tensor, ""]], tf.Tensor]
    ) -> None:
        """Makes the first `count` of at most `most`. In a loop: a graph of many decoders takes minutes to start."""
        self._only = make(tf.constant(0)) if most == 1 else None
        if most > 1:
            array = tf.TensorArray(tf.uint8, most, infer_shape=False, element_shape=[None, None, 3])
            self._array = tf.while_loop(
                lambda number, _: number < count,
                lambda number, array: (number + 1, array.write(number, make(number))),
                (tf.constant(0), array),
                parallel_iterations=1,  # examples are made in parallel; pieces, too, would only change threads
                maximum_iterations=most,
            )[1]

    def read(self, number: Int32[tf.Tensor, ""]) -> UInt8[tf.Tensor, "h w 3"]:
        return self._only if self._only is not None else self._array.read(number)


def put_together(
    cells: Sequence[UInt8[tf.Tensor, "_h _w 3"]], places: Int32[tf.Tensor, "p yxyx=4"], input_size: tuple[int, int]
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input, tiled by one cell, by four in the order of reading, or by nine; see affine.py `pieces_of`.

    Args:
        places: top, left, bottom, right of each cell.
    """
    if len(cells) == 1:
        (image,) = cells
    elif len(cells) == 4:
        image = _grid([cells[:2], cells[2:]])
    else:
        image = _pinwheel(cells, places[0])
    return tf.ensure_shape(image, [*input_size, 3])


def _pinwheel(
    cells: Sequence[UInt8[tf.Tensor, "_h _w 3"]], middle: Int32[tf.Tensor, "yxyx=4"]
) -> UInt8[tf.Tensor, "H W 3"]:
    """The first in the middle, two on each side, clockwise from above its top left corner."""
    top, _, bottom, _ = tf.unstack(middle)
    one, *around = cells
    above, below = tf.concat(around[:2], axis=1), tf.concat(around[5:3:-1], axis=1)
    beside, before = tf.concat(around[2:4], axis=0), tf.concat(around[:5:-1], axis=0)
    height = bottom - top
    (higher, left), (right, lower) = tf.split(before, [top, height]), tf.split(beside, [height, -1])
    return _grid([[higher, above], [left, one, right], [below, lower]])


def _grid(rows: Sequence[Sequence[UInt8[tf.Tensor, "_h _w 3"]]]) -> UInt8[tf.Tensor, "H W 3"]:
    return tf.concat([tf.concat(row, axis=1) for row in rows], axis=0)


def blend(
    one: UInt8[tf.Tensor, "H W 3"], other: UInt8[tf.Tensor, "H W 3"], share: Float32[tf.Tensor, ""], rounding: float
) -> UInt8[tf.Tensor, "H W 3"]:
    """`share` of the one and 1 - `share` of the other, in levels; 0.5 rounds them, 0 cuts them off."""
    mixed = tf.cast(one, tf.float32) * share + tf.cast(other, tf.float32) * (1.0 - share)
    return tf.cast(mixed + rounding, tf.uint8)


def cell_of(
    number: Int32[tf.Tensor, ""],
    pixels: Pixels,
    cells: Int32[tf.Tensor, "p yxyx=4"],
    flip: Bool[tf.Tensor, " p"],
    cuts: Cuts,
    fill: Fill,
) -> UInt8[tf.Tensor, "h w 3"]:
    """A piece with its fill. A piece that shows nothing is not decoded."""
    # Gathered: indexing by a tensor would be four operations each.
    mirrored, ratio, crop, place, size = (
        tf.gather(field, number) for field in (flip, cuts.ratio, cuts.crop, cuts.place, sides(cells))
    )
    shown = place[2:]

    def seen() -> UInt8[tf.Tensor, "h w 3"]:
        patch = pixels.patch(number, ratio, crop)
        resized = resize_patch(patch, shown)
        resized = tf.cond(mirrored, lambda: tf.reverse(resized, [1]), lambda: resized)
        return surround(resized, size, place, _mean(patch) if fill == "mean" else fill)

    if isinstance(fill, str):  # then something is always seen
        return seen()
    return tf.cond(tf.reduce_any(shown <= 0), lambda: _spread(fill, *tf.unstack(size)), seen)


def resize_patch(patch: UInt8[tf.Tensor, "h w 3"], size: Int32[tf.Tensor, "2"]) -> UInt8[tf.Tensor, "H W 3"]:
    """Bilinear, half-pixel centres, not smoothed, rounded (halves up). `tf.image.resize` would copy to float first."""
    resized = tf.raw_ops.ResizeBilinear(images=patch[tf.newaxis], size=size, half_pixel_centers=True)[0]
    return tf.cast(resized + 0.5, tf.uint8)  # [H, W, 3]


def surround(
    pixels: UInt8[tf.Tensor, "h w 3"],
    size: Int32[tf.Tensor, "2"],
    place: Rect,
    fill: UInt8[tf.Tensor, "3"] | Fill,
) -> UInt8[tf.Tensor, "H W 3"]:
    """Pixels at their place [4], and the fill around them: a level, a colour, or "edge"."""
    edge = isinstance(fill, str)
    before, shown = tf.split(place, 2)
    (above, left), (below, right) = tf.unstack(before), tf.unstack(size - before - shown)
    (height, _), (_, width) = tf.unstack(shown), tf.unstack(size)
    # Joined, not padded or assigned to, which takes eight times as long.
    first, last = (pixels[:, :1], pixels[:, -1:]) if edge else (fill, fill)
    wide = tf.concat([_spread(first, height, left), pixels, _spread(last, height, right)], axis=1)  # [h, W, 3]
    first, last = (wide[:1], wide[-1:]) if edge else (fill, fill)
    return tf.concat([_spread(first, above, width), wide, _spread(last, below, width)], axis=0)


def _spread(
    part: int | UInt8[tf.Tensor, "*one 3"], height: Int32[tf.Tensor, ""], width: Int32[tf.Tensor, ""]
) -> UInt8[tf.Tensor, "h w 3"]:
    """A level, a colour, a row or a column, repeated."""
    shape = tf.stack([height, width, 3])
    return tf.fill(shape, tf.constant(part, tf.uint8)) if isinstance(part, int) else tf.broadcast_to(part, shape)


def _mean(patch: UInt8[tf.Tensor, "h w 3"]) -> UInt8[tf.Tensor, "3"]:
    """The mean colour of every eighth row, rounded."""
    rows = tf.cast(tf.gather(patch, tf.range(0, tf.shape(patch)[0], _MEAN_OF_EVERY)), tf.float32)
    return tf.cast(tf.round(tf.reduce_mean(rows, axis=[0, 1])), tf.uint8)
