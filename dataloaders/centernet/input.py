"""CenterNet's way from a position of the training stream to an example: one image under a random affine map."""

import tensorflow as tf
from jaxtyping import Int32, Int64, UInt8

from configs.data import TrainSplit
from dataloaders.batch import TrainBatch, pad_rows
from dataloaders.centernet.augment import (
    CenterNetDraws,
    MapDraws,
    affine_map,
    apply_affine,
    draw_affine,
    draw_colours,
    faced,
    map_of,
    piece_of,
    transform_corners,
    whole_affine,
)
from dataloaders.compose.example_maker import ExampleMaker, Explained
from dataloaders.compose.jpeg import encoded_pixels
from dataloaders.compose.pieces import Cuts, Pieces, Pixels, cut, explain_pieces, shrink_of
from dataloaders.compose.pixels import cell_of
from dataloaders.reading.dataset import Example, Examples, decode_example
from dataloaders.schedule.order import row_at, seed_at
from official.vision.protocol import EvaluationProtocol
from official.vision.warp import Map

BLACK = 0


class Centred(ExampleMaker):
    """Makes the example at a position: a row of a TrainBatch (its fields without the first dimension).

    All boxes keep their rows, also those that the map moves out of sight: which count is the loss's decision.
    """

    def __init__(
        self,
        examples: Examples,
        split: TrainSplit,
        input_size: tuple[int, int],
        protocol: EvaluationProtocol,
        seed: int,
    ) -> None:
        """
        Args:
            examples: with boxes xyxy in pixels.
            protocol: its `interpolation` is that of the map, where the whole image is decoded.
            seed: of the run.
        """
        self.examples, self.split, self.input_size, self.seed = examples, split, input_size, seed
        self._interpolation = protocol.interpolation
        self.precise = split.augmentation is None or split.augmentation.precise

    def __call__(self, position: Int64[tf.Tensor, ""]) -> TrainBatch:
        example = self.examples.read(row_at(position, len(self.examples), self.seed))
        most = self.split.max_boxes
        affine, colours = self.draws(position, example.size)
        image, where = self._exact(example, affine) if self.precise else self._seen(example, affine)
        return TrainBatch(
            image,
            pad_rows(transform_corners(example.boxes, example.size, affine.flip, where), most),
            pad_rows(example.classes, most),
            pad_rows(tf.ones_like(example.classes, tf.bool), most),
            example.example_id,
            colours,
        )

    def explain(self, position: Int64[tf.Tensor, ""]) -> Explained:
        """One image under an affine map."""
        row = row_at(position, len(self.examples), self.seed)
        example = self.examples.read(row)
        affine, _ = self.draws(position, example.size)
        found = {"affine": affine, "map": affine_map(affine, self.input_size)}
        if self.precise:
            return Explained([int(row)], found, [None])
        pieces, cuts = self.cuts(example.size, affine, encoded_pixels(example))
        found |= {"kind": [1], "fill": BLACK}
        found["pieces"], shown = explain_pieces(pieces.cell, pieces.flip, cuts, 1)
        return Explained([int(row)], found, shown)

    def _exact(self, example: Example, affine: MapDraws) -> tuple[UInt8[tf.Tensor, "H W 3"], Map]:
        """The input by the original's own step, of the whole image; and the map by which boxes go."""
        image = apply_affine(decode_example(example), affine, self.input_size, self._interpolation)
        return image, affine_map(affine, self.input_size)

    def _seen(self, example: Example, affine: MapDraws) -> tuple[UInt8[tf.Tensor, "H W 3"], Map]:
        """The same of what is seen alone, and the map that follows from its whole pixels."""
        pixels = encoded_pixels(example)
        pieces, cuts = self.cuts(example.size, affine, pixels)
        image = cell_of(tf.constant(0), pixels, pieces.cell, pieces.flip, cuts, BLACK)
        where = faced(map_of(cuts), affine.flip, example.size[1], self.input_size[1])
        return tf.ensure_shape(image, [*self.input_size, 3]), where

    def cuts(self, image_size: Int32[tf.Tensor, "2"], affine: MapDraws, pixels: Pixels) -> tuple[Pieces, Cuts]:
        """What is decoded of an image that is seen in part, and where it goes: one piece."""
        where = faced(affine_map(affine, self.input_size), affine.flip, image_size[1], self.input_size[1])
        pieces = piece_of(where, self.input_size)
        return pieces, cut(pieces, image_size[tf.newaxis], pixels.ratio(shrink_of(pieces)), rim=False)

    def draws(
        self, position: Int64[tf.Tensor, ""], image_size: Int32[tf.Tensor, "2"]
    ) -> tuple[MapDraws, CenterNetDraws]:
        """What is drawn for an image of (height, width) at a position."""
        seeds = tf.random.experimental.stateless_split(seed_at(position, len(self.examples), self.seed), 2)
        map_seed, colour_seed = tf.unstack(seeds)
        config = self.split.augmentation
        affine = draw_affine(config, map_seed, image_size) if config else whole_affine(image_size)
        return affine, draw_colours(config, colour_seed, affine.flip)
