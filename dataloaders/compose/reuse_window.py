"""The decoded images of a block, of which all its examples are made: each image is decoded once for all its uses.

Which images they are follows from the schedule, so from the seed and the position alone: a run that resumes decodes one
block, and nothing before it. Elements of the stream carry the images of their block by reference.
"""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Int32, Int64

from dataloaders.compose.jpeg import DecodedPixels, TensorList, encoded_pixels
from dataloaders.compose.pieces import Truths
from dataloaders.compose.truths import no_truths, truth_of
from dataloaders.reading.dataset import Examples
from dataloaders.schedule.images import ImageSchedule


class BlockImages(NamedTuple):
    """The decoded images of a block. One that is not of its full size is at least as large as the network's input."""

    images: TensorList  # uint8 [h, w, 3]
    ratio: Int32[tf.Tensor, " images"]  # decoded at 1 / ratio of the size
    truths: Truths

    def at(self, places: Int64[tf.Tensor, " p"]) -> tuple[Truths, DecodedPixels]:
        """The truths and the pixels of the images at some places of the block (`ExamplePlan.places`)."""
        truths = Truths(*(tf.gather(field, places) for field in self.truths))
        return truths, DecodedPixels(self.images, places, tf.gather(self.ratio, places))


def with_images(
    positions: tf.data.Dataset,
    schedule: ImageSchedule,
    examples: Examples,
    seed: int,
    max_boxes: int,
    input_size: tuple[int, int],
) -> tf.data.Dataset:
    """Positions, int64 in any order -> (position, images of its block), decoded when the first of a run needs them.

    Those of the next block are decoded in advance, while the examples of one block are made.
    """

    @tf.autograph.experimental.do_not_convert
    def next_(state: tuple, position: Int64[tf.Tensor, ""]) -> tuple:
        block, images = position // schedule.examples, state[1]
        images = tf.cond(
            block == state[0],
            lambda: images,
            lambda: load_block(block, schedule, examples, seed, max_boxes, input_size),
        )
        return (block, images), (position, images)

    nothing = tf.constant(-1, tf.int64), _empty(schedule.images, max_boxes)
    return positions.scan(nothing, next_).prefetch(schedule.examples)


def load_block(
    block: Int64[tf.Tensor, ""],
    schedule: ImageSchedule,
    examples: Examples,
    seed: int,
    max_boxes: int,
    input_size: tuple[int, int],
) -> BlockImages:
    """Decodes the images of a block, several at a time."""
    count, side = schedule.images, tf.constant(input_size, tf.float32)
    rows = schedule.rows_of_block(block, len(examples), seed)

    def one(number: Int32[tf.Tensor, ""], images: tf.Tensor, arrays: list[tf.TensorArray]) -> tuple:
        example = examples.read(tf.gather(rows, number))
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
    return BlockImages(images, ratio, Truths(*truths))


def _empty(count: int, max_boxes: int) -> BlockImages:
    images = tf.raw_ops.TensorListReserve(
        element_shape=tf.constant([-1, -1, 3]), num_elements=count, element_dtype=tf.uint8
    )
    return BlockImages(images, tf.zeros([count], tf.int32), no_truths(count, max_boxes))
