"""Decodes what is seen of a JPEG, at the scale at which it is seen."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8

from dataloaders.compose.pieces import RATIOS
from dataloaders.reading.dataset import Example
from official.vision.resize import Rect, decode_image

_JPEG = b"\xff\xd8\xff"
_BRANCH_OF_RATIO = [RATIOS.index(ratio) + 1 if ratio in RATIOS else 0 for ratio in range(max(RATIOS) + 1)]

TensorList = Any  # a scalar tensor of dtype variant, which jaxtyping has no name for


class EncodedPixels:
    """Images that are decoded when something of them is asked for, and no more than that."""

    def __init__(
        self, encoded: Callable[[Int32[tf.Tensor, ""]], Shaped[tf.Tensor, ""]], jpeg: Bool[tf.Tensor, " p"]
    ) -> None:
        """
        Args:
            encoded: gives the bytes of one of them, a JPEG or PNG file whose size has been checked, as a scalar string.
            jpeg: which are JPEGs.
        """
        self._encoded, self._jpeg = encoded, jpeg

    def ratio(self, shrink: Float32[tf.Tensor, " p"]) -> Int32[tf.Tensor, " p"]:
        return tf.where(self._jpeg, dct_ratio(shrink), 1)

    def patch(self, number: Int32[tf.Tensor, ""], ratio: Int32[tf.Tensor, ""], crop: Rect) -> UInt8[tf.Tensor, "h w 3"]:
        branch = tf.where(tf.gather(self._jpeg, number), tf.gather(_BRANCH_OF_RATIO, ratio), 0)
        return decode_window(self._encoded(number), branch, crop)


def encoded_pixels(example: Example) -> EncodedPixels:
    """The pixels of one image; see `checked`."""
    encoded = checked(example)
    return EncodedPixels(lambda _: encoded, is_jpeg(encoded)[tf.newaxis])


class DecodedPixels:
    """Images that have been decoded before, at 1 / ratio of their size, and are kept."""

    def __init__(self, images: TensorList, places: Int64[tf.Tensor, " p"], ratio: Int32[tf.Tensor, " p"]) -> None:
        """`images`: uint8 [h, w, 3], of which those at `places` are the example's."""
        self._images, self._places, self._ratio = images, tf.cast(places, tf.int32), ratio

    def ratio(self, shrink: Float32[tf.Tensor, " p"]) -> Int32[tf.Tensor, " p"]:
        return self._ratio

    def patch(self, number: Int32[tf.Tensor, ""], ratio: Int32[tf.Tensor, ""], crop: Rect) -> UInt8[tf.Tensor, "h w 3"]:
        image = tf.raw_ops.TensorListGetItem(
            input_handle=self._images,
            index=tf.gather(self._places, number),
            element_shape=tf.constant([-1, -1, 3]),
            element_dtype=tf.uint8,
        )
        return crop_pixels(tf.ensure_shape(image, [None, None, 3]), crop)


def checked(example: Example) -> Shaped[tf.Tensor, ""]:
    """The bytes of an image, scalar string, once its header states the size it had when the run began.

    Not beside the decoding: what is inside a branch must keep no state, see `decode_example`.

    Raises:
        tf.errors.InvalidArgumentError: it has another size, or its header cannot be read (at run time).
    """
    told = ["image", example.name, "has another size than", example.size, "which it had when the run began"]
    found = stated_size(example.encoded)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(found == example.size), told)]):
        return tf.identity(example.encoded)


def is_jpeg(encoded: Shaped[tf.Tensor, "*b"]) -> Bool[tf.Tensor, "*b"]:
    """Marks the strings that begin as JPEGs do."""
    return tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG


def dct_ratio(shrink: Float32[tf.Tensor, "*b"]) -> Int32[tf.Tensor, "*b"]:
    """The largest of RATIOS that leaves at least as many pixels as are shown, for a view that is `shrink` smaller."""
    return tf.reduce_max(tf.where(shrink[..., tf.newaxis] >= tf.constant(RATIOS, tf.float32), RATIOS, 1), axis=-1)


def decode_window(
    encoded: Shaped[tf.Tensor, ""], branch: Int32[tf.Tensor, ""], crop: Rect
) -> UInt8[tf.Tensor, "h w 3"]:
    """The pixels of a crop of an image.

    A part of a JPEG is decoded with libjpeg's fastest inverse DCT, and colours at half the resolution are not smoothed.

    Args:
        encoded: scalar string, bytes of a JPEG or PNG file.
        branch: 1 to 4: a JPEG at 1 / RATIOS[branch - 1] of its size; 0: any other file, decoded whole.
        crop: [4] in pixels of the image at that size; inside it, and not empty.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded (at run time).
    """

    def part(ratio: int) -> UInt8[tf.Tensor, "h w 3"]:
        return tf.io.decode_and_crop_jpeg(
            encoded, crop, channels=3, ratio=ratio, dct_method="INTEGER_FAST", fancy_upscaling=False
        )

    parts = [lambda ratio=ratio: part(ratio) for ratio in RATIOS]
    pixels = tf.switch_case(branch, [lambda: crop_pixels(decode_image(encoded), crop), *parts])
    return tf.ensure_shape(pixels, [None, None, 3])


def stated_size(encoded: Shaped[tf.Tensor, ""]) -> Int32[tf.Tensor, "2"]:
    """(height, width) from the header of a JPEG or PNG file; nothing is decoded."""

    def of_png() -> Int32[tf.Tensor, "_"]:
        return tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)[::-1]

    return tf.ensure_shape(tf.cond(is_jpeg(encoded), lambda: tf.io.extract_jpeg_shape(encoded)[:2], of_png), [2])


def crop_pixels(image: UInt8[tf.Tensor, "h w 3"], crop: Rect) -> UInt8[tf.Tensor, "H W 3"]:
    """The pixels of a window [4] inside the image. In two dimensions: ten times as fast."""
    rows, columns, _ = tf.unstack(tf.shape(image))
    flat = tf.reshape(image, [rows, 3 * columns])  # [h, 3 w]
    part = tf.slice(flat, *tf.split(crop * [1, 3, 1, 3], 2))
    return tf.reshape(part, tf.concat([crop[2:], [3]], axis=0))
