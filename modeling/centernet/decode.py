"""What the maps of a CenterNet mean: peaks of the heatmaps are objects, with the size and offset found there.

CenterNet lib/models/decode.py ctdet_decode, lib/utils/post_process.py ctdet_post_process. Boxes are xyxy here, in
output pixels (cells of the maps) or pixels of the image, as the original's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float, Float32, Int32

from configs.centernet.task import CenterNetHead
from modeling.layers.shapes import sides_of
from official.core.errors import UserError
from official.vision.boxes import swap_xy


class Stack(NamedTuple):
    """What the heads of one stack put out, raw, in the network's own precision. Names are the original's."""

    hm: Float[tf.Tensor, "batch rows columns classes"]  # logits
    wh: Float[tf.Tensor, "batch rows columns sizes"]  # (width, height) in output pixels; a pair a class if cat_spec_wh
    reg: Float[tf.Tensor, "batch rows columns 2"] | None  # (x, y) of the centre in its cell; None without reg_offset


class Maps(NamedTuple):
    """A stack as it is decoded: probabilities instead of logits."""

    heat: Float[tf.Tensor, "batch rows columns classes"]  # 0..1
    wh: Float[tf.Tensor, "batch rows columns sizes"]
    reg: Float[tf.Tensor, "batch rows columns 2"] | None


class Peaks(NamedTuple):
    """The best peaks of each image, best first; a map with fewer peaks fills up with cells of score 0."""

    boxes: Float32[tf.Tensor, "batch peaks xyxy=4"]  # xyxy in output pixels, not clipped
    scores: Float32[tf.Tensor, "batch peaks"]  # 0..1
    classes: Int32[tf.Tensor, "batch peaks"]


def stacks_of(outputs: Sequence[Float[tf.Tensor, "batch rows columns _"]], head: CenterNetHead) -> list[Stack]:
    """The network's outputs, a flat list of hm, wh and (with reg_offset) reg of each stack, by stack."""
    maps = 3 if head.reg_offset else 2
    if not outputs or len(outputs) % maps:
        raise UserError(
            f"stacks_of: {len(outputs)} outputs; expected {maps} for each stack (reg_offset: {head.reg_offset})"
        )
    parts = [outputs[start : start + maps] for start in range(0, len(outputs), maps)]
    stacks = [Stack(*part, *[None] * (3 - maps)) for part in parts]
    for stack in stacks:
        sizes = 2 * stack.hm.shape[-1] if head.cat_spec_wh else 2
        if stack.wh.shape[-1] != sizes:
            raise UserError(
                f"stacks_of: wh has {stack.wh.shape[-1]} channels; expected {sizes} (cat_spec_wh: {head.cat_spec_wh})"
            )
    return stacks


def maps_of(outputs: Sequence[Float[tf.Tensor, "batch rows columns _"]], head: CenterNetHead) -> Maps:
    """The last stack, which is the one that is decoded. A score is the plain sigmoid, without the loss's clamp."""
    last = stacks_of(outputs, head)[-1]
    return Maps(tf.sigmoid(last.hm), last.wh, last.reg)


def average_flipped(maps: Maps, mirrored: Maps) -> Maps:
    """Flip test: heat and size averaged with those of the mirrored images, the offset of the unmirrored alone."""
    heat, wh = ((one + tf.reverse(other, [2])) / 2 for one, other in zip(maps[:2], mirrored[:2], strict=True))
    return Maps(heat, wh, maps.reg)


def suppress_neighbours(
    heat: Float32[tf.Tensor, "batch rows columns classes"],
) -> Float32[tf.Tensor, "batch rows columns classes"]:
    """The heat of cells that are the maximum of their 3x3 neighbourhood, 0 elsewhere. Equal neighbours all stay."""
    return tf.where(tf.nn.max_pool2d(heat, 3, 1, "SAME") == heat, heat, 0.0)


def best_peaks(maps: Maps, count: int) -> Peaks:
    """The `count` best peaks of each image over all classes, none suppressed by another's box.

    Equal scores are ordered by class, then row, then column, the lower first (the original: in no order).
    """
    (rows, columns), classes = sides_of(maps.heat), maps.heat.shape[3]
    heat = tf.transpose(suppress_neighbours(maps.heat), [0, 3, 1, 2])  # [batch, classes, rows, columns]
    batch = maps.heat.shape[0] or -1
    heat = tf.reshape(heat, [batch, classes, rows * columns])
    if heat.shape[2] is None:  # then even a map of few cells has `count` peaks
        heat = tf.pad(heat, [[0, 0], [0, 0], [0, tf.maximum(count - rows * columns, 0)]])
    # First within each class: a sort of all cells of all classes is what accelerators are slow at.
    each = count if heat.shape[2] is None else min(count, heat.shape[2])
    within = tf.math.top_k(heat, each)
    values, cells = (tf.reshape(part, [batch, classes * each]) for part in within)
    best = tf.math.top_k(values, min(count, classes * each))  # [batch, peaks]
    cell = tf.gather(cells, best.indices, batch_dims=1)  # [batch, peaks]
    cell = tf.minimum(cell, rows * columns - 1)  # of score 0, where it was beyond
    class_of = best.indices // each
    centre = tf.cast(tf.stack([cell % columns, cell // columns], axis=-1), tf.float32)  # [batch, peaks, 2]
    centre += 0.5 if maps.reg is None else _at(maps.reg, cell, 1, 0)
    sizes = maps.wh.shape[3] // 2
    half = _at(maps.wh, cell, sizes, class_of if sizes > 1 else 0) / 2
    return Peaks(tf.concat([centre - half, centre + half], axis=-1), best.values, class_of)


def _at(pairs: tf.Tensor, cell: tf.Tensor, per_cell: int, which: tf.Tensor | int) -> tf.Tensor:
    """The pair of numbers `which` of the `per_cell` in each cell, [batch, peaks, 2]."""
    rows, columns = sides_of(pairs)
    in_cells = tf.reshape(pairs, [pairs.shape[0] or -1, rows * columns * per_cell, 2])
    return tf.gather(in_cells, cell * per_cell + which, batch_dims=1)


def to_image(
    boxes: Float32[tf.Tensor, "batch peaks xyxy=4"],
    centre: Float32[tf.Tensor, "batch 2"],
    scale: Float32[tf.Tensor, " batch"],
    grid: tuple[int, int],
) -> Float32[tf.Tensor, "batch peaks xyxy=4"]:
    """xyxy in output pixels of a map of `grid` = (rows, columns), to pixels of the image; not clipped to it.

    centre: (x, y) of the image that is at the middle of the map; scale: what is as wide as the map, in pixels of the
    image: the original's c and s[0]. fix_res: the middle of the image (w / 2, h / 2) and its longer side. keep_res: the
    middle in whole pixels (w // 2, h // 2) and the width of the padded input. With several test scales, c is of the
    resized image, and the boxes are then to be divided by the scale (base_detector.py pre_process, ctdet.py
    post_process).
    """
    rows, columns = grid
    middle = tf.constant([columns / 2, rows / 2] * 2, tf.float32)
    return (boxes - middle) * (scale / columns)[:, tf.newaxis, tf.newaxis] + tf.tile(centre, [1, 2])[:, tf.newaxis]


def decode(
    outputs: Sequence[Float32[tf.Tensor, "batch rows columns _"]], head: CenterNetHead
) -> tuple[Float32[tf.Tensor, "batch peaks yxyx=4"], Float32[tf.Tensor, "batch peaks classes"]]:
    """The head.K best peaks: yxyx boxes relative to the network input, and scores, 0 but for the peak's own class.

    outputs: the fields of Maps, without a `reg` that is None. A box is relative to the map, which covers the input
    whole.
    """
    maps = Maps(*outputs, *[None] * (3 - len(outputs)))
    peaks = best_peaks(maps, head.K)
    boxes = swap_xy(peaks.boxes) / tf.cast(sides_of(maps.heat) * 2, tf.float32)
    return boxes, tf.one_hot(peaks.classes, maps.heat.shape[3]) * peaks.scores[..., tf.newaxis]
