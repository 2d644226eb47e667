"""Darknet's way from a position of the training stream to an example: one image, jittered, flip and colour drawn."""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Bool, Float32, Int64, UInt8

from configs.data import TrainSplit
from dataloaders.augment.colour import draw_colour
from dataloaders.augment.geometry import apply_geometry, draw_geometry, large_enough, transform_boxes
from dataloaders.batch import TrainBatch, pad_rows
from dataloaders.examples import Example, Examples, decode_example
from dataloaders.order import draw_row
from dataloaders.sources import TruthForm
from official.core.config import Protocol
from official.vision.boxes import convert_boxes
from official.vision.resize import Window, resize_image, whole_image, whole_levels


def jittered(
    examples: Examples,
    split: TrainSplit,
    input_size: tuple[int, int],
    protocol: Protocol,
    box_form: TruthForm,
    seed: int,
) -> Callable[[Int64[tf.Tensor, ""]], TrainBatch]:
    """A function that makes the example at a position: a row of a TrainBatch (its fields without the first dimension).

    Args:
        protocol: its `resize`, `interpolation` and `padding_value` make the geometry, so that training sees what
            evaluation will.
        box_form: of the batch's boxes; they are relative to the network's input.
        seed: of the run.
    """
    augmentation = split.augmentation
    moved = augmentation is not None and (augmentation.jitter > 0 or augmentation.resize != 1)

    def make(position: Int64[tf.Tensor, ""]) -> TrainBatch:
        row, example_seed = draw_row(position, len(examples), seed)
        geometry_seed, colour_seed = tf.unstack(tf.random.experimental.stateless_split(example_seed, 2))
        example = examples.read(row)
        window = draw_geometry(augmentation, geometry_seed, example.size) if moved else None
        image, boxes, keep = _place(example, window, input_size, protocol, box_form)
        classes = example.classes[keep]
        return TrainBatch(
            image,
            pad_rows(boxes[keep], split.max_boxes),
            pad_rows(classes, split.max_boxes),
            pad_rows(tf.ones_like(classes, tf.bool), split.max_boxes),
            example.example_id,
            draw_colour(augmentation, colour_seed),
        )

    return make


def _place(
    example: Example, window: Window | None, input_size: tuple[int, int], protocol: Protocol, box_form: TruthForm
) -> tuple[UInt8[tf.Tensor, "H W 3"], Float32[tf.Tensor, "n 4"], Bool[tf.Tensor, " n"]]:
    """The network's input, all boxes relative to it in the task's form, and which of them to keep.

    Without a window the pixels are the evaluation's own, in whole levels, and stretching leaves relative boxes as they
    are: no conversion.
    """
    image = decode_example(example)
    if window is not None:
        pixels = apply_geometry(image, window, input_size, protocol)
    else:
        pixels, window = whole_levels(resize_image(image, input_size, protocol)), whole_image(example.size)
        if protocol.resize == "stretch":
            return pixels, example.boxes, large_enough(example.yxyx, input_size)
    moved, keep = transform_boxes(example.yxyx, example.size, window, input_size, protocol)
    return pixels, convert_boxes(moved, "yxyx", box_form), keep
