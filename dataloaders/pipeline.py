"""From a data set to batches. Every example is a pure function of (run seed, epoch, position): threads change nothing.

Step s of a global batch B reads the positions s * B to s * B + B - 1 of the stream (see order.py), so resuming at a
step, or leaving some out, needs no replay.
"""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Int64

from configs.data import Split, TrainSplit
from dataloaders.annotations import DataError, read_bytes
from dataloaders.batch import PADDING_ID, EvalBatch, TrainBatch
from dataloaders.examples import Files, decode_example
from dataloaders.order import draw_row
from dataloaders.sources import DetectionDataset
from official.core.config import Protocol
from official.core.errors import UserError, first_line
from official.vision.resize import decode_image, pixel_type, resize_image


def train_dataset(
    make: Callable[[Int64[tf.Tensor, ""]], TrainBatch],
    split: TrainSplit,
    steps: tf.data.Dataset,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """The batches of the training steps that `steps` names: `TrainBatch` elements with static shapes.

    Args:
        make: the example at a position of the stream.
        steps: int64 scalars, numbers of steps (0-based) in any selection and order.
        shard: (index, count) of this host; it reads its part of each global batch, split.batch_size / count examples.

    Raises:
        UserError: the batch size is not a multiple of the number of hosts, or the shard is not one of them.
        tf.errors.OpError: while iterating, an image file cannot be decoded as it was checked; `check_train_files` then
            names it.
    """
    index, count = shard
    if not 0 <= index < count or split.batch_size % count:
        raise UserError(
            f"batch_size {split.batch_size} is divided among {count} hosts, of which this is number {index}: "
            f"expected a multiple of the number of hosts, which are numbered from 0"
        )
    per_host = split.batch_size // count

    def example(number: Int64[tf.Tensor, ""]) -> TrainBatch:
        return make(number // per_host * split.batch_size + index * per_host + number % per_host)

    numbers = steps.flat_map(lambda step: tf.data.Dataset.range(step * per_host, (step + 1) * per_host))
    return _batched(numbers, example, split.threads, per_host)


def eval_dataset(
    dataset: DetectionDataset, split: Split, input_size: tuple[int, int], protocol: Protocol
) -> tf.data.Dataset:
    """Every image once, in the data set's order: `EvalBatch` elements, all of `split.batch_size` rows.

    The last batch is filled up with rows of example_id -1. Where each image has a size of its own, batches have one.

    Raises:
        tf.errors.OpError: while iterating, an image file cannot be decoded as it was checked; `check_eval_files` then
            names it.
    """
    examples = Files(dataset, "yxyx")

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
    return _batched(rows, evaluated, split.threads, split.batch_size, fill)


def check_train_files(dataset: DetectionDataset, split: TrainSplit, seed: int, first_step: int, last_step: int) -> None:
    """Decodes the images of training steps first_step to last_step - 1, one by one, in the order of the stream.

    The stream itself cannot say which file failed, since a decoder's error carries no name; this finds it.

    Raises:
        DataError: naming the first file that cannot be decoded as it was checked.
    """
    checked = set()
    for position in range(first_step * split.batch_size, last_step * split.batch_size):
        row, _ = draw_row(tf.constant(position, tf.int64), len(dataset), seed)
        if int(row) not in checked:
            _check_file(dataset, int(row))
        checked.add(int(row))


def check_eval_files(dataset: DetectionDataset) -> None:
    """Decodes all images, one by one.

    Raises:
        DataError: naming the first file that cannot be decoded as it was checked.
    """
    for row in range(len(dataset)):
        _check_file(dataset, row)


def _check_file(dataset: DetectionDataset, row: int) -> None:
    path, image_id = dataset.image_paths[row], dataset.image_ids[row]
    try:
        found = decode_image(tf.constant(read_bytes(path, "the image"))).shape
    except (FileNotFoundError, tf.errors.OpError) as error:
        raise DataError(
            f"{path} (image id {image_id}): cannot be decoded, though its header and end mark were there before: "
            f"{first_line(error)}. Repair the file and start the same command again"
        ) from None
    (height, width), (then_height, then_width) = found[:2], dataset.image_sizes[row]
    if (height, width) != (then_height, then_width):
        raise DataError(
            f"{path} (image id {image_id}): is {height} x {width} pixels (height x width), but was "
            f"{then_height} x {then_width} when it was checked. Put the file back and start the same command again"
        )


def _batched(
    numbers: tf.data.Dataset,
    example: Callable[[tf.Tensor], TrainBatch | EvalBatch],
    threads: int | None,
    batch_size: int,
    padding: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """Maps in parallel and batches, in order whatever the number of threads."""
    parallel = tf.data.AUTOTUNE if threads is None else threads
    function = tf.autograph.experimental.do_not_convert(example)
    examples = numbers.map(function, num_parallel_calls=parallel, deterministic=True)
    if padding is not None:
        examples = examples.concatenate(padding)
    options = tf.data.Options()
    options.deterministic = True
    # Which example goes where is decided here, so tf.distribute must not divide the stream again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return examples.batch(batch_size, drop_remainder=True).prefetch(2).with_options(options)
