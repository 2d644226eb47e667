"""CenterNet's way from a position of the training stream to an example: one image under a random affine map."""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Int64

from configs.data import CenterNetAugmentation, TrainSplit
from dataloaders.augment.centernet import apply_affine, draw_affine, draw_colours, transform_corners, whole_affine
from dataloaders.batch import TrainBatch, pad_rows
from dataloaders.examples import Examples, decode_example
from dataloaders.order import draw_row
from official.core.config import Protocol


def centred(
    examples: Examples, split: TrainSplit, input_size: tuple[int, int], protocol: Protocol, seed: int
) -> Callable[[Int64[tf.Tensor, ""]], TrainBatch]:
    """A function that makes the example at a position: a row of a TrainBatch (its fields without the first dimension).

    All boxes keep their rows, also those that the map moves out of sight: which count is the loss's decision.

    Args:
        examples: with boxes xyxy in pixels.
        protocol: its `interpolation` is that of the map.
        seed: of the run.
    """
    augmentation: CenterNetAugmentation | None = split.augmentation

    def make(position: Int64[tf.Tensor, ""]) -> TrainBatch:
        row, example_seed = draw_row(position, len(examples), seed)
        map_seed, colour_seed = tf.unstack(tf.random.experimental.stateless_split(example_seed, 2))
        example = examples.read(row)
        size = example.size
        draws = draw_affine(augmentation, map_seed, size) if augmentation else whole_affine(size)
        boxes = transform_corners(example.boxes, size, draws, input_size)
        return TrainBatch(
            apply_affine(decode_example(example), draws, input_size, protocol.interpolation),
            pad_rows(boxes, split.max_boxes),
            pad_rows(example.classes, split.max_boxes),
            pad_rows(tf.ones_like(example.classes, tf.bool), split.max_boxes),
            example.example_id,
            draw_colours(augmentation, colour_seed, draws.flip),
        )

    return make
