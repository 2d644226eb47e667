"""Jitter crop: a window of the source image becomes the network's input. Drawn, then applied, on the host.

A window is a rectangle in pixels of the source image; it may reach beyond it. The network sees it as it would see an
image of that size: official/vision/resize.py maps it into the input, so the whole image as window is the evaluation's
geometry, and pixels and boxes follow one scale and one shift. Where the input shows no
source pixel (window beyond the image, letterbox), it is the protocol's `padding_value`. With `letterbox` a window keeps
its own shape; Darknet's letter_box=1 keeps the whole image's, so that its jitter also changes the aspect (data.c).
"""

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import Augmentation
from official.core.config import Protocol
from official.vision.resize import Window, boxes_to_input, image_to_input, padding_level, placement


def draw_geometry(config: Augmentation, seed: Int64[tf.Tensor, "2"], image_size: Int32[tf.Tensor, "2"]) -> Window:
    """Draws a window: each edge of the image moves in or out by up to `jitter` of the side, independently.

    On top of it, top and left together, and bottom and right together, move by a share of the side drawn between those
    that shrink and enlarge the objects by the factor `resize` (below 1: that only shrink them).

    In whole pixels, limits and sums cut towards zero (Darknet data.c load_data_detection: pleft, pright, ptop, pbot). A
    jitter of a half or more could turn the window inside out: a side stays at least 1 pixel.
    """
    sides = tf.cast(tf.concat([image_size, image_size], axis=0), tf.float32)  # [4]: height, width, height, width
    u = tf.random.stateless_uniform([6], seed)
    shift = tf.floor(sides * config.jitter) * (2.0 * u[:4] - 1.0)
    if config.resize != 1.0:
        smaller = min(config.resize, 1 / config.resize)
        most_out = -tf.floor(sides * (1 / smaller - 1) / 2)
        most_in = tf.floor(sides * (1 - smaller) / 2) if config.resize > 1 else tf.zeros_like(sides)
        shift = tf.floor(tf.abs(shift)) * tf.sign(shift) + most_out + (most_in - most_out) * tf.repeat(u[4:], 2)
    top, left, bottom, right = tf.unstack(tf.cast(shift, tf.int32))  # inwards where positive
    height, width = image_size[0] - top - bottom, image_size[1] - left - right
    return tf.stack([top, left, tf.maximum(height, 1), tf.maximum(width, 1)])


def apply_geometry(
    image: UInt8[tf.Tensor, "h w 3"], window: Window, input_size: tuple[int, int], protocol: Protocol
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input for a window: bilinear, no antialiasing, rounded to uint8.

    It samples the image where `protocol.interpolation` does: half-pixel centres or aligned corners. A pixel of the
    input shows the image where its centre falls inside it, and `padding_value` elsewhere; at the rim the image's
    outermost pixels count on (no blending with the padding). Darknet instead repeats the rim over all that lies
    outside (`crop_image`), its OpenCV build fills in the image's mean.
    """
    image_size, whole = tf.shape(image)[:2], tf.constant(input_size, tf.float32)
    sides = tf.cast(image_size, tf.float32)
    scale, shift = image_to_input(image_size, window, input_size, protocol)
    scale, offset = scale * whole / sides, shift * whole  # [2], pixels -> pixels
    inside_y, inside_x = (
        _inside(length, scale[axis], offset[axis], sides[axis]) for axis, length in enumerate(input_size)
    )
    if protocol.interpolation == "align_corners":
        scale, offset = _aligned_corners(window, input_size, protocol)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],  # [1, h, w, 3]
        size=input_size,
        scale=scale,
        translation=offset,
        kernel_type="triangle",
        antialias=False,
    )[0]  # float32 [H, W, 3]
    inside = (inside_y[:, tf.newaxis] & inside_x)[..., tf.newaxis]  # [H, W, 1]
    return tf.where(inside, tf.cast(tf.round(resized), tf.uint8), padding_level(protocol, tf.uint8))


def crop_image(image: UInt8[tf.Tensor, "h w c"], window: Window) -> UInt8[tf.Tensor, "H W c"]:
    """The window's pixels, [4]; beyond the image its outermost ones, repeated (Darknet image.c crop_image)."""
    top, left, height, width = tf.unstack(window)
    rows, columns = (
        tf.clip_by_value(start + tf.range(length), 0, side - 1)
        for start, length, side in zip((top, left), (height, width), tf.unstack(tf.shape(image)[:2]), strict=True)
    )
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def transform_boxes(
    boxes: Float32[tf.Tensor, "n 4"],
    image_size: Int32[tf.Tensor, "2"],
    window: Window,
    input_size: tuple[int, int],
    protocol: Protocol,
) -> tuple[Float32[tf.Tensor, "n 4"], Bool[tf.Tensor, " n"]]:
    """Boxes yxyx relative to the image -> yxyx relative to the input of a window, clipped to it; and which to keep.

    See `large_enough` for which.
    """
    clipped = tf.clip_by_value(boxes_to_input(boxes, image_size, window, input_size, protocol), 0.0, 1.0)
    return clipped, large_enough(clipped, input_size)


def large_enough(boxes: Float32[tf.Tensor, "n 4"], input_size: tuple[int, int]) -> Bool[tf.Tensor, " n"]:
    """Whether boxes yxyx relative to the input are at least 1 of its pixels high and wide. False for NaN.

    Darknet data.c fill_truth_detection (lowest_w, lowest_h).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]) * tf.constant(input_size, tf.float32)  # [n, 2]
    return tf.reduce_all(sides >= 1.0, axis=1)


def _inside(length: int, scale: tf.Tensor, offset: tf.Tensor, side: tf.Tensor) -> Bool[tf.Tensor, " length"]:
    """Which of `length` input pixels have their centre within a source side of `side` pixels."""
    centres = (tf.range(length, dtype=tf.float32) + 0.5 - offset) / scale
    return (centres >= 0.0) & (centres <= side)


def _aligned_corners(
    window: Window, input_size: tuple[int, int], protocol: Protocol
) -> tuple[Float32[tf.Tensor, "2"], Float32[tf.Tensor, "2"]]:
    """(scale, offset) of (y, x) in pixels that put the centres of a window's corner pixels on its placement's."""
    placed = placement(window[2:], input_size, protocol)
    steps = tf.cast(tf.maximum(tf.stack([placed.size - 1, window[2:] - 1]), 1), tf.float32)  # [2, 2]
    scale = steps[0] / steps[1]
    centre = tf.cast(window[:2], tf.float32) + 0.5  # of the window's first pixel, in the image
    return scale, tf.cast(placed.offset, tf.float32) + 0.5 - scale * centre
