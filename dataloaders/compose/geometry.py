"""The contract of a geometry: it draws a composition, then says what follows for pixels and truths."""

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, UInt8

from dataloaders.batch import ColourDraws
from dataloaders.compose.pieces import Pieces, Truths
from dataloaders.compose.pixels import Fill
from dataloaders.schedule.images import Makeup

Draws = TypeVar("Draws", bound=tuple)  # the geometry's own, a NamedTuple: all that was drawn for one composition
Boxes = tuple[
    Float32[tf.Tensor, "_ _ yxyx=4"], Bool[tf.Tensor, "_ _"]
]  # yxyx in pixels of the input, and which to keep


@runtime_checkable
class Geometry(Protocol[Draws]):
    """The geometry of one recipe: how its examples are composed of images. Made of (recipe, input size, protocol)."""

    composes: bool
    """False: every example is one whole image, shown as in evaluation, and nothing below is asked."""
    precise: bool
    """True: images are decoded as a whole, and only the two `precise_` members say what becomes of them."""
    fill: Fill
    rounding: float
    """Added to two blended images: 0.5 rounds to the nearest level, 0 cuts off."""

    def shares(self) -> list[tuple[Makeup, float]]:
        """Makeups of examples, and the share of each; they sum to 1."""

    def draw(self, seed: Int64[tf.Tensor, "2"], sizes: Int32[tf.Tensor, "p 2"], alone: Bool[tf.Tensor, ""]) -> Draws:
        """Draws a composition. `alone`: the example is this one image and nothing else."""

    def pieces(self, draws: Draws, sizes: Int32[tf.Tensor, "p 2"]) -> Pieces:
        """One, four in the order of reading, or nine around the first; see `put_together`."""

    def truths(self, boxes: Float32[tf.Tensor, "p n yxyx=4"], pieces: Pieces) -> Boxes:
        """Clips and judges boxes yxyx in pixels of the input, each by its own piece. An empty frame keeps none."""

    def precise_image(self, draws: Draws, images: Sequence[UInt8[tf.Tensor, "_ _ 3"]]) -> UInt8[tf.Tensor, "H W 3"]:
        """The network's input, by the original's own steps."""

    def precise_truths(self, draws: Draws, truths: Truths) -> Boxes:
        """The boxes, by the original's own steps."""

    def share(self, seed: Int64[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
        """Draws the share of the first of two blended compositions."""

    def colour(self, seed: Int64[tf.Tensor, "2"], alone: Bool[tf.Tensor, ""]) -> ColourDraws:
        """Draws what the accelerator applies."""
