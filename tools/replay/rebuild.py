"""One example of training, anew: what the run saw, every stage on the way there, and every parameter that was drawn."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8

from configs.experiment import Experiment
from dataloaders.batch import TrainBatch
from dataloaders.reading.dataset import Example, decode_example
from dataloaders.stream import TrainStream
from official.core.errors import UserError
from official.vision.resize import whole_levels
from tasks import build_task
from tasks.detection import DetectionTask


class Stage(NamedTuple):
    """A picture on the way from the files to the network."""

    title: str
    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "n yxyx=4"]  # yxyx relative to the picture
    classes: Int32[np.ndarray, " n"]
    shown: Float32[np.ndarray, "yxyx=4"] | None = None  # yxyx in its pixels: what the network sees of it


class Replay(NamedTuple):
    """An example of a run."""

    batch: TrainBatch  # of one row, as the run's pipeline made it
    stages: tuple[Stage, ...]
    parameters: dict[str, Any]  # as JSON knows them


def rebuild(experiment: Experiment, step: int, index: int) -> Replay:
    """The example at `index` of the global batch of training step `step`, both 0-based.

    Raises:
        UserError: the run has no such step, or its batch no such example; or its data cannot be read.
    """
    task, split, seed = build_task(experiment), experiment.task.data.train, experiment.runtime.seed
    total = experiment.trainer.duration.in_steps(split.batch_size, task.examples_per_epoch())
    if not 0 <= step < total:
        raise UserError(f"step {step}: the run has {total} steps; expected 0 to {total - 1}")
    if not 0 <= index < split.batch_size:
        raise UserError(
            f"index {index}: a batch has {split.batch_size} examples; expected 0 to {split.batch_size - 1} "
            "(of the global batch, whatever the number of hosts)"
        )
    stream = task.stream
    input_size = stream.sizes.at(step)
    ((split, *_),) = stream.phases.parts(step, step + 1)
    # A host of its own for each example: this one reads what all together would.
    shard, replaced = (index, split.batch_size), []
    try:
        batch = next(iter(stream.batches(step, input_size, shard)))
    except tf.errors.OpError:
        replaced = stream.stand_ins.find(stream.rows(step, step + 1))
        batch = next(iter(stream.batches(step, input_size, shard)))
    position = tf.constant(step * split.batch_size + index, tf.int64)
    explained = task.example_maker(split, input_size).explain(position)
    stored = stream.stand_ins.examples("yxyx")
    examples = [stored.read(tf.constant(row, tf.int64)) for row in explained.rows]
    parameters = {
        "seed": seed,
        "step": step,
        "index": index,
        "position": int(position),
        "input_size": list(input_size),
        "augmented": split.augmentation is not None,
        "unreadable": replaced,
        "sources": [_source(stream, *source) for source in zip(explained.rows, examples, strict=True)],
        **plain(explained.parameters),
        "draws": plain(tf.nest.map_structure(lambda field: field[0], batch.draws)),
        "boxes": plain(batch.boxes[0][batch.valid[0]]),
        "classes": plain(batch.classes[0][batch.valid[0]]),
    }
    count, blended = len(examples), explained.compositions if len(explained.compositions) > 1 else ()
    numbers = [f" ({at} of {count})" if count > 1 else "" for at in range(1, count + 1)]
    stages = [
        *(_of_source(*source) for source in zip(numbers, examples, explained.shown, strict=True)),
        *(_without_boxes(f"composition {at}", image) for at, image in enumerate(blended, start=1)),
    ]
    return Replay(batch, (*stages, *_last_stages(task, batch)), parameters)


def plain(value: Any) -> Any:
    """Tensors and named tuples of them as lists, numbers and dicts."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, tf.Tensor | np.ndarray):
        return np.asarray(value).tolist()
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def _source(stream: TrainStream, row: int, example: Example) -> dict[str, Any]:
    number = int(example.example_id)
    return {
        "row": row,
        "image_id": number,
        "name": stream.data.example_name(number),
        "size": plain(example.size),
        "boxes_yxyx": plain(example.yxyx),
        "classes": plain(example.classes),
    }


def _of_source(number: str, example: Example, shown: np.ndarray | None) -> Stage:
    title = f"image {int(example.example_id)}{number}"
    try:
        pixels = decode_example(example).numpy()
    except tf.errors.OpError:  # of its seen part all could be decoded
        title, pixels = f"{title}, damaged", np.zeros([*example.size.numpy(), 3], np.uint8)
    return Stage(title, pixels, example.yxyx.numpy(), example.classes.numpy(), shown)


def _without_boxes(title: str, image: tf.Tensor) -> Stage:
    return Stage(title, image.numpy(), np.zeros([0, 4], np.float32), np.zeros([0], np.int32))


def _last_stages(task: DetectionTask, batch: TrainBatch) -> tuple[Stage, Stage]:
    """As it leaves the host, and as the network sees it after colour and flip."""
    shown, valid = task.shown(batch), batch.valid[0]
    classes = batch.classes[0][valid].numpy()
    seen = whole_levels(shown.images[0] * 255.0).numpy()
    return (
        Stage("the host sends", batch.image[0].numpy(), shown.sent[0][valid].numpy(), classes),
        Stage("the network sees", seen, shown.boxes[0][valid].numpy(), classes),
    )
