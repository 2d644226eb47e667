"""One example of training, anew: what the run saw, every stage on the way there, and every parameter that was drawn."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, UInt8

from configs.data import TrainSplit
from configs.experiment import Experiment
from dataloaders.augment.colour import apply_colour
from dataloaders.batch import TrainBatch
from dataloaders.centernet.augment import STRIDE, affine_map, coloured
from dataloaders.centernet.input import BLACK, Centred
from dataloaders.compose.composer import Composer
from dataloaders.compose.jpeg import encoded_pixels
from dataloaders.compose.pieces import Cuts
from dataloaders.reading.dataset import Example, decode_example
from dataloaders.reading.sources import open_source
from dataloaders.schedule.order import row_at
from dataloaders.stream import CenterNetStream, TrainStream, stream_of
from official.core.errors import UserError
from official.vision.boxes import cxcywh_to_yxyx, swap_xy
from official.vision.resize import whole_levels


class Stage(NamedTuple):
    """A picture on the way from the files to the network."""

    title: str
    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "n 4"]  # yxyx relative to the picture
    classes: Int32[np.ndarray, " n"]
    shown: Float32[np.ndarray, "4"] | None = None  # yxyx in its pixels: what the network sees of it


class Replay(NamedTuple):
    """An example of a run."""

    batch: TrainBatch  # of one row, as the run's pipeline made it
    stages: tuple[Stage, ...]
    parameters: dict[str, Any]  # as JSON knows them


class Drawn(NamedTuple):
    """What a family tells of an example beside its batch."""

    rows: list[int]  # of the data set
    examples: list[Example]
    stages: list[Stage]
    parameters: dict[str, Any]


def rebuild(experiment: Experiment, step: int, index: int) -> Replay:
    """The example at `index` of the global batch of training step `step`, both 0-based.

    Raises:
        UserError: the run has no such step, or its batch no such example; or its data cannot be read.
    """
    task, seed, duration = experiment.task, experiment.runtime.seed, experiment.trainer.duration
    split = task.data.train
    data = open_source(split.source, task.data.classes, split.on_bad, split.max_boxes)
    total = duration.in_steps(split.batch_size, len(data))
    if not 0 <= step < total:
        raise UserError(f"step {step}: the run has {total} steps; expected 0 to {total - 1}")
    if not 0 <= index < split.batch_size:
        raise UserError(
            f"index {index}: a batch has {split.batch_size} examples; expected 0 to {split.batch_size - 1} "
            "(of the global batch, whatever the number of hosts)"
        )
    stream = stream_of(task, seed, duration, data)
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
    family = _centred if isinstance(stream, CenterNetStream) else _composed
    drawn = family(stream, split, input_size, position)
    parameters = {
        "seed": seed,
        "step": step,
        "index": index,
        "position": int(position),
        "input_size": list(input_size),
        "augmented": split.augmentation is not None,
        "unreadable": replaced,
        "sources": [_source(stream, row, example) for row, example in zip(drawn.rows, drawn.examples, strict=True)],
        **drawn.parameters,
        "draws": plain(tf.nest.map_structure(lambda field: field[0], batch.draws)),
        "boxes": plain(batch.boxes[0][batch.valid[0]]),
        "classes": plain(batch.classes[0][batch.valid[0]]),
    }
    return Replay(batch, (*drawn.stages, *_last_stages(stream, batch)), parameters)


def plain(value: Any) -> Any:
    """Tensors and named tuples of them as lists, numbers and dicts."""
    if hasattr(value, "_asdict"):
        return {name: plain(field) for name, field in value._asdict().items()}
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


def _composed(stream: TrainStream, split: TrainSplit, input_size: tuple[int, int], position: tf.Tensor) -> Drawn:
    """One image, a mosaic, or two compositions blended."""
    examples, protocol = stream.stand_ins.examples("cxcywh"), stream.task.evaluation
    composer = Composer(examples, split, input_size, protocol, "cxcywh", stream.seed)
    made = composer.explain(position)
    read, shown, found = made.examples, [None] * len(made.rows), {"kind": list(made.makeup)}
    if made.draws:
        found |= {"compositions": [plain(draws) for draws in made.draws], "fill": made.fill}
    if made.layout is not None:
        found["pieces"], shown = _pieces(made.layout.cells, made.layout.flip, made.layout.cuts, len(read))
    stages = [_of_source(at, len(read), one, window) for at, (one, window) in enumerate(zip(read, shown, strict=True))]
    if made.share is not None:
        found["share"] = plain(made.share)
        stages += [_without_boxes(f"composition {at + 1}", image) for at, image in enumerate(made.compositions)]
    return Drawn(made.rows, read, stages, found)


def _pieces(
    cells: Int32[tf.Tensor, "p 4"], flip: Bool[tf.Tensor, " p"], cuts: Cuts, count: int
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """What is decoded of each image and where it goes, for JSON; and what is shown of it, in its pixels [4] each."""
    pieces, shown = [], []
    for at in range(count):
        of_piece = {name: plain(field[at]) for name, field in cuts._asdict().items()}
        pieces.append({"cell": plain(cells[at]), "flip": plain(flip[at]), **of_piece})
        top, left, height, width = cuts.crop[at].numpy().astype(np.float32) * int(cuts.ratio[at])
        shown.append(np.stack([top, left, top + height, left + width]))
    return pieces, shown


def _centred(stream: TrainStream, split: TrainSplit, input_size: tuple[int, int], position: tf.Tensor) -> Drawn:
    """CenterNet's: one image under an affine map."""
    make = Centred(stream.stand_ins.examples("xyxy_pixels"), split, input_size, stream.task.evaluation, stream.seed)
    row = row_at(position, len(make.examples), stream.seed)
    example = make.examples.read(row)
    affine, _ = make.draws(position, example.size)
    found = {"affine": plain(affine), "map": plain(affine_map(affine, input_size))}
    if make.precise:
        return Drawn([int(row)], [example], [_of_source(0, 1, example)], found)
    pieces, cuts = make.cuts(example.size, affine, encoded_pixels(example))
    found |= {"kind": [1], "fill": BLACK}
    found["pieces"], (shown,) = _pieces(pieces.cell, pieces.flip, cuts, 1)
    return Drawn([int(row)], [example], [_of_source(0, 1, example, shown)], found)


def _of_source(at: int, count: int, example: Example, shown: np.ndarray | None = None) -> Stage:
    title = f"image {int(example.example_id)}" + (f" ({at + 1} of {count})" if count > 1 else "")
    try:
        pixels = decode_example(example).numpy()
    except tf.errors.OpError:  # of its seen part all could be decoded
        title, pixels = f"{title}, damaged", np.zeros([*example.size.numpy(), 3], np.uint8)
    return Stage(title, pixels, example.yxyx.numpy(), example.classes.numpy(), shown)


def _without_boxes(title: str, image: tf.Tensor) -> Stage:
    return Stage(title, image.numpy(), np.zeros([0, 4], np.float32), np.zeros([0], np.int32))


def _last_stages(stream: TrainStream, batch: TrainBatch) -> tuple[Stage, Stage]:
    """As it leaves the host, and as the network sees it after colour and flip."""
    config, valid = stream.task.data.train.augmentation, batch.valid[0]
    classes = batch.classes[0][valid].numpy()
    if isinstance(stream, CenterNetStream):
        rows, columns = (side // STRIDE for side in batch.image.shape[1:3])
        after = swap_xy(batch.boxes[0][valid]) / [rows, columns, rows, columns]
        top, left, bottom, right = tf.unstack(after, axis=1)
        flip = batch.draws.flip[0]
        before = tf.where(flip, tf.stack([top, 1 - right, bottom, 1 - left], axis=1), after)
        images = tf.clip_by_value(coloured(batch, config)[..., ::-1], 0.0, 1.0)
    else:
        images, boxes = apply_colour(batch, config)
        before, after = cxcywh_to_yxyx(batch.boxes[0][valid]), cxcywh_to_yxyx(boxes[0][valid])
    seen = whole_levels(images[0] * 255.0).numpy()
    return (
        Stage("the host sends", batch.image[0].numpy(), before.numpy(), classes),
        Stage("the network sees", seen, after.numpy(), classes),
    )
