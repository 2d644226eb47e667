"""From a position of the training stream to an example composed of one or more images: YOLO's way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import AffineAugmentation, Composed, TrainSplit
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import ColourDraws, TrainBatch, pad_rows
from dataloaders.blocks import Blocks, Kind, blocks_of, rows_at
from dataloaders.compose import Cells, blend, cell_of, put_together
from dataloaders.examples import Examples, decode_example
from dataloaders.geometries import AffineGeometry, Boxes, DarknetGeometry, Draws, Geometry
from dataloaders.order import draw_row
from dataloaders.pieces import Cuts, Pieces, Pixels, Truths, boxes_in_input, cut
from dataloaders.sources import TruthForm
from dataloaders.truths import read_all, truth_of
from dataloaders.window import WindowOfImages
from official.core.config import Protocol
from official.vision.boxes import convert_boxes
from official.vision.resize import boxes_to_input, resize_image, whole_image, whole_levels


class Layout(NamedTuple):
    """What follows from the draws of an example, padded to the most images that any kind has."""

    cells: Int32[tf.Tensor, "p 4"]
    flip: Bool[tf.Tensor, " p"]
    cuts: Cuts
    boxes: Float32[tf.Tensor, "n 4"]  # yxyx in pixels of the input; only those that are kept, padded
    classes: Int32[tf.Tensor, " n"]
    count: Int32[tf.Tensor, ""]  # of boxes
    share: Float32[tf.Tensor, ""]  # of the first of two compositions
    colour: ColourDraws


class Composer:
    """Makes the example at a position: a row of a TrainBatch (its fields without the first dimension)."""

    def __init__(
        self,
        examples: Examples,
        split: TrainSplit,
        input_size: tuple[int, int],
        protocol: Protocol,
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
        self._geometry = geometry_of(split, input_size, protocol)
        self.blocks = blocks_at(split)

    def __call__(self, position: Int64[tf.Tensor, ""]) -> TrainBatch:
        """Each image is read and decoded for this example alone."""
        if self._geometry is None:
            return self._plain(position)
        number, first = self.blocks.at(position, self.seed)
        if self._geometry.precise:
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

    def draws(self, kind: Kind, position: Int64[tf.Tensor, ""], sizes: Int32[tf.Tensor, "p 2"]) -> list[Draws]:
        """Of each composition of the example at a position, whose kind and sizes of images are known."""
        seeds, parts = self._seeds(position), tf.split(sizes, kind)
        return [self._geometry.draw(seed, part, kind) for seed, part in zip(seeds, parts, strict=False)]

    def _rows(
        self, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""], count: int
    ) -> Int64[tf.Tensor, " count"]:
        return tf.stack(rows_at(self.blocks, position, first, count, len(self.examples), self.seed))

    def _seeds(self, position: Int64[tf.Tensor, ""]) -> list[Int64[tf.Tensor, "2"]]:
        """Of two compositions, of their shares and of the colour."""
        _, seed = draw_row(position, len(self.examples), self.seed)
        return tf.unstack(tf.random.experimental.stateless_split(seed, 4), num=4)

    def _compose(
        self, position: Int64[tf.Tensor, ""], number: Int32[tf.Tensor, ""], truths: Truths, pixels: Pixels
    ) -> TrainBatch:
        """The example at a position, of the kind of that number, whose images are the first of those given."""
        kinds, geometry = self.blocks.kinds, self._geometry
        layout = _switch(number, [lambda kind=kind: self._laid_out(kind, position, truths, pixels) for kind in kinds])
        cells = Cells(
            self.blocks.uses_of(number),
            self.blocks.most,
            lambda at: cell_of(at, pixels, layout.cells, layout.flip, layout.cuts, geometry.fill),
        )
        image = _switch(number, [lambda kind=kind: self._assembled(kind, cells, layout) for kind in kinds])
        return self._row(image, layout, truths.example_id[0])

    def _laid_out(self, kind: Kind, position: Int64[tf.Tensor, ""], truths: Truths, pixels: Pixels) -> Layout:
        own = Truths(*(field[: sum(kind)] for field in truths))
        pieces = [
            self._geometry.pieces(draws, sizes)
            for draws, sizes in zip(self.draws(kind, position, own.size), tf.split(own.size, kind), strict=True)
        ]
        joined = Pieces(*(tf.concat(fields, axis=0) for fields in zip(*pieces, strict=True)))
        cuts = cut(joined, own.size, pixels, rim=isinstance(self._geometry.fill, str))
        boxes = boxes_in_input(own.yxyx, own.size, cuts.scale, cuts.offset)
        kept = [self._geometry.truths(part, piece) for part, piece in zip(tf.split(boxes, kind), pieces, strict=True)]
        missing = self.blocks.most - sum(kind)
        padded = [_padded(field, missing) for field in (joined.cell, joined.flip, *cuts)]
        return Layout(*padded[:2], Cuts(*padded[2:]), *self._truths(kept, own), *self._shared(kind, position))

    def _assembled(self, kind: Kind, cells: Cells, layout: Layout) -> UInt8[tf.Tensor, "H W 3"]:
        images, at = [], 0
        for count in kind:
            parts = [cells.read(number) for number in range(at, at + count)]
            images.append(put_together(parts, layout.cells[at : at + count], self._geometry.fill, self.input_size))
            at += count
        return self._blended(images, layout.share)

    def _exact(self, kind: Kind, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""]) -> TrainBatch:
        """The example at a position by the original's own steps, of images that are decoded as a whole."""
        rows = tf.unstack(self._rows(position, first, sum(kind)), num=sum(kind))
        read = [self.examples.read(row) for row in rows]
        fields = zip(*(truth_of(example, self.split.max_boxes) for example in read), strict=True)
        truths = Truths(*(tf.stack(field) for field in fields))
        images, boxes, at = [], [], 0
        for count, draws in zip(kind, self.draws(kind, position, truths.size), strict=True):
            own = Truths(*(field[at : at + count] for field in truths))
            images.append(self._geometry.exact(draws, [decode_example(one) for one in read[at : at + count]]))
            boxes.append(self._geometry.exact_truths(draws, own))
            at += count
        nothing = tf.zeros([0, 4], tf.int32)
        share, colour = self._shared(kind, position)
        layout = Layout(nothing, tf.zeros([0], tf.bool), _NO_CUTS, *self._truths(boxes, truths), share, colour)
        return self._row(self._blended(images, share), layout, truths.example_id[0])

    def _shared(self, kind: Kind, position: Int64[tf.Tensor, ""]) -> tuple[Float32[tf.Tensor, ""], ColourDraws]:
        *_, share_seed, colour_seed = self._seeds(position)
        return self._geometry.share(share_seed), self._geometry.colour(colour_seed, kind)

    def _blended(self, images: Sequence[UInt8[tf.Tensor, "H W 3"]], share: tf.Tensor) -> UInt8[tf.Tensor, "H W 3"]:
        return images[0] if len(images) == 1 else blend(*images, share, self._geometry.rounding)

    def _truths(self, kept: Sequence[Boxes], truths: Truths) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The first boxes of all images, in their order, padded; their classes; how many there are."""
        boxes, keep = (tf.concat(parts, axis=0) for parts in zip(*kept, strict=True))  # [p, n, 4], [p, n]
        most = self.split.max_boxes
        keep &= tf.range(most) < truths.count[:, tf.newaxis]
        boxes, classes = tf.boolean_mask(boxes, keep)[:most], tf.boolean_mask(truths.classes, keep)[:most]
        return pad_rows(boxes, most), pad_rows(classes, most), tf.shape(classes)[0]

    def _row(self, image: UInt8[tf.Tensor, "H W 3"], layout: Layout, example_id: Int64[tf.Tensor, ""]) -> TrainBatch:
        valid = tf.range(self.split.max_boxes) < layout.count
        relative = layout.boxes / tf.tile(tf.constant(self.input_size, tf.float32), [2])
        boxes = tf.where(valid[:, tf.newaxis], convert_boxes(relative, "yxyx", self._box_form), 0.0)
        return TrainBatch(image, boxes, layout.classes, valid, example_id, layout.colour)

    def _plain(self, position: Int64[tf.Tensor, ""]) -> TrainBatch:
        """Without geometry the pixels are the evaluation's own, in whole levels.

        Stretching leaves relative boxes as they are: no conversion.
        """
        row, seed = draw_row(position, len(self.examples), self.seed)
        example, size = self.examples.read(row), self.input_size
        image = whole_levels(resize_image(decode_example(example), size, self._protocol))
        moved = boxes_to_input(example.yxyx, example.size, whole_image(example.size), size, self._protocol)
        keep = tf.reduce_all((moved[:, 2:] - moved[:, :2]) * tf.constant(size, tf.float32) >= 1.0, axis=1)
        stretched = self._protocol.resize == "stretch"
        boxes = example.boxes if stretched else convert_boxes(moved, "yxyx", self._box_form)
        boxes, classes = boxes[keep][: self.split.max_boxes], example.classes[keep][: self.split.max_boxes]
        return TrainBatch(
            image,
            pad_rows(boxes, self.split.max_boxes),
            pad_rows(classes, self.split.max_boxes),
            tf.range(self.split.max_boxes) < tf.shape(classes)[0],
            example.example_id,
            draw_colour(self.split.augmentation, seed),
        )


def geometry_of(split: TrainSplit, input_size: tuple[int, int], protocol: Protocol) -> Geometry | None:
    """None where every example is made of one image, and not of a part of it."""
    config = split.augmentation
    if not isinstance(config, Composed):
        return None
    if isinstance(config, AffineAugmentation):
        return AffineGeometry(config, input_size)
    moved = config.jitter > 0 or config.resize != 1 or config.mosaic > 0 or config.mixup > 0
    return DarknetGeometry(config, input_size, protocol) if moved else None


def blocks_at(split: TrainSplit) -> Blocks:
    """Which images each position uses."""
    geometry = geometry_of(split, (1, 1), Protocol())
    if geometry is None:
        return Blocks(((1,),), (1,))
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
        rows += [int(row) for row in rows_at(blocks, position, first, sum(blocks.kinds[int(kind)]), images, seed)]
    return list(dict.fromkeys(rows))


def _switch(number: Int32[tf.Tensor, ""], branches: Sequence[Callable[[], Any]]) -> Any:
    return branches[0]() if len(branches) == 1 else tf.switch_case(number, branches)


def _padded(rows: tf.Tensor, missing: int) -> tf.Tensor:
    """Zeros (False) after the rows."""
    return rows if missing == 0 else tf.pad(rows, [[0, missing], *([[0, 0]] * (rows.shape.rank - 1))])


_NO_CUTS = Cuts(tf.zeros([0], tf.int32), *[tf.zeros([0, 4], tf.int32)] * 2, *[tf.zeros([0, 2])] * 2)
