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
from official.vision.resize import Window, boxes_to_input, image_to_input


def draw_geometry(config: Augmentation, seed: Int64[tf.Tensor, "2"], image_size: Int32[tf.Tensor, "2"]) -> Window:
    """Draws a window: each edge of the image moves in or out by up to `jitter` of the side, independently.

    In whole pixels, limit and draw cut towards zero (Darknet data.c load_data_detection: pleft, pright, ptop, pbot),
    but without Darknet's `resize` range. A jitter of a half or more could turn the window inside out: a side stays
    at least 1 pixel.
    """
    sides = tf.cast(tf.concat([image_size, image_size], axis=0), tf.float32)  # [4]: height, width, height, width
    shift = tf.random.stateless_uniform([4], seed, -1.0, 1.0) * tf.floor(sides * config.jitter)
    top, left, bottom, right = tf.unstack(tf.cast(shift, tf.int32))  # inwards where positive
    height, width = image_size[0] - top - bottom, image_size[1] - left - right
    return tf.stack([top, left, tf.maximum(height, 1), tf.maximum(width, 1)])


def apply_geometry(
    image: UInt8[tf.Tensor, "h w 3"], window: Window, input_size: tuple[int, int], protocol: Protocol
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input for a window: bilinear, half-pixel centres, no antialiasing, rounded to uint8.

    A pixel of the input shows the image where its centre falls inside it, and `padding_value` elsewhere; at the rim the
    image's outermost pixels count on (no blending with the padding). Darknet instead repeats the rim over all that lies
    outside (image.c crop_image), its OpenCV build fills in the image's mean.
    """
    image_size, whole = tf.shape(image)[:2], tf.constant(input_size, tf.float32)
    sides = tf.cast(image_size, tf.float32)
    scale, shift = image_to_input(image_size, window, input_size, protocol)
    scale, offset = scale * whole / sides, shift * whole  # [2], pixels -> pixels
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],  # [1, h, w, 3]
        size=input_size,
        scale=scale,
        translation=offset,
        kernel_type="triangle",
        antialias=False,
    )[0]  # float32 [H, W, 3]
    inside_y, inside_x = (
        _inside(length, scale[axis], offset[axis], sides[axis]) for axis, length in enumerate(input_size)
    )
    inside = (inside_y[:, tf.newaxis] & inside_x)[..., tf.newaxis]  # [H, W, 1]
    pixels = tf.cast(tf.round(resized), tf.uint8)
    return tf.where(inside, pixels, tf.constant(protocol.padding_value, tf.uint8))


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
