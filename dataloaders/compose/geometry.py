"""The families of geometry that examples are composed by: each draws, then says what follows for pixels and truths."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from configs.data import AffineAugmentation, DarknetAugmentation
from dataloaders.augment.colour import draw_colour
from dataloaders.batch import ColourDraws
from dataloaders.compose import affine, darknet, exact
from dataloaders.compose.affine import AffineDraws
from dataloaders.compose.darknet import DarknetDraws
from dataloaders.compose.pieces import Pieces, Truths, boxes_in_input, clip_to, exact_map, sides
from dataloaders.compose.pixels import Fill
from dataloaders.schedule.images import Makeup
from official.vision.protocol import EvaluationProtocol

Draws = DarknetDraws | AffineDraws
Boxes = tuple[Float32[tf.Tensor, "_ _ 4"], Bool[tf.Tensor, "_ _"]]  # yxyx in pixels of the input, and which to keep


@runtime_checkable
class Geometry(Protocol):
    """One family. Draws are of one composition."""

    precise: bool
    """Images are decoded as a whole; `exact` and `exact_truths` say what becomes of them, not `pieces` and `truths`."""
    fill: Fill
    rounding: float
    """Of two blended images: 0.5 rounds to the nearest level, 0 cuts off."""

    def shares(self) -> list[tuple[Makeup, float]]:
        """Kinds of examples, and the share of each; they sum to 1."""

    def draw(self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]) -> Draws:
        """A composition. `alone`: the example is this one image and nothing else."""

    def pieces(self, draws: Draws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        """One, four in the order of reading, or nine around the first; see `put_together`."""

    def truths(self, boxes: Float32[tf.Tensor, "p n 4"], pieces: Pieces) -> Boxes:
        """What becomes of boxes yxyx in pixels of the input; each by its own piece. An empty frame keeps none."""

    def exact(self, draws: Draws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]) -> UInt8[tf.Tensor, "H W 3"]:
        """The network's input, by the original's own steps."""

    def exact_truths(self, draws: Draws, truths: Truths) -> Boxes:
        """The boxes, by the original's own steps."""

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        """Of the first of two blended compositions."""

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        """What the accelerator applies."""


class DarknetGeometry:
    """Jitter, mosaic and mixup of Darknet; see augment/darknet.py."""

    rounding = 0.5

    def __init__(self, config: DarknetAugmentation, input_size: tuple[int, int], protocol: EvaluationProtocol) -> None:
        self._config, self._input_size, self._protocol = config, input_size, protocol
        self.fill = round(protocol.padding_value) if config.fill == "padding" else config.fill
        self.precise = config.precise

    def shares(self) -> list[tuple[Makeup, float]]:
        mosaic, mixup = self._config.mosaic, self._config.mixup
        return [((1,), 1 - mosaic - mixup), ((4,), mosaic), ((1, 1), mixup)]

    def draw(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> DarknetDraws:
        letterbox = self._protocol.resize == "letterbox"
        return darknet.draw(self._config, seed, sizes, self._input_size, letterbox, flip=~alone)

    def pieces(self, draws: DarknetDraws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        return darknet.pieces_of(draws, self._input_size)

    def truths(self, boxes: Float32[tf.Tensor, "p n 4"], pieces: Pieces) -> Boxes:
        """boxes: yxyx in pixels of the input."""
        boxes, keep = darknet.truths_of(boxes, pieces.frame)
        if not self._config.mosaic:
            return boxes, keep
        met, left = darknet.truths_of_mosaic(boxes, pieces.cell, self._input_size, self._config.mosaic_bound)
        lone = tf.reduce_all(sides(pieces.cell) == self._input_size, axis=1)[:, tf.newaxis]  # [p, 1]
        return tf.where(lone[..., tf.newaxis], boxes, met), keep & (lone | left)

    def exact(self, draws: DarknetDraws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]) -> UInt8[tf.Tensor, "H W 3"]:
        return exact.darknet_image(images, draws, self.fill, self._protocol.interpolation, self._input_size)

    def exact_truths(self, draws: DarknetDraws, truths: Truths) -> Boxes:
        pieces = darknet.pieces_of(draws, self._input_size)
        return self.truths(boxes_in_input(truths.yxyx, truths.size, *exact_map(pieces)), pieces)

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        return tf.constant(0.5)

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        draws = draw_colour(self._config, seed)
        return draws._replace(flip=draws.flip & alone)  # other images were mirrored one by one


class AffineGeometry:
    """Mosaics, scale and shift, and mixup of Scaled-YOLOv4 and YOLOv7; see augment/affine.py."""

    rounding = 0.0
    fill = affine.FILL

    def __init__(self, config: AffineAugmentation, input_size: tuple[int, int]) -> None:
        self._config, self._input_size = config, input_size
        self.precise = config.precise or not config.is_crop

    def shares(self) -> list[tuple[Makeup, float]]:
        config = self._config
        layouts = [((4,), 1 - config.nine), ((9,), config.nine)]
        alone = [(kind, config.mosaic * (1 - config.mixup) * share) for kind, share in layouts]
        pairs = [
            (one + other, config.mosaic * config.mixup * share * other_share)
            for one, share in layouts
            for other, other_share in layouts
        ]
        return [((1,), 1 - config.mosaic), *alone, *pairs]

    def draw(
        self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]
    ) -> AffineDraws:
        return affine.draw(self._config, seed, sizes, self._input_size)

    def pieces(self, draws: AffineDraws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        return affine.pieces_of(draws, sizes, self._input_size)

    def truths(self, boxes: Float32[tf.Tensor, "p n 4"], pieces: Pieces) -> Boxes:
        """boxes: yxyx in pixels of the input."""
        return affine.truths_of(self._config, boxes, pieces.frame, self._input_size)

    def exact(self, draws: AffineDraws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]) -> UInt8[tf.Tensor, "H W 3"]:
        return exact.warped_image(images, draws, self._input_size)

    def exact_truths(self, draws: AffineDraws, truths: Truths) -> Boxes:
        canvas = affine.canvas_of(truths.size.shape[0], self._input_size)
        before = clip_to(exact.boxes_on_canvas(truths.yxyx, draws), tf.constant([[0, 0, *canvas]], tf.float32))
        limits = tf.constant([[0, 0, *self._input_size]], tf.float32)
        after = clip_to(exact.warped_boxes(before, draws.matrix), limits)
        return after, affine.candidates(self._config, before * draws.scale, after)

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        return affine.draw_share(self._config, seed)

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        return affine.draw_colour(self._config, seed)
