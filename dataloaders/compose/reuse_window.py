"""A window of decoded images from which a block of examples is made: each image is decoded once for all its uses.

The window of a block holds the block's images (blocks.py), so it follows from the seed and the position alone: a run
that resumes decodes one window, and nothing before it. Elements carry their window by reference.
"""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Int32, Int64

from dataloaders.compose.jpeg import Stored, TensorList, encoded_pixels
from dataloaders.compose.pieces import Truths
from dataloaders.compose.truths import no_truths, truth_of
from dataloaders.reading.dataset import Examples
from dataloaders.schedule.order import row_at


class WindowOfImages(NamedTuple):
    """Decoded images. What was not decoded at its full size is at least as large as the network's input."""

    images: TensorList  # uint8 [h, w, 3]
    ratio: Int32[tf.Tensor, " w"]  # decoded at 1 / ratio of the size
    truths: Truths

    def at(self, places: Int64[tf.Tensor, " p"]) -> tuple[Truths, Stored]:
        """Some of them."""
        truths = Truths(*(tf.gather(field, places) for field in self.truths))
        return truths, Stored(self.images, places, tf.gather(self.ratio, places))


def with_windows(
    positions: tf.data.Dataset,
    block_examples: int,
    block_images: int,
    examples: Examples,
    seed: int,
    max_boxes: int,
    input_size: tuple[int, int],
) -> tf.data.Dataset:
    """Positions, int64 in any order -> (position, its window). A window is made when the first of a run asks for it.

    The next one is made in advance while the examples of one are.
    """

    @tf.autograph.experimental.do_not_convert
    def next_(state: tuple, position: Int64[tf.Tensor, ""]) -> tuple:
        block, window = position // block_examples, state[1]
        window = tf.cond(
            block == state[0],
            lambda: window,
            lambda: load_window(block, block_images, examples, seed, max_boxes, input_size),
        )
        return (block, window), (position, window)

    nothing = tf.constant(-1, tf.int64), _empty(block_images, max_boxes)
    return positions.scan(nothing, next_).prefetch(block_examples)


def load_window(
    block: Int64[tf.Tensor, ""],
    count: int,
    examples: Examples,
    seed: int,
    max_boxes: int,
    input_size: tuple[int, int],
) -> WindowOfImages:
    """Decodes the images of a block, several at a time."""

    side = tf.constant(input_size, tf.float32)

    def one(number: Int32[tf.Tensor, ""], images: tf.Tensor, arrays: list[tf.TensorArray]) -> tuple:
        example = examples.read(row_at(block * count + tf.cast(number, tf.int64), len(examples), seed))
        pixels = encoded_pixels(example)
        (ratio,) = tf.unstack(pixels.ratio(tf.reduce_min(tf.cast(example.size, tf.float32) / side)[tf.newaxis]))
        whole = tf.concat([[0, 0], -(-example.size // ratio)], axis=0)
        image = pixels.patch(tf.constant(0), ratio, whole)
        images = tf.raw_ops.TensorListSetItem(input_handle=images, index=number, item=image)
        found = (ratio, *truth_of(example, max_boxes))
        return number + 1, images, [array.write(number, value) for array, value in zip(arrays, found, strict=True)]

    empty = _empty(count, max_boxes)
    fields = (empty.ratio, *empty.truths)
    arrays = [tf.TensorArray(field.dtype, count, element_shape=field.shape[1:]) for field in fields]
    _, images, arrays = tf.while_loop(
        lambda number, *_: number < count, one, (tf.constant(0), empty.images, arrays), maximum_iterations=count
    )
    ratio, *truths = (array.stack() for array in arrays)
    return WindowOfImages(images, ratio, Truths(*truths))


def _empty(count: int, max_boxes: int) -> WindowOfImages:
    images = tf.raw_ops.TensorListReserve(
        element_shape=tf.constant([-1, -1, 3]), num_elements=count, element_dtype=tf.uint8
    )
    return WindowOfImages(images, tf.zeros([count], tf.int32), no_truths(count, max_boxes))
