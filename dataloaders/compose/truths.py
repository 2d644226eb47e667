"""Reads the images of an example, and pads their truths so that they can be stacked."""

import tensorflow as tf
from jaxtyping import Int32, Int64

from dataloaders.batch import pad_rows
from dataloaders.compose.jpeg import EncodedPixels, checked, encoded_pixels, is_jpeg
from dataloaders.compose.pieces import Truths
from dataloaders.reading.dataset import Example, Examples


def truth_of(example: Example, max_boxes: int) -> Truths:
    """The truths of one image: the fields of `Truths` without their first dimension."""
    return Truths(
        example.size,
        example.example_id,
        tf.minimum(tf.size(example.classes), max_boxes),
        pad_rows(example.yxyx, max_boxes),
        pad_rows(example.classes, max_boxes),
    )


def no_truths(count: int, max_boxes: int) -> Truths:
    """Zeros in the place of `count` images."""
    shapes = ([2], tf.int32), ([], tf.int64), ([], tf.int32), ([max_boxes, 4], tf.float32), ([max_boxes], tf.int32)
    return Truths(*(tf.zeros([count, *shape], dtype) for shape, dtype in shapes))


def read_all(
    examples: Examples, rows: Int64[tf.Tensor, " p"], count: Int32[tf.Tensor, ""], max_boxes: int
) -> tuple[Truths, EncodedPixels]:
    """Truths and pixels of the first `count` rows; the others are not read: their truths are zeros, without pixels."""
    most = rows.shape[0]
    if most == 1:
        example = examples.read(tf.squeeze(rows))
        truths = Truths(*(field[tf.newaxis] for field in truth_of(example, max_boxes)))
        return truths, encoded_pixels(example)

    def one(number: Int32[tf.Tensor, ""], arrays: list[tf.TensorArray]) -> tuple:
        example = examples.read(tf.gather(rows, number))
        found = (checked(example), is_jpeg(example.encoded), *truth_of(example, max_boxes))
        return number + 1, [array.write(number, value) for array, value in zip(arrays, found, strict=True)]

    fields = (tf.zeros([0], tf.string), tf.zeros([0], tf.bool), *no_truths(0, max_boxes))
    arrays = [
        tf.TensorArray(field.dtype, most, element_shape=field.shape[1:], clear_after_read=False) for field in fields
    ]
    _, arrays = tf.while_loop(
        lambda number, _: number < count, one, (tf.constant(0), arrays), parallel_iterations=1, maximum_iterations=most
    )
    encoded, jpeg, *truths = arrays
    return Truths(*(array.stack() for array in truths)), EncodedPixels(encoded.read, jpeg.stack())
