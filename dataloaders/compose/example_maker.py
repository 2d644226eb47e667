"""What turns positions of the training stream into examples: one class for each recipe, chosen by the family."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64, UInt8

from dataloaders.batch import TrainBatch


class Explained(NamedTuple):
    """How an example came about, for a replay to show."""

    rows: Sequence[int]  # of the data set: the images it is made of
    parameters: dict[str, Any]  # all that was drawn: numbers, tensors, and nests of them
    shown: Sequence[
        Float32[np.ndarray, "yxyx=4"] | None
    ]  # yxyx in pixels of each image: what is seen of it, where known
    compositions: Sequence[UInt8[tf.Tensor, "H W 3"]] = ()  # before they are blended; empty where an image is all


class ExampleMaker(ABC):
    """Makes examples of one split at one input size, each a pure function of the run's seed and a position."""

    seed: int  # of the run

    @abstractmethod
    def __call__(self, position: Int64[tf.Tensor, ""], *given: Any) -> TrainBatch:
        """The example at a position: a row of a TrainBatch (its fields without the first dimension).

        given: what `inputs` gives beside the position.
        """

    def inputs(self, positions: tf.data.Dataset) -> tf.data.Dataset:
        """Positions, int64 in any order -> the arguments of `__call__`, such as images that neighbours share."""
        return positions

    @abstractmethod
    def explain(self, position: Int64[tf.Tensor, ""]) -> Explained:
        """The images and the draws of the example at a position; eagerly."""
