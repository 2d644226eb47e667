"""From an image to the network's input and back: one placement, used for the pixels and for the boxes.

The placement says which rectangle of the network input, in whole pixels, the image fills; RESIZES has the rules.
Training may show a window of the image instead of the whole: it is placed as an image of its size would be.
Sizes are (height, width).
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float32, Int32, Shaped, UInt8

from official.vision.interpolation import INTERPOLATIONS, UNROUNDED
from official.vision.protocol import EvaluationProtocol
from official.vision.warp import WARPS, Map

Images = UInt8[tf.Tensor, "*batch H W 3"] | Float32[tf.Tensor, "*batch H W 3"]  # levels 0..255, see `pixel_type`
Rect = Int32[tf.Tensor, "*batch tlhw=4"]  # top, left, height, width in pixels of the image; may reach beyond it


class Placement(NamedTuple):
    """Where images lie in the network input, in its pixels: (top, left) and (height, width)."""

    offset: Int32[tf.Tensor, "*batch 2"]
    size: Int32[tf.Tensor, "*batch 2"]


Sizes = Int32[tf.Tensor, "*batch 2"]


class ResizeRule(NamedTuple):
    """What a value of `protocol.resize` means."""

    place: Callable[[Sizes, Sizes], Placement]  # by the sizes of images and of their inputs
    pads: bool = False  # something of the input may be left around the image
    own_size: bool = False  # images keep their size, and each has an input of its own
    fractional: bool = False  # shown by `fitting_map`, to fractions of a pixel; `place` is only near it


def _stretched(image_size: Sizes, target: Sizes) -> Placement:
    """All of the input."""
    return Placement(tf.zeros_like(target), target)


def _kept(image_size: Sizes, target: Sizes) -> Placement:
    """The image as it is, in the middle."""
    return Placement(target // 2 - image_size // 2, image_size)


def _letterboxed(image_size: Sizes, target: Sizes) -> Placement:
    """The largest rectangle of the image's shape, centred, with the integer divisions of Darknet's letterbox_image.

    Its image.c and yolo_layer.c have the same integers, so pixels and boxes agree exactly.
    """
    image = tf.maximum(image_size, 1)
    image_height, image_width = image[..., 0], image[..., 1]  # [*batch]
    height, width = target[..., 0], target[..., 1]
    # The products fit into int32: images up to 65,535 pixels a side (the limit of JPEG), inputs up to 32,767.
    wide = width * image_height < height * image_width  # [*batch], the width is what limits
    new_height = tf.where(wide, image_height * width // image_width, height)
    new_width = tf.where(wide, width, image_width * height // image_height)
    size = tf.maximum(tf.stack([new_height, new_width], axis=-1), 1)  # [*batch, 2]
    return Placement((target - size) // 2, size)


RESIZES = {
    "stretch": ResizeRule(_stretched),
    "letterbox": ResizeRule(_letterboxed, pads=True),
    "keep": ResizeRule(_kept, pads=True, own_size=True),
    # The longer side fills the input's width, centred to a fraction of a pixel.
    "affine": ResizeRule(_letterboxed, fractional=True),
}


def decode_image(contents: Shaped[tf.Tensor, ""]) -> UInt8[tf.Tensor, "h w 3"]:
    """Pixels of one encoded image.

    Args:
        contents: scalar string, the bytes of a JPEG or PNG file. Grey becomes RGB, an alpha channel is dropped, 16 bits
            become 8. An EXIF orientation is not applied: annotations count pixels as they are stored. JPEGs decode to
            libjpeg's pixels, which OpenCV and Pillow give too; TensorFlow's own default is off by up to 20 levels.

    Raises:
        tf.errors.InvalidArgumentError: when TensorFlow cannot decode the bytes (at run time, also inside a graph).
    """
    image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")  # decodes PNG, too
    return tf.ensure_shape(image, [None, None, 3])


def network_size(
    image_size: Int32[tf.Tensor, "*batch 2"], input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Int32[tf.Tensor, "*batch 2"]:
    """(height, width) of the network input for images of `image_size` pixels; of its own for each, if it keeps its."""
    if RESIZES[protocol.resize].own_size:
        return tf.bitwise.bitwise_or(image_size, protocol.keep_multiple - 1) + 1
    target = tf.broadcast_to(tf.constant(input_size, tf.int32), tf.shape(image_size))  # [*batch, 2]
    return tf.ensure_shape(target, image_size.shape)


def placement(
    image_size: Int32[tf.Tensor, "*batch 2"], input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Placement:
    """Placement of images of `image_size` pixels in a network input of `input_size` pixels.

    An `image_size` of 0 (a padding row of a batch) gives a harmless placement. A letterboxed side is at least 1 pixel.
    """
    return RESIZES[protocol.resize].place(image_size, network_size(image_size, input_size, protocol))


def resize_image(image: UInt8[tf.Tensor, "h w 3"], input_size: tuple[int, int], protocol: EvaluationProtocol) -> Images:
    """The image as the network sees it: resized into its placement, `padding_value` around it; [H, W, 3], 0..255.

    By the rule of `protocol.interpolation`, see interpolation.py and, for `affine`, warp.py; the pixels are of
    `pixel_type`. The image's size may be unknown until run time; the result's is static, but for `keep`.
    """
    image_size, rule = tf.shape(image)[:2], RESIZES[protocol.resize]
    if rule.fractional:
        where = fitting_map(image_size, tf.reduce_max(image_size), input_size)
        return WARPS[protocol.interpolation](image, where, input_size)
    offset, size = placement(image_size, input_size, protocol)
    resized = image if rule.own_size else INTERPOLATIONS[protocol.interpolation](image, size)
    if rule.pads:
        after = network_size(image_size, input_size, protocol) - offset - size
        paddings = tf.concat([tf.stack([offset, after], axis=1), [[0, 0]]], axis=0)  # [3, 2]
        resized = tf.pad(resized, paddings, constant_values=padding_level(protocol, resized.dtype))
    return tf.ensure_shape(resized, [*static_size(input_size, protocol), 3])


def static_size(input_size: tuple[int, int], protocol: EvaluationProtocol) -> tuple[int | None, int | None]:
    """(height, width) of every image that `resize_image` makes; None where each has its own."""
    return (None, None) if RESIZES[protocol.resize].own_size else input_size


def fitting_map(image_size: Int32[tf.Tensor, "2"], across: Int32[tf.Tensor, ""], input_size: tuple[int, int]) -> Map:
    """Where `affine` shows an image: its middle in the middle, and `across` of its pixels across the input.

    These are as many as its longer side has, but for a test at several scales: then as the unscaled image's has.
    Source: lib/detectors/base_detector.py pre_process (fix_res) and lib/utils/image.py get_affine_transform of Zhou et
    al. 2019.
    """
    sides, whole = tf.cast(image_size, tf.float64), tf.constant(input_size, tf.float64)
    scale = whole[1] / tf.cast(across, tf.float64)
    return Map(tf.fill([2], scale), whole / 2 - scale * sides / 2)


def pixel_type(protocol: EvaluationProtocol) -> tf.DType:
    """Of the images that `resize_image` makes: whole levels, or float32 where the interpolation does not round."""
    return tf.float32 if protocol.interpolation in UNROUNDED else tf.uint8


def padding_level(protocol: EvaluationProtocol, dtype: tf.DType) -> Shaped[tf.Tensor, ""]:
    """`padding_value` as a scalar of `dtype`; rounded, halves to even, where that holds whole levels."""
    value = round(protocol.padding_value) if dtype.is_integer else protocol.padding_value
    return tf.constant(value, dtype)


def whole_levels(images: Images) -> UInt8[tf.Tensor, "*batch H W 3"]:
    """The same images in uint8, rounded where they are not: for pictures, and for the way to the accelerator."""
    return images if images.dtype == tf.uint8 else tf.cast(tf.round(images), tf.uint8)


def normalise(images: Images) -> Float32[tf.Tensor, "*batch H W 3"]:
    """Levels 0..255 -> the network's input 0..1."""
    return tf.cast(images, tf.float32) / 255.0


def whole_image(image_size: Int32[tf.Tensor, "*batch 2"]) -> Rect:
    """The window that evaluation shows."""
    return tf.concat([tf.zeros_like(image_size), image_size], axis=-1)


def image_to_input(
    image_size: Int32[tf.Tensor, "*batch 2"], window: Rect, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> tuple[Float32[tf.Tensor, "*batch 2"], Float32[tf.Tensor, "*batch 2"]]:
    """The one geometry: (scale, shift) of (y, x), input = image * scale + shift, both sides relative (0..1)."""
    if RESIZES[protocol.resize].fractional:
        return _fitted(image_size, window, input_size)
    placed = placement(window[..., 2:], input_size, protocol)
    whole = tf.cast(network_size(window[..., 2:], input_size, protocol), tf.float32)
    share = tf.cast(placed.size, tf.float32) / whole  # [*batch, 2], of the input, that the window fills
    sides = tf.cast(tf.maximum(window[..., 2:], 1), tf.float32)
    # Exact for the whole image: 1 and 0 are what `share` and the offset are multiplied by.
    scale = share * (tf.cast(tf.maximum(image_size, 1), tf.float32) / sides)
    shift = tf.cast(placed.offset, tf.float32) / whole - share * (tf.cast(window[..., :2], tf.float32) / sides)
    return scale, shift


def _fitted(
    image_size: Int32[tf.Tensor, "*batch 2"], window: Rect, input_size: tuple[int, int]
) -> tuple[Float32[tf.Tensor, "*batch 2"], Float32[tf.Tensor, "*batch 2"]]:
    """`image_to_input` of `affine`; see `fitting_map`."""
    start, sides = tf.cast(window[..., :2], tf.float32), tf.cast(tf.maximum(window[..., 2:], 1), tf.float32)
    whole = tf.constant(input_size, tf.float32)
    per_pixel = whole[1] / tf.reduce_max(sides, axis=-1, keepdims=True) / whole  # [*batch, 2]
    image = tf.cast(tf.maximum(image_size, 1), tf.float32)
    return per_pixel * image, 0.5 - per_pixel * (start + sides / 2)


def boxes_to_input(
    boxes: Float32[tf.Tensor, "*batch n yxyx=4"],
    image_size: Int32[tf.Tensor, "*batch 2"],
    window: Rect,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> Float32[tf.Tensor, "*batch n yxyx=4"]:
    """Boxes yxyx relative to the image -> yxyx relative to the network input that shows `window`; not clipped.

    Padding rows do not stay zero.
    """
    scale, shift = (_of_corners(part) for part in image_to_input(image_size, window, input_size, protocol))
    return boxes * scale + shift


def boxes_to_original(
    boxes: Float32[tf.Tensor, "*batch n yxyx=4"],
    image_size: Int32[tf.Tensor, "*batch 2"],
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
) -> Float32[tf.Tensor, "*batch n yxyx=4"]:
    """Boxes yxyx relative to the network input -> yxyx relative to the original image, not clipped to it.

    The inverse of `boxes_to_input` of the whole image (Darknet's yolo_layer.c).
    """
    geometry = image_to_input(image_size, whole_image(image_size), input_size, protocol)
    scale, shift = (_of_corners(part) for part in geometry)
    return (boxes - shift) / scale


def _of_corners(of_axes: Float32[tf.Tensor, "*batch 2"]) -> Float32[tf.Tensor, "*batch 1 yxyx=4"]:
    """(y, x) for both corners of a box, the same for all boxes of an image."""
    return tf.concat([of_axes, of_axes], axis=-1)[..., tf.newaxis, :]  # [*batch, 1, 4]
