"""From a position of the training stream to an example composed of one or more images."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import AffineAugmentation, Composed, TrainSplit
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import ColourDraws, TrainBatch, pad_rows
from dataloaders.compose.geometry import AffineGeometry, DarknetGeometry, Draws, Geometry
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
from dataloaders.compose.reuse_window import WindowOfImages, load_window, with_windows
from dataloaders.compose.truths import read_all, truth_of
from dataloaders.examples import ExampleMaker, Explained
from dataloaders.reading.dataset import Examples, decode_example
from dataloaders.reading.sources import TruthForm
from dataloaders.schedule.images import ImageSchedule, Makeup, blocks_of, rows_at
from dataloaders.schedule.order import row_at, seed_at
from official.vision.boxes import convert_boxes
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_input, resize_image, whole_image, whole_levels


class Seeds(NamedTuple):
    """Of one example."""

    compositions: tuple[Int64[tf.Tensor, "2"], Int64[tf.Tensor, "2"]]  # the second is of no use where there is but one
    share: Int64[tf.Tensor, "2"]
    colour: Int64[tf.Tensor, "2"]


class Layout(NamedTuple):
    """What follows from the draws of an example, padded to the most images that any kind has: they show nothing."""

    cells: Int32[tf.Tensor, "p 4"]
    flip: Bool[tf.Tensor, " p"]
    cuts: Cuts
    boxes: Float32[tf.Tensor, "p n 4"]  # yxyx in pixels of the input
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
        self.blocks = blocks_at(split)
        # Never inlined: TensorFlow then simplifies them alike within a stream and outside, in a replay. It makes a
        # product of a division by a constant, which may round otherwise. And each is set up but once for a number of
        # images: a stream starts sooner.
        self._placed, self._seen, self._joined = (
            tf.function(part, autograph=False, experimental_attributes={"_noinline": True})
            for part in (self._placed_anew, self._seen_anew, self._joined_anew)
        )

    def inputs(self, positions: tf.data.Dataset) -> tf.data.Dataset:
        """With a window of images, where the split has one."""
        blocks, split = self.blocks, self.split
        if blocks.reuse == 1:
            return positions
        sizes = blocks.examples, blocks.images
        return with_windows(positions, *sizes, self.examples, self.seed, split.max_boxes, self.input_size)

    def __call__(self, position: Int64[tf.Tensor, ""], window: WindowOfImages | None = None) -> TrainBatch:
        """Without a window, each image is read and decoded for this example alone."""
        if window is not None:
            return self.of_window(position, window)
        if self.geometry is None:
            return self._plain(position)
        number, first = self.blocks.at(position, self.seed)
        if self.geometry.precise:
            branches = [lambda kind=kind: self._exact(kind, position, first) for kind in self.blocks.kinds]
            return _switch(number, branches)
        rows = self._rows(position, first, self.blocks.most)
        truths, pixels = read_all(self.examples, rows, self.blocks.uses_of(number), self.split.max_boxes)
        return self._compose(position, number, truths, pixels)

    def of_window(self, position: Int64[tf.Tensor, ""], window: WindowOfImages) -> TrainBatch:
        """Images come from the window of the position's block."""
        number, first = self.blocks.at(position, self.seed)
        places = self.blocks.images_of(position, first, self.blocks.most, self.seed)
        return self._compose(position, number, *window.at(places))

    def explain(self, position: Int64[tf.Tensor, ""]) -> Explained:
        """One image, a mosaic, or two of them blended."""
        blocks = self.blocks
        number, first = blocks.at(position, self.seed)
        kind = blocks.kinds[int(number)]
        all_rows = self._rows(position, first, blocks.most)
        rows = all_rows[: sum(kind)].numpy().tolist()
        shown, found = [None] * len(rows), {"kind": kind}
        if self.geometry is None:
            return Explained(rows, found, shown)
        if blocks.reuse > 1:
            block, most = position // blocks.examples, self.split.max_boxes
            window = load_window(block, blocks.images, self.examples, self.seed, most, self.input_size)
            truths, pixels = window.at(blocks.images_of(position, first, blocks.most, self.seed))
        else:
            truths, pixels = read_all(self.examples, all_rows, blocks.uses_of(number), self.split.max_boxes)
        seeds = self.seeds(position)
        draws = self.draws(kind, seeds, truths.size[: len(rows)])
        found |= {"compositions": draws, "fill": self.geometry.fill}
        if self.geometry.precise:
            read = iter([self.examples.read(tf.constant(row, tf.int64)) for row in rows])
            parts = [[decode_example(next(read)) for _ in range(count)] for count in kind]
            images = [self.geometry.exact(*of_composition) for of_composition in zip(draws, parts, strict=True)]
        else:
            layout = self.laid_out(number, seeds, truths, pixels)
            images = self.compositions(kind, layout, pixels)
            found["pieces"], shown = explain_pieces(layout.cells, layout.flip, layout.cuts, len(rows))
        if len(images) == 1:
            return Explained(rows, found, shown)
        return Explained(rows, found | {"share": self.geometry.share(seeds.share)}, shown, images)

    def seeds(self, position: Int64[tf.Tensor, ""]) -> Seeds:
        """What all that is random about the example at a position is drawn by."""
        *compositions, share, colour = tf.unstack(
            tf.random.experimental.stateless_split(seed_at(position, len(self.examples), self.seed), 4), num=4
        )
        return Seeds(tuple(compositions), share, colour)

    def _rows(
        self, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""], count: int
    ) -> Int64[tf.Tensor, " count"]:
        return rows_at(self.blocks, position, first, count, len(self.examples), self.seed)

    def _compose(
        self, position: Int64[tf.Tensor, ""], number: Int32[tf.Tensor, ""], truths: Truths, pixels: Pixels
    ) -> TrainBatch:
        """The example at a position, of the kind of that number; see `laid_out`."""
        seeds = self.seeds(position)
        layout = self.laid_out(number, seeds, truths, pixels)
        cells, share = self._cells(self.blocks.uses_of(number), pixels, layout), self.geometry.share(seeds.share)
        composition = functools.partial(self._composition, cells, layout)
        image = self._by_count(0, number, composition)
        if self.blocks.slots == 2:
            image = self._by_count(1, number, lambda *of: self._blended([image, composition(*of)], share), image)
        return self._row(image, truths, layout.boxes, layout.keep, layout.colour)

    def draws(self, kind: Makeup, seeds: Seeds, sizes: Int32[tf.Tensor, "p 2"]) -> list[Draws]:
        """Of each composition of an example of that kind, whose images are of these sizes."""
        of_each = zip(seeds.compositions, tf.split(sizes, kind), strict=False)
        return [self.geometry.draw(seed, part, tf.constant(kind == (1,))) for seed, part in of_each]

    def compositions(self, kind: Makeup, layout: Layout, pixels: Pixels) -> list[UInt8[tf.Tensor, "H W 3"]]:
        """The images of an example of that kind, before they are blended."""
        cells, firsts = self._cells(tf.constant(sum(kind)), pixels, layout), np.cumsum([0, *kind])
        return [
            self._composition(cells, layout, tf.constant(first, tf.int32), count)
            for first, count in zip(firsts, kind, strict=False)
        ]

    def laid_out(self, number: Int32[tf.Tensor, ""], seeds: Seeds, truths: Truths, pixels: Pixels) -> Layout:
        """Of an example of the kind of that number, whose images are the first of as many as any kind has."""
        alone = self.blocks.uses_of(number) == 1

        def placed(slot: int) -> tuple[Pieces, tf.Tensor]:
            def made(first: Int32[tf.Tensor, ""], count: int) -> tuple[Pieces, tf.Tensor]:
                return self._placed(seeds.compositions[slot], tf.slice(truths.size, [first, 0], [count, 2]), alone)

            return self._by_count(slot, number, made, (no_pieces(), tf.zeros([0])))

        of_slots = [placed(slot) for slot in range(self.blocks.slots)]
        pieces, shrink = tf.nest.map_structure(lambda *parts: _padded(parts, self.blocks.most), *of_slots)
        seen = self._seen(pieces, truths.size, truths.yxyx, pixels.ratio(shrink))
        return Layout(pieces.cell, pieces.flip, *seen, self.geometry.colour(seeds.colour, alone))

    def _by_count(
        self,
        slot: int,
        number: Int32[tf.Tensor, ""],
        make: Callable[[Int32[tf.Tensor, ""], int], Any],
        without: Any = None,
    ) -> Any:
        """What `make` gives for a composition, from the place of its first image and their number.

        Once for each number of images, not for each kind: a graph of all kinds takes twice as long to start.

        Args:
            slot: 0: the first composition of the example; 1: the second.
            number: of the example's kind.
            without: given where the kind has no such composition.
        """
        counts = self.blocks.counts
        options = np.unique(counts[:, slot]).tolist()
        first = tf.gather(counts[:, :slot].sum(axis=1, dtype=np.int32), number)
        chosen = tf.gather([options.index(count) for count in counts[:, slot]], number)
        return _switch(chosen, [lambda count=count: make(first, count) if count else without for count in options])

    def _placed_anew(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> tuple[Pieces, Float32[tf.Tensor, " p"]]:
        pieces = self.geometry.pieces(self.geometry.draw(seed, sizes, alone), sizes)
        return pieces, shrink_of(pieces)

    def _seen_anew(
        self,
        pieces: Pieces,
        sizes: Int32[tf.Tensor, "p 2"],
        yxyx: Float32[tf.Tensor, "p n 4"],
        ratio: Int32[tf.Tensor, " p"],
    ) -> tuple[Cuts, Float32[tf.Tensor, "p n 4"], Bool[tf.Tensor, "p n"]]:
        cuts = cut(pieces, sizes, ratio, rim=isinstance(self.geometry.fill, str))
        return cuts, *self.geometry.truths(boxes_in_input(yxyx, sizes, cuts.scale, cuts.offset), pieces)

    def _cells(self, count: Int32[tf.Tensor, ""], pixels: Pixels, layout: Layout) -> Cells:
        return Cells(
            count,
            self.blocks.most,
            lambda at: cell_of(at, pixels, layout.cells, layout.flip, layout.cuts, self.geometry.fill),
        )

    def _composition(
        self, cells: Cells, layout: Layout, first: Int32[tf.Tensor, ""], count: int
    ) -> UInt8[tf.Tensor, "H W 3"]:
        parts = [cells.read(first + number) for number in range(count)]
        return self._joined(parts, tf.slice(layout.cells, [first, 0], [count, 4]))

    def _joined_anew(
        self, cells: list[UInt8[tf.Tensor, "_h _w 3"]], places: Int32[tf.Tensor, "p 4"]
    ) -> UInt8[tf.Tensor, "H W 3"]:
        return put_together(cells, places, self.input_size)

    def _exact(self, kind: Makeup, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""]) -> TrainBatch:
        """The example at a position by the original's own steps, of images that are decoded as a whole."""
        rows = tf.unstack(self._rows(position, first, sum(kind)), num=sum(kind))
        read = [self.examples.read(row) for row in rows]
        fields = zip(*(truth_of(example, self.split.max_boxes) for example in read), strict=True)
        truths = Truths(*(tf.stack(field) for field in fields))
        images, boxes, at, seeds = [], [], 0, self.seeds(position)
        for count, draws in zip(kind, self.draws(kind, seeds, truths.size), strict=True):
            own = Truths(*(field[at : at + count] for field in truths))
            images.append(self.geometry.exact(draws, [decode_example(one) for one in read[at : at + count]]))
            boxes.append(self.geometry.exact_truths(draws, own))
            at += count
        boxes, keep = (tf.concat(parts, axis=0) for parts in zip(*boxes, strict=True))  # [p, n, 4], [p, n]
        image = self._blended(images, self.geometry.share(seeds.share))
        colour = self.geometry.colour(seeds.colour, tf.constant(kind == (1,)))
        return self._row(image, truths, boxes, keep, colour)

    def _blended(self, images: Sequence[UInt8[tf.Tensor, "H W 3"]], share: tf.Tensor) -> UInt8[tf.Tensor, "H W 3"]:
        return images[0] if len(images) == 1 else blend(*images, share, self.geometry.rounding)

    def _row(
        self,
        image: UInt8[tf.Tensor, "H W 3"],
        truths: Truths,
        boxes: Float32[tf.Tensor, "p n 4"],
        keep: Bool[tf.Tensor, "p n"],
        colour: ColourDraws,
    ) -> TrainBatch:
        """With the first of the boxes (yxyx in pixels of the input) of all images that are to keep, in their order."""
        most = self.split.max_boxes
        keep &= tf.range(most) < truths.count[:, tf.newaxis]  # [p, n]
        kept = tf.squeeze(tf.where(tf.reshape(keep, [-1])), axis=1)  # [kept], of all p * n
        boxes = pad_rows(tf.gather(tf.reshape(boxes, [-1, 4]), kept), most)
        classes = pad_rows(tf.gather(tf.reshape(truths.classes, [-1]), kept), most)
        valid = tf.range(most, dtype=tf.int64) < tf.size(kept, tf.int64)
        relative = boxes / (*self.input_size, *self.input_size)
        boxes = tf.where(valid[:, tf.newaxis], convert_boxes(relative, "yxyx", self._box_form), 0.0)
        return TrainBatch(image, boxes, classes, valid, truths.example_id[0], colour)

    def _plain(self, position: Int64[tf.Tensor, ""]) -> TrainBatch:
        """Without geometry the pixels are the evaluation's own, in whole levels.

        Stretching leaves relative boxes as they are: no conversion.
        """
        example = self.examples.read(row_at(position, len(self.examples), self.seed))
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
            draw_colour(self.split.augmentation, seed_at(position, len(self.examples), self.seed)),
        )


def geometry_of(split: TrainSplit, input_size: tuple[int, int], protocol: EvaluationProtocol) -> Geometry | None:
    """None where every example is made of one image, and not of a part of it."""
    config = split.augmentation
    if not isinstance(config, Composed):
        return None
    if isinstance(config, AffineAugmentation):
        return AffineGeometry(config, input_size)
    return DarknetGeometry(config, input_size, protocol) if config.composes else None


def blocks_at(split: TrainSplit) -> ImageSchedule:
    """Which images each position uses."""
    geometry = geometry_of(split, (1, 1), EvaluationProtocol())
    if geometry is None:
        return ImageSchedule(((1,),), (1,))
    window = split.augmentation.window
    return (
        blocks_of(geometry.shares()) if window is None else blocks_of(geometry.shares(), window.reuse, window.examples)
    )


def rows_of_steps(split: TrainSplit, images: int, seed: int, first_step: int, last_step: int) -> list[int]:
    """The data set's rows that training steps first_step to last_step - 1 read, in order, each once.

    With a window they read all of the blocks that they are in.
    """
    blocks, rows = blocks_at(split), []
    start, stop = first_step * split.batch_size, last_step * split.batch_size
    if blocks.reuse > 1:
        start, stop = start // blocks.examples * blocks.examples, -(-stop // blocks.examples) * blocks.examples
    for number in range(start, stop):
        position = tf.constant(number, tf.int64)
        kind, first = blocks.at(position, seed)
        count = sum(blocks.kinds[int(kind)])
        rows += rows_at(blocks, position, first, count, images, seed).numpy().tolist()
    return list(dict.fromkeys(rows))


def _switch(number: Int32[tf.Tensor, ""], branches: Sequence[Callable[[], Any]]) -> Any:
    return branches[0]() if len(branches) == 1 else tf.switch_case(number, branches)


def _padded(parts: Sequence[tf.Tensor], most: int) -> tf.Tensor:
    """Rows of all parts, [most, ...]: zeros (False) follow them."""
    rest = parts[0].shape[1:]
    if len(parts) == 1 and parts[0].shape[0] == most:
        return parts[0]
    rows = tf.concat([*parts, tf.zeros([most, *rest], parts[0].dtype)], axis=0)
    return tf.slice(rows, [0] * rows.shape.rank, [most, *rest])
