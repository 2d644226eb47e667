"""The batches of training of the YOLO family."""

import tensorflow as tf

from configs.data import TrainSplit
from dataloaders.composed import Composer
from dataloaders.examples import Examples
from dataloaders.pipeline import batched, positions_of, train_dataset
from dataloaders.sources import TruthForm
from dataloaders.window import with_windows
from official.core.config import Protocol


def train_batches(
    examples: Examples,
    split: TrainSplit,
    input_size: tuple[int, int],
    protocol: Protocol,
    box_form: TruthForm,
    seed: int,
    steps: tf.data.Dataset,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """`TrainBatch` elements of the steps; see `Composer` and `train_dataset` for the arguments."""
    composer = Composer(examples, split, input_size, protocol, box_form, seed)
    blocks = composer.blocks
    if blocks.reuse == 1:
        return train_dataset(composer, split, steps, shard)
    positions = positions_of(split, steps, shard)
    windowed = with_windows(positions, blocks.examples, blocks.images, examples, seed, split.max_boxes, input_size)
    return batched(windowed, composer.of_window, split.threads, split.batch_size // shard[1])
