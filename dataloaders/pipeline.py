"""From a data set to batches. Every example is a pure function of (run seed, epoch, position): threads change nothing.

Step s of a global batch B reads the positions s * B to s * B + B - 1 of the stream (schedule/order.py), so resuming at
a step, or leaving some out, needs no replay.
"""

import os
from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Int64

from configs.data import Split, TrainSplit
from dataloaders.batch import PADDING_ID, EvalBatch, TrainBatch
from dataloaders.compose.example_maker import ExampleMaker
from dataloaders.reading.dataset import DetectionDataset, decode_example
from official.core.errors import UserError
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import pixel_type, resize_image


def train_dataset(
    make: ExampleMaker,
    split: TrainSplit,
    steps: tf.data.Dataset,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """The batches of the training steps that `steps` names: `TrainBatch` elements with static shapes.

    Every training example of every recipe passes here, finished but for what the accelerator does. So an operation
    that may follow any recipe (CutOut, say) belongs here: after `make`, on its pixels and boxes, drawn by the position.

    Args:
        make: makes the example at a position of the stream.
        steps: int64 scalars, numbers of steps (0-based) in any selection and order.
        shard: (index, count) of this host; it reads its part of each global batch, split.batch_size / count examples.

    Raises:
        UserError: the batch size is not a multiple of the number of hosts, or the shard is not one of them.
        tf.errors.OpError: while iterating, an image cannot be decoded as it was checked; `check` of the data set then
            names it.
    """
    elements = make.inputs(positions_of(split, steps, shard))
    return batched(elements, make, split.threads, split.batch_size // shard[1])


def positions_of(split: TrainSplit, steps: tf.data.Dataset, shard: tuple[int, int]) -> tf.data.Dataset:
    """Positions of the stream, int64 scalars, that this host reads; see `train_dataset`."""
    index, count = shard
    if not 0 <= index < count or split.batch_size % count:
        raise UserError(
            f"batch_size {split.batch_size} is divided among {count} hosts, of which this is number {index}: "
            f"expected a multiple of the number of hosts, which are numbered from 0"
        )
    per_host = split.batch_size // count

    @tf.autograph.experimental.do_not_convert
    def of_step(step: Int64[tf.Tensor, ""]) -> tf.data.Dataset:
        start = step * split.batch_size + index * per_host
        return tf.data.Dataset.range(start, start + per_host)

    return steps.flat_map(of_step)


def eval_dataset(
    dataset: DetectionDataset, split: Split, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> tf.data.Dataset:
    """Every image once, in the data set's order: `EvalBatch` elements, all of `split.batch_size` rows.

    The last batch is filled up with rows of example_id -1. Where each image has a size of its own, batches have one.

    Raises:
        tf.errors.OpError: while iterating, an image cannot be decoded as it was checked; `check` of the data set then
            names it.
    """
    examples = dataset.examples("yxyx")

    def evaluated(row: Int64[tf.Tensor, ""]) -> EvalBatch:
        example = examples.read(row)
        image = decode_example(example)
        if not protocol.sees_whole_images:
            image = resize_image(image, input_size, protocol)
        return EvalBatch(image, example.size, example.example_id)

    rows, missing, fill = tf.data.Dataset.range(len(dataset)), -len(dataset) % split.batch_size, None
    if missing:
        black = tf.zeros([*input_size, 3], pixel_type(protocol))
        padding = EvalBatch(black, tf.ones([2], tf.int32), tf.constant(PADDING_ID, tf.int64))
        fill = tf.data.Dataset.from_tensors(padding).repeat(missing)
    return batched(rows, evaluated, split.threads, split.batch_size, fill)


def batched(
    numbers: tf.data.Dataset,
    example: Callable[..., TrainBatch | EvalBatch],
    threads: int | None,
    batch_size: int,
    padding: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """Maps in parallel and batches, in the same order for any number of threads."""
    threads = threads or usable_cores()
    function = tf.autograph.experimental.do_not_convert(example)
    examples = numbers.map(function, num_parallel_calls=threads, deterministic=True)
    if padding is not None:
        examples = examples.concatenate(padding)
    options = tf.data.Options()
    options.deterministic = True
    # Which example goes where is decided here, so tf.distribute must not divide the stream again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Threads of the shared pool spin while they wait, for up to a third of a mosaic's CPU; those of a pool of its own
    # sleep.
    options.threading.private_threadpool_size = threads
    # Its clocks cost CPU; and its thread may miss the end of an iterator, for which it then waits up to a minute.
    options.autotune.enabled = False
    return examples.batch(batch_size, drop_remainder=True).prefetch(2).with_options(options)


def usable_cores() -> int:
    """Cores that this process may run on: a container or a batch system may have given it some alone."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
