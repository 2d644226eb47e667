"""The batches of training of the YOLO family."""

import tensorflow as tf

from configs.data import TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.compose.reuse_window import with_windows
from dataloaders.pipeline import batched, positions_of, train_dataset
from dataloaders.reading.dataset import Examples
from dataloaders.reading.sources import TruthForm
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
    blocks = composer.blocks
    if blocks.reuse == 1:
        return train_dataset(composer, split, steps, shard)
    positions = positions_of(split, steps, shard)
    windowed = with_windows(positions, blocks.examples, blocks.images, examples, seed, split.max_boxes, input_size)
    return batched(windowed, composer.of_window, split.threads, split.batch_size // shard[1])
