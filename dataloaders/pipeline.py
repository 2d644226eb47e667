"""From a data set to batches. Every example is a pure function of (run seed, epoch, position): threads change nothing.

Position p of the endless training stream is epoch p // n, place p % n in that epoch's permutation. Step s of a global
batch B reads positions s * B to s * B + B - 1, so resuming at a step, or leaving some out, needs no replay.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import Split, TrainSplit
from dataloaders.annotations import DataError, read_bytes
from dataloaders.augment.colour import draw_colour
from dataloaders.augment.geometry import apply_geometry, draw_geometry, large_enough, transform_boxes
from dataloaders.batch import PADDING_ID, EvalBatch, TrainBatch
from dataloaders.sources import DetectionDataset, TruthForm
from official.core.config import Protocol
from official.core.errors import UserError, first_line
from official.vision.boxes import convert_boxes
from official.vision.resize import Window, decode_image, pixel_type, resize_image, whole_image, whole_levels


class _Images(NamedTuple):
    """One row per image of the data set."""

    path: tf.Tensor  # string [images]
    size: Int32[tf.Tensor, "images 2"]
    image_id: Int64[tf.Tensor, " images"]


class _Truth(NamedTuple):
    """The boxes that training sees; those of image i are rows splits[i] to splits[i + 1]."""

    splits: Int64[tf.Tensor, " images+1"]
    boxes: Float32[tf.Tensor, "boxes 4"]  # in the task's form, relative to the image
    yxyx: Float32[tf.Tensor, "boxes 4"]
    classes: Int32[tf.Tensor, " boxes"]


def train_dataset(
    dataset: DetectionDataset,
    split: TrainSplit,
    input_size: tuple[int, int],
    protocol: Protocol,
    box_form: TruthForm,
    seed: int,
    steps: tf.data.Dataset,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """The batches of the training steps that `steps` names: `TrainBatch` elements with static shapes.

    Args:
        protocol: its `resize`, `interpolation` and `padding_value` make the geometry, so that training sees what
            evaluation will.
        box_form: of the batch's boxes; they are relative to the network's input.
        seed: of the run.
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
    images, truth = _images(dataset), _training_truth(dataset, box_form)

    def example(number: Int64[tf.Tensor, ""]) -> TrainBatch:
        position = number // per_host * split.batch_size + index * per_host + number % per_host
        return _train_example(images, truth, split, input_size, protocol, box_form, seed, position)

    numbers = steps.flat_map(lambda step: tf.data.Dataset.range(step * per_host, (step + 1) * per_host))
    return _batched(numbers, example, split.threads, per_host)


def eval_dataset(
    dataset: DetectionDataset, split: Split, input_size: tuple[int, int], protocol: Protocol
) -> tf.data.Dataset:
    """Every image once, in the data set's order: `EvalBatch` elements, all of `split.batch_size` rows.

    The last batch is filled up with rows of example_id -1.

    Raises:
        tf.errors.OpError: while iterating, an image file cannot be decoded as it was checked; `check_eval_files` then
            names it.
    """
    images = _images(dataset)

    def example(row: Int64[tf.Tensor, ""]) -> EvalBatch:
        image = _read_image(images.path[row], images.size[row])
        return EvalBatch(resize_image(image, input_size, protocol), images.size[row], images.image_id[row])

    black = tf.zeros([*input_size, 3], pixel_type(protocol))
    padding = EvalBatch(black, tf.ones([2], tf.int32), tf.constant(PADDING_ID, tf.int64))
    missing = -len(dataset) % split.batch_size
    fill = tf.data.Dataset.from_tensors(padding).repeat(missing)
    return _batched(tf.data.Dataset.range(len(dataset)), example, split.threads, split.batch_size, fill)


def check_train_files(dataset: DetectionDataset, split: TrainSplit, seed: int, first_step: int, last_step: int) -> None:
    """Decodes the images of training steps first_step to last_step - 1, one by one, in the order of the stream.

    The stream itself cannot say which file failed, since a decoder's error carries no name; this finds it.

    Raises:
        DataError: naming the first file that cannot be decoded as it was checked.
    """
    checked = set()
    for position in range(first_step * split.batch_size, last_step * split.batch_size):
        row, _ = _order(tf.constant(position, tf.int64), len(dataset), seed)
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


def _order(
    position: Int64[tf.Tensor, ""], examples: int, seed: int
) -> tuple[Int64[tf.Tensor, ""], Int64[tf.Tensor, "2"]]:
    """The data set's row at a position of the training stream, and that example's own seed."""
    epoch, place = position // examples, position % examples
    epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
    row = tf.random.experimental.index_shuffle(place, epoch_seed, tf.constant(examples - 1, tf.int64))
    return row, tf.random.experimental.stateless_fold_in(epoch_seed, place)


def _train_example(
    images: _Images,
    truth: _Truth,
    split: TrainSplit,
    input_size: tuple[int, int],
    protocol: Protocol,
    box_form: TruthForm,
    seed: int,
    position: Int64[tf.Tensor, ""],
) -> TrainBatch:
    """One row of a TrainBatch (its fields without the first dimension)."""
    row, example_seed = _order(position, images.path.shape[0], seed)
    geometry_seed, colour_seed = tf.unstack(tf.random.experimental.stateless_split(example_seed, 2))
    moved = split.augmentation is not None and (split.augmentation.jitter > 0 or split.augmentation.resize != 1)
    window = draw_geometry(split.augmentation, geometry_seed, images.size[row]) if moved else None

    image = _read_image(images.path[row], images.size[row])
    rows = slice(truth.splits[row], truth.splits[row + 1])
    image, boxes, keep = _place(image, truth.boxes[rows], truth.yxyx[rows], window, input_size, protocol, box_form)
    return TrainBatch(
        image,
        _pad(boxes[keep], split.max_boxes),
        _pad(truth.classes[rows][keep], split.max_boxes),
        _pad(tf.ones_like(truth.classes[rows][keep], tf.bool), split.max_boxes),
        images.image_id[row],
        draw_colour(split.augmentation, colour_seed),
    )


def _place(
    image: UInt8[tf.Tensor, "h w 3"],
    boxes: Float32[tf.Tensor, "n 4"],
    yxyx: Float32[tf.Tensor, "n 4"],
    window: Window | None,
    input_size: tuple[int, int],
    protocol: Protocol,
    box_form: TruthForm,
) -> tuple[UInt8[tf.Tensor, "H W 3"], Float32[tf.Tensor, "n 4"], Bool[tf.Tensor, " n"]]:
    """The network's input, all boxes relative to it in the task's form, and which of them to keep.

    Without a window the pixels are the evaluation's own, in whole levels, and stretching leaves relative boxes as they
    are: no conversion.
    """
    image_size = tf.shape(image)[:2]
    if window is not None:
        pixels = apply_geometry(image, window, input_size, protocol)
    else:
        pixels, window = whole_levels(resize_image(image, input_size, protocol)), whole_image(image_size)
        if protocol.resize == "stretch":
            return pixels, boxes, large_enough(yxyx, input_size)
    moved, keep = transform_boxes(yxyx, image_size, window, input_size, protocol)
    return pixels, convert_boxes(moved, "yxyx", box_form), keep


def _read_image(path: tf.Tensor, size: Int32[tf.Tensor, "2"]) -> UInt8[tf.Tensor, "h w 3"]:
    """Decoded pixels, of the size that the door saw.

    Nothing here, or beside it in the map, may keep state, but for the assertion: deterministic runs would then read
    one image after the other.
    """
    image = decode_image(tf.io.read_file(path))
    found = tf.shape(image)[:2]
    told = ["image", path, "has size", found, "and had, when the run began,", size]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(found == size), told)]):
        return tf.identity(image)


def _pad(rows: tf.Tensor, count: int) -> tf.Tensor:
    """[n, ...] -> [count, ...], zeros (False) after the rows there are."""
    missing = count - tf.shape(rows)[0]
    padded = tf.pad(rows, [[0, missing], *([[0, 0]] * (rows.shape.rank - 1))])
    return tf.ensure_shape(padded, [count, *rows.shape[1:]])


def _images(dataset: DetectionDataset) -> _Images:
    return _Images(tf.constant(dataset.image_paths), tf.constant(dataset.image_sizes), tf.constant(dataset.image_ids))


def _training_truth(dataset: DetectionDataset, form: TruthForm) -> _Truth:
    trained = dataset.trained
    before = np.concatenate([[0], np.cumsum(trained)]).astype(np.int64)
    return _Truth(
        tf.constant(before[dataset.splits]),
        tf.constant(dataset.relative_boxes(form)[trained]),
        tf.constant(dataset.relative_boxes("yxyx")[trained]),
        tf.constant(dataset.classes[trained]),
    )
