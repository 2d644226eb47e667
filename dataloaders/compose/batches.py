"""Batches of composed examples, whose images are decoded for one example alone or for a block of them."""

import tensorflow as tf

from configs.data import TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.compose.reuse_window import with_images
from dataloaders.pipeline import batches_of, positions_of, train_dataset
from dataloaders.reading.dataset import Examples, TruthForm
from official.vision.protocol import EvaluationProtocol


def train_batches(
    examples: Examples,
    split: TrainSplit,
    input_size: tuple[int, int],
    protocol: EvaluationProtocol,
    box_form: TruthForm,
    seed: int,
    steps: tf.data.Dataset,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """`TrainBatch` elements of the steps; see `Composer` and `train_dataset` for the arguments."""
    composer = Composer(examples, split, input_size, protocol, box_form, seed)
    if composer.schedule.reuse == 1:
        return train_dataset(composer, split, steps, shard)
    positions = positions_of(split, steps, shard)
    elements = with_images(positions, composer.schedule, examples, seed, split.max_boxes, input_size)
    return batches_of(elements, composer.of_block, split, shard)
