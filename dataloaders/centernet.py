"""CenterNet's way from a position of the training stream to an example: one image under a random affine map."""

import tensorflow as tf
from jaxtyping import Int32, Int64

from configs.data import TrainSplit
from dataloaders.augment.centernet import (
    AffineDraws,
    apply_affine,
    draw_affine,
    draw_colours,
    transform_corners,
    whole_affine,
)
from dataloaders.batch import CenterNetDraws, TrainBatch, pad_rows
from dataloaders.examples import Examples, decode_example
from dataloaders.order import draw_row
from official.core.config import Protocol


class Centred:
    """Makes the example at a position: a row of a TrainBatch (its fields without the first dimension).

    All boxes keep their rows, also those that the map moves out of sight: which count is the loss's decision.
    """

    def __init__(
        self, examples: Examples, split: TrainSplit, input_size: tuple[int, int], protocol: Protocol, seed: int
    ) -> None:
        """
        Args:
            examples: with boxes xyxy in pixels.
            protocol: its `interpolation` is that of the map.
            seed: of the run.
        """
        self.examples, self.split, self.input_size, self.seed = examples, split, input_size, seed
        self._interpolation = protocol.interpolation

    def __call__(self, position: Int64[tf.Tensor, ""]) -> TrainBatch:
        row, _ = draw_row(position, len(self.examples), self.seed)
        example, most = self.examples.read(row), self.split.max_boxes
        affine, colours = self.draws(position, example.size)
        return TrainBatch(
            apply_affine(decode_example(example), affine, self.input_size, self._interpolation),
            pad_rows(transform_corners(example.boxes, example.size, affine, self.input_size), most),
            pad_rows(example.classes, most),
            pad_rows(tf.ones_like(example.classes, tf.bool), most),
            example.example_id,
            colours,
        )

    def draws(
        self, position: Int64[tf.Tensor, ""], image_size: Int32[tf.Tensor, "2"]
    ) -> tuple[AffineDraws, CenterNetDraws]:
        """What is drawn for an image of (height, width) at a position."""
        _, seed = draw_row(position, len(self.examples), self.seed)
        map_seed, colour_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        config = self.split.augmentation
        affine = draw_affine(config, map_seed, image_size) if config else whole_affine(image_size)
        return affine, draw_colours(config, colour_seed, affine.flip)
