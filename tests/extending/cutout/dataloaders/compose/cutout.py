"""CutOut: a square of every augmented example is black (DeVries and Taylor 2017); boxes stay."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from jaxtyping import Float32, Int64, UInt8

from configs.data import TrainSplit
from dataloaders.batch import TrainBatch
from dataloaders.compose.example_maker import ExampleMaker
from dataloaders.schedule.order import keys_of

_OWN = 20170815  # makes its draws others than those of the recipe


def with_cutout(make: ExampleMaker, split: TrainSplit) -> Callable[..., TrainBatch]:
    """What `make` gives, with the square cut out. A split without augmentation is left alone."""

    def cut(position: Int64[tf.Tensor, ""], *given: Any) -> TrainBatch:
        example = make(position, *given)
        seed = tf.random.experimental.stateless_fold_in(keys_of(make.seed, position), _OWN)
        return example._replace(image=blackened(example.image, tf.random.stateless_uniform([2], seed), split.cutout))

    return cut if split.cutout and split.augmentation else make


def blackened(
    image: UInt8[tf.Tensor, "H W 3"], middle: Float32[tf.Tensor, "2"], share: float
) -> UInt8[tf.Tensor, "H W 3"]:
    """Black is a square about `middle` (y, x, relative), with sides of that share of the shorter side."""
    sides = image.shape[:2]
    half = share * min(sides) / 2
    row, column = (
        tf.abs(tf.range(side, dtype=tf.float32) + 0.5 - at * side) <= half
        for side, at in zip(sides, tf.unstack(middle), strict=True)
    )
    return tf.where((row[:, tf.newaxis] & column)[..., tf.newaxis], tf.zeros_like(image), image)
