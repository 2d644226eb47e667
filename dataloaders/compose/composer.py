"""From a position of the training stream to an example that is composed of one or more images.

A plan (schedule/images.py) says which images, a geometry draws how they are laid out, and `Composer` reads, decodes and
joins what will be seen of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8

from configs.data import TrainSplit
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import ColourDraws, TrainBatch, pad_rows
from dataloaders.compose.example_maker import ExampleMaker, Explained
from dataloaders.compose.pieces import (
    Cuts,
    Pieces,
    Pixels,
    Truths,
    boxes_in_input,
    cut,
    explain_pieces,
    no_pieces,
    shrink_of,
)
from dataloaders.compose.pixels import Cells, blend, cell_of, put_together
from dataloaders.compose.recipes import geometry_of, schedule_of_split
from dataloaders.compose.reuse_window import BlockImages, load_block, with_images
from dataloaders.compose.truths import read_all, truth_of
from dataloaders.reading.dataset import Examples, TruthForm, decode_example
from dataloaders.schedule.images import ExamplePlan, Makeup
from official.vision.boxes import convert_boxes
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_input, resize_image, whole_image, whole_levels


class Seeds(NamedTuple):
    """The seeds of the parts of one example."""

    compositions: tuple[Int64[tf.Tensor, "2"], Int64[tf.Tensor, "2"]]  # the second is of no use where there is but one
    share: Int64[tf.Tensor, "2"]
    colour: Int64[tf.Tensor, "2"]


class Layout(NamedTuple):
    """Everything derived from an example's random draws. Rows are padded to the most images; padded rows are empty."""

    cells: Int32[tf.Tensor, "p yxyx=4"]
    flip: Bool[tf.Tensor, " p"]
    cuts: Cuts
    boxes: Float32[tf.Tensor, "p n yxyx=4"]  # yxyx in pixels of the input
    keep: Bool[tf.Tensor, "p n"]
    colour: ColourDraws


class Composer(ExampleMaker):
    """Makes the example at a position: a row of a TrainBatch (its fields without the first dimension)."""

    def __init__(
        self,
        examples: Examples,
        split: TrainSplit,
        input_size: tuple[int, int],
        protocol: EvaluationProtocol,
        box_form: TruthForm,
        seed: int,
    ) -> None:
        """
        Args:
            protocol: its `resize` and `padding_value` (and, where all is decoded, `interpolation`) are training's, too.
            box_form: of the batch's boxes; they are relative to the network's input.
            seed: of the run.
        """
        self.examples, self.split, self.input_size, self.seed = examples, split, input_size, seed
        self._protocol, self._box_form = protocol, box_form
        self.geometry = geometry_of(split, input_size, protocol)
        self.schedule = schedule_of_split(split)
        # Never inlined: TensorFlow then simplifies them alike within a stream and outside, in a replay. It makes a
        # product of a division by a constant, which may round otherwise. And each is set up but once for a number of
        # images: a stream starts sooner.
        self._pieces, self._cuts_and_boxes, self._joined = (
            tf.function(part, autograph=False, experimental_attributes={"_noinline": True})
            for part in (self._trace_pieces, self._trace_cuts_and_boxes, self._trace_joined)
        )

    def plan(self, position: Int64[tf.Tensor, ""]) -> ExamplePlan:
        """The images and the seed of the example at a position."""
        return self.schedule.plan(position, len(self.examples), self.seed)

    def inputs(self, positions: tf.data.Dataset) -> tf.data.Dataset:
        """Positions with the decoded images of their block, where examples share images."""
        if self.schedule.reuse == 1:
            return positions
        return with_images(positions, self.schedule, self.examples, self.seed, self.split.max_boxes, self.input_size)

    def __call__(self, position: Int64[tf.Tensor, ""], images: BlockImages | None = None) -> TrainBatch:
        """The example at a position, of the images of its block, or of images that are read for it alone."""
        plan = self.plan(position)
        if self.geometry is None:
            return self._whole(plan)
        if images is not None:
            return self._composed(plan, *images.at(plan.places))
        if self.geometry.precise:
            branches = [lambda makeup=makeup: self._precise(plan, makeup) for makeup in self.schedule.makeups]
            return _switch(plan.makeup, branches)
        return self._composed(plan, *self._read(plan))

    def explain(self, position: Int64[tf.Tensor, ""]) -> Explained:
        """The stages on the way to the example at a position, by the same steps as the stream's."""
        plan = self.plan(position)
        makeup = self.schedule.makeups[int(plan.makeup)]
        rows = plan.rows[: sum(makeup)].numpy().tolist()
        shown, drawn = [None] * len(rows), {"kind": makeup}
        if self.geometry is None:
            return Explained(rows, drawn, shown)
        read = [self.examples.read(tf.constant(row, tf.int64)) for row in rows]
        seeds = _seeds(plan)
        draws = self._draws(makeup, seeds, tf.stack([example.size for example in read]))
        drawn |= {"compositions": draws, "fill": self.geometry.fill}
        if self.geometry.precise:
            decoded = [decode_example(example) for example in read]
            images = [self.geometry.precise_image(*part) for part in zip(draws, _parts(decoded, makeup), strict=True)]
        else:
            truths, pixels = self._read(plan) if self.schedule.reuse == 1 else self._block_of(plan).at(plan.places)
            layout = self._layout(plan, seeds, truths, pixels)
            drawn["pieces"], shown = explain_pieces(layout.cells, layout.flip, layout.cuts, len(rows))
            cells, firsts = self._cells(plan.count, pixels, layout), np.cumsum([0, *makeup])
            images = [
                self._composition(cells, layout, tf.constant(first, tf.int32), count)
                for first, count in zip(firsts, makeup, strict=False)
            ]
        if len(images) > 1:
            drawn["share"] = self.geometry.share(seeds.share)
        return Explained(rows, drawn, shown, images)

    def _read(self, plan: ExamplePlan) -> tuple[Truths, Pixels]:
        return read_all(self.examples, plan.rows, plan.count, self.split.max_boxes)

    def _block_of(self, plan: ExamplePlan) -> BlockImages:
        block = plan.position // self.schedule.examples
        return load_block(block, self.schedule, self.examples, self.seed, self.split.max_boxes, self.input_size)

    def _composed(self, plan: ExamplePlan, truths: Truths, pixels: Pixels) -> TrainBatch:
        """The planned example. Truths and pixels are padded to the most images that any makeup has."""
        seeds = _seeds(plan)
        layout = self._layout(plan, seeds, truths, pixels)
        cells, share = self._cells(plan.count, pixels, layout), self.geometry.share(seeds.share)
        composition = functools.partial(self._composition, cells, layout)
        image = self._by_count(0, plan.makeup, composition)
        if self.schedule.most_compositions == 2:
            image = self._by_count(1, plan.makeup, lambda *of: self._blended([image, composition(*of)], share), image)
        return self._example(image, truths, layout.boxes, layout.keep, layout.colour)

    def _draws(self, makeup: Makeup, seeds: Seeds, sizes: Int32[tf.Tensor, "p 2"]) -> list[tuple]:
        """Draws of each composition of an example of that makeup, whose images are of these sizes."""
        of_each = zip(seeds.compositions, tf.split(sizes, makeup), strict=False)
        return [self.geometry.draw(seed, part, tf.constant(makeup == (1,))) for seed, part in of_each]

    def _layout(self, plan: ExamplePlan, seeds: Seeds, truths: Truths, pixels: Pixels) -> Layout:
        """Layout of the planned example. Truths and pixels are padded to the most images that any makeup has."""
        alone = plan.count == 1

        def placed(slot: int) -> tuple[Pieces, tf.Tensor]:
            def made(first: Int32[tf.Tensor, ""], count: int) -> tuple[Pieces, tf.Tensor]:
                return self._pieces(seeds.compositions[slot], tf.slice(truths.size, [first, 0], [count, 2]), alone)

            return self._by_count(slot, plan.makeup, made, (no_pieces(), tf.zeros([0])))

        of_slots = [placed(slot) for slot in range(self.schedule.most_compositions)]
        pieces, shrink = tf.nest.map_structure(lambda *parts: _padded(parts, self.schedule.most_images), *of_slots)
        cuts_and_boxes = self._cuts_and_boxes(pieces, truths.size, truths.yxyx, pixels.ratio(shrink))
        return Layout(pieces.cell, pieces.flip, *cuts_and_boxes, self.geometry.colour(seeds.colour, alone))

    def _by_count(
        self,
        slot: int,
        makeup: Int32[tf.Tensor, ""],
        make: Callable[[Int32[tf.Tensor, ""], int], Any],
        without: Any = None,
    ) -> Any:
        """Makes one composition: calls `make` with the place of its first image and the number of its images.

        Once for each number of images, not for each makeup: a graph of all makeups takes twice as long to start.

        Args:
            slot: 0: the first composition of the example; 1: the second.
            makeup: the example's, by its number.
            without: given where the makeup has no such composition.
        """
        counts = self.schedule.images_of_compositions
        options = np.unique(counts[:, slot]).tolist()
        first = tf.gather(counts[:, :slot].sum(axis=1, dtype=np.int32), makeup)
        chosen = tf.gather([options.index(count) for count in counts[:, slot]], makeup)
        return _switch(chosen, [lambda count=count: make(first, count) if count else without for count in options])

    def _trace_pieces(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> tuple[Pieces, Float32[tf.Tensor, " p"]]:
        pieces = self.geometry.pieces(self.geometry.draw(seed, sizes, alone), sizes)
        return pieces, shrink_of(pieces)

    def _trace_cuts_and_boxes(
        self,
        pieces: Pieces,
        sizes: Int32[tf.Tensor, "p 2"],
        yxyx: Float32[tf.Tensor, "p n yxyx=4"],
        ratio: Int32[tf.Tensor, " p"],
    ) -> tuple[Cuts, Float32[tf.Tensor, "p n box=4"], Bool[tf.Tensor, "p n"]]:
        cuts = cut(pieces, sizes, ratio, rim=isinstance(self.geometry.fill, str))
        return cuts, *self.geometry.truths(boxes_in_input(yxyx, sizes, cuts.scale, cuts.offset), pieces)

    def _cells(self, count: Int32[tf.Tensor, ""], pixels: Pixels, layout: Layout) -> Cells:
        return Cells(
            count,
            self.schedule.most_images,
            lambda at: cell_of(at, pixels, layout.cells, layout.flip, layout.cuts, self.geometry.fill),
        )

    def _composition(
        self, cells: Cells, layout: Layout, first: Int32[tf.Tensor, ""], count: int
    ) -> UInt8[tf.Tensor, "H W 3"]:
        parts = [cells.read(first + number) for number in range(count)]
        return self._joined(parts, tf.slice(layout.cells, [first, 0], [count, 4]))

    def _trace_joined(
        self, cells: list[UInt8[tf.Tensor, "_h _w 3"]], places: Int32[tf.Tensor, "p yxyx=4"]
    ) -> UInt8[tf.Tensor, "H W 3"]:
        return put_together(cells, places, self.input_size)

    def _precise(self, plan: ExamplePlan, makeup: Makeup) -> TrainBatch:
        """The planned example by the original's own steps, of images that are decoded as a whole."""
        read = [self.examples.read(row) for row in tf.unstack(plan.rows[: sum(makeup)], num=sum(makeup))]
        fields = zip(*(truth_of(example, self.split.max_boxes) for example in read), strict=True)
        truths = Truths(*(tf.stack(field) for field in fields))
        seeds, own = _seeds(plan), zip(*(_parts(field, makeup) for field in truths), strict=True)
        images, boxes = [], []
        for draws, part, known in zip(self._draws(makeup, seeds, truths.size), _parts(read, makeup), own, strict=True):
            images.append(self.geometry.precise_image(draws, [decode_example(one) for one in part]))
            boxes.append(self.geometry.precise_truths(draws, Truths(*known)))
        boxes, keep = (tf.concat(parts, axis=0) for parts in zip(*boxes, strict=True))  # [p, n, 4], [p, n]
        image = self._blended(images, self.geometry.share(seeds.share))
        colour = self.geometry.colour(seeds.colour, tf.constant(makeup == (1,)))
        return self._example(image, truths, boxes, keep, colour)

    def _blended(self, images: Sequence[UInt8[tf.Tensor, "H W 3"]], share: tf.Tensor) -> UInt8[tf.Tensor, "H W 3"]:
        return images[0] if len(images) == 1 else blend(*images, share, self.geometry.rounding)

    def _example(
        self,
        image: UInt8[tf.Tensor, "H W 3"],
        truths: Truths,
        boxes: Float32[tf.Tensor, "p n yxyx=4"],
        keep: Bool[tf.Tensor, "p n"],
        colour: ColourDraws,
    ) -> TrainBatch:
        """The example with the first of all images' boxes (yxyx in pixels of the input) that are to keep, in order."""
        most = self.split.max_boxes
        keep &= tf.range(most) < truths.count[:, tf.newaxis]  # [p, n]
        kept = tf.squeeze(tf.where(tf.reshape(keep, [-1])), axis=1)  # [kept], of all p * n
        boxes = pad_rows(tf.gather(tf.reshape(boxes, [-1, 4]), kept), most)
        classes = pad_rows(tf.gather(tf.reshape(truths.classes, [-1]), kept), most)
        valid = tf.range(most, dtype=tf.int64) < tf.size(kept, tf.int64)
        relative = boxes / (*self.input_size, *self.input_size)
        boxes = tf.where(valid[:, tf.newaxis], convert_boxes(relative, "yxyx", self._box_form), 0.0)
        return TrainBatch(image, boxes, classes, valid, truths.example_id[0], colour)

    def _whole(self, plan: ExamplePlan) -> TrainBatch:
        """The example of one whole image. Without geometry the pixels are the evaluation's own, in whole levels.

        Stretching leaves relative boxes as they are: no conversion.
        """
        example = self.examples.read(tf.squeeze(plan.rows))
        size, most = self.input_size, self.split.max_boxes
        image = whole_levels(resize_image(decode_example(example), size, self._protocol))
        moved = boxes_to_input(example.yxyx, example.size, whole_image(example.size), size, self._protocol)
        keep = tf.reduce_all((moved[:, 2:] - moved[:, :2]) * tf.constant(size, tf.float32) >= 1.0, axis=1)
        stretched = self._protocol.resize == "stretch"
        boxes = example.boxes if stretched else convert_boxes(moved, "yxyx", self._box_form)
        boxes, classes = boxes[keep], example.classes[keep]
        return TrainBatch(
            image,
            pad_rows(boxes, most),
            pad_rows(classes, most),
            tf.range(most) < tf.size(classes),
            example.example_id,
            draw_colour(self.split.augmentation, plan.seed),
        )


def _seeds(plan: ExamplePlan) -> Seeds:
    *compositions, share, colour = tf.unstack(tf.random.experimental.stateless_split(plan.seed, 4), num=4)
    return Seeds(tuple(compositions), share, colour)


def _parts(images: list | Shaped[tf.Tensor, "p *rest"], makeup: Makeup) -> list:
    """The images of each composition, or what is known of them."""
    firsts = np.cumsum([0, *makeup])
    return [images[first : first + count] for first, count in zip(firsts, makeup, strict=False)]


def _switch(number: Int32[tf.Tensor, ""], branches: Sequence[Callable[[], Any]]) -> Any:
    return branches[0]() if len(branches) == 1 else tf.switch_case(number, branches)


def _padded(parts: Sequence[tf.Tensor], most: int) -> tf.Tensor:
    """Rows of all parts, [most, ...]: zeros (False) follow them."""
    rest = parts[0].shape[1:]
    if len(parts) == 1 and parts[0].shape[0] == most:
        return parts[0]
    rows = tf.concat([*parts, tf.zeros([most, *rest], parts[0].dtype)], axis=0)
    return tf.slice(rows, [0] * rows.shape.rank, [most, *rest])
