"""The originals' own order of work, on images that are decoded as a whole: exact, and slow.

Darknet: crop with the fill, resize to the input's size, mirror, cut. Scaled-YOLOv4 and YOLOv7: resize, lay out on a
canvas, warp; so it is also the way of the maps that are no scale and shift.
"""

from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Float32, UInt8

from dataloaders.compose.affine import FILL, AffineDraws, canvas_of
from dataloaders.compose.darknet import DarknetDraws
from dataloaders.compose.jpeg import crop_pixels
from dataloaders.compose.pixels import Fill, surround
from official.vision.interpolation import INTERPOLATIONS
from official.vision.resize import Rect, whole_levels


def darknet_image(
    images: Sequence[UInt8[tf.Tensor, "_ _ 3"]],
    draws: DarknetDraws,
    fill: Fill,
    interpolation: str,
    input_size: tuple[int, int],
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input of a lone image or of a mosaic of four."""
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


def _frame(
    image: UInt8[tf.Tensor, "h w 3"],
    window: Rect,
    flip: tf.Tensor,
    fill: Fill,
    interpolation: str,
    input_size: tuple[int, int],
) -> UInt8[tf.Tensor, "H W 3"]:
    """image_data_augmentation (OpenCV build), or crop_image and resize_image."""
    if fill == "edge":
        cropped = crop_image(image, window)
    else:
        size, start, side = tf.shape(image)[:2], window[:2], window[2:]
        low, high = tf.minimum(tf.maximum(start, 0), size), tf.minimum(start + side, size)
        high = tf.maximum(high, low)
        place = tf.concat([low - start, high - low], axis=0)
        part = crop_pixels(image, tf.concat([low, high - low], axis=0))
        cropped = surround(part, side, place, _mean(image) if fill == "mean" else fill)
    sized = whole_levels(INTERPOLATIONS[interpolation](cropped, tf.constant(input_size)))
    return tf.ensure_shape(tf.cond(flip, lambda: tf.reverse(sized, [1]), lambda: sized), [*input_size, 3])


def _mean(image: UInt8[tf.Tensor, "h w 3"]) -> UInt8[tf.Tensor, "3"]:
    return tf.cast(tf.round(tf.reduce_mean(tf.cast(image, tf.float64), axis=[0, 1])), tf.uint8)


def crop_image(image: UInt8[tf.Tensor, "h w c"], window: Rect) -> UInt8[tf.Tensor, "H W c"]:
    """The window's pixels, [4]; beyond the image its outermost ones, repeated (Darknet image.c crop_image)."""
    top, left, height, width = tf.unstack(window)
    rows, columns = (
        tf.clip_by_value(start + tf.range(length), 0, side - 1)
        for start, length, side in zip((top, left), (height, width), tf.unstack(tf.shape(image)[:2]), strict=True)
    )
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def warped_image(
    images: Sequence[UInt8[tf.Tensor, "_ _ 3"]], draws: AffineDraws, input_size: tuple[int, int]
) -> UInt8[tf.Tensor, "H W 3"]:
    """The canvas, mapped into the network's input: bilinear between whole pixels' centres, rounded."""
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
        inside = tf.clip_by_value(low - corner, 0, draws.resized[number])  # empty beside the canvas
        parts.append(crop_pixels(sized, tf.concat([inside, high - low], axis=0)))
        places.append(tf.concat([low, high - low], axis=0))
    # What they differ from the fill by, modulo 256, summed: they do not overlap.
    level = tf.constant(FILL, tf.uint8)
    return level + tf.add_n(
        [surround(part - level, limits, place, 0) for part, place in zip(parts, places, strict=True)]
    )


def warped_boxes(boxes: Float32[tf.Tensor, "p n 4"], matrix: Float32[tf.Tensor, "3 3"]) -> Float32[tf.Tensor, "p n 4"]:
    """The upright rectangles around boxes yxyx on the canvas, mapped into the input; in pixels."""
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    x, y = tf.stack([left, right, left, right], axis=-1), tf.stack([top, bottom, bottom, top], axis=-1)  # [p, n, 4]
    mapped = tf.stack([x, y, tf.ones_like(x)], axis=-1) @ tf.transpose(matrix)  # [p, n, 4, 3]
    x, y = tf.unstack(mapped[..., :2] / mapped[..., 2:], axis=-1)
    edges = (tf.reduce_min(y, -1), tf.reduce_min(x, -1), tf.reduce_max(y, -1), tf.reduce_max(x, -1))
    return tf.stack(edges, axis=-1)


def boxes_on_canvas(boxes: Float32[tf.Tensor, "p n 4"], draws: AffineDraws) -> Float32[tf.Tensor, "p n 4"]:
    """Boxes yxyx relative to their image -> in pixels of the canvas."""
    size, corner = (tf.cast(tf.tile(part, [1, 2]), tf.float32)[:, tf.newaxis] for part in (draws.resized, draws.corner))
    return boxes * size + corner
