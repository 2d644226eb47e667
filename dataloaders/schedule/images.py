"""Which images an example is made of. The stream of positions is divided into blocks of equally many examples.

A block holds each kind of example (one image; a mosaic of four; ...) as often as its share says, in random order, and
is made of the next images of the training order (order.py): each is used `reuse` times in the block and not again
before the next pass. So each pass of the order uses each image exactly `reuse` times, whatever the kinds, and the
images of any position follow from the seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64

from dataloaders.schedule.order import keys_of, row_at, shuffled
from official.core.errors import UserError

EXAMPLES = (100, 1_000, 10_000)  # of a block of several kinds: the first in which each kind occurs

Makeup = tuple[int, ...]  # images of each composition: (1,) one image, (4,) a mosaic, (1, 1) two images blended


@dataclass(frozen=True)
class ImageSchedule:
    """`quota[i]` examples of a block are of `kinds[i]`."""

    kinds: tuple[Makeup, ...]
    quota: tuple[int, ...]
    reuse: int = 1

    @property
    def examples(self) -> int:
        return sum(self.quota)

    @property
    def images(self) -> int:
        """Different ones in a block."""
        return self.uses // self.reuse

    @property
    def uses(self) -> int:
        """Of images, in a block."""
        return sum(sum(kind) * count for kind, count in zip(self.kinds, self.quota, strict=True))

    @property
    def is_even(self) -> bool:
        """Every kind occurs, and every image is used equally often."""
        return all(self.quota) and self.uses % self.reuse == 0

    @property
    def most(self) -> int:
        """Images of an example, at most."""
        return max(sum(kind) for kind in self.kinds)

    @property
    def slots(self) -> int:
        """Compositions of an example, at most."""
        return max(len(kind) for kind in self.kinds)

    @property
    def counts(self) -> Int32[np.ndarray, "kinds slots"]:
        """Images of each composition of each kind; 0: it has no such composition."""
        return np.array([kind + (0,) * (self.slots - len(kind)) for kind in self.kinds], np.int32)

    def uses_of(self, number: Int32[tf.Tensor, ""]) -> Int32[tf.Tensor, ""]:
        """Images of an example of the kind of that number."""
        return tf.gather([sum(kind) for kind in self.kinds], number)

    def at(self, position: Int64[tf.Tensor, ""], seed: int) -> tuple[Int32[tf.Tensor, ""], Int64[tf.Tensor, ""]]:
        """Of the example at a position: its kind, and the number of its first use within the block."""
        block, place = position // self.examples, position % self.examples
        if len(self.kinds) == 1:
            return tf.constant(0), place * sum(self.kinds[0])
        key = tf.random.experimental.stateless_fold_in(keys_of(seed, block), -1)
        kinds = np.repeat(np.arange(len(self.kinds), dtype=np.int32), self.quota)  # [examples]
        kinds = tf.random.experimental.stateless_shuffle(kinds, key)  # all at once: many times faster than one by one
        uses = tf.gather(tf.constant([sum(kind) for kind in self.kinds], tf.int64), kinds)
        return tf.gather(kinds, place), tf.gather(tf.cumsum(uses, exclusive=True), place)

    def images_of(
        self, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""], count: int, seed: int
    ) -> Int64[tf.Tensor, " count"]:
        """Places in the block's images, 0-based, of the `count` uses from `first` on."""
        uses = first + tf.range(count, dtype=tf.int64)
        if self.reuse == 1:
            return uses
        passes, places = uses // self.images, uses % self.images
        block = position // self.examples
        of_block = tf.random.stateless_uniform([], keys_of(seed, block), None, None, tf.int64)
        return shuffled(places, keys_of(of_block, passes), self.images)


def blocks_of(shares: Sequence[tuple[Makeup, float]], reuse: int = 1, examples: int | None = None) -> ImageSchedule:
    """A schedule in which kinds occur by their shares, which sum to 1; largest remainders first.

    Args:
        examples: of a block; none: as few as do.

    Raises:
        UserError: a kind would never occur, or the images of a block cannot all be used equally often.
    """
    shares = [(kind, share) for kind, share in shares if share > 0]
    if examples is None:
        return _smallest(shares)
    blocks = _rounded(shares, reuse, examples)
    if blocks.is_even:
        return blocks
    problem = (
        f"are made of {blocks.uses} images, which are not a multiple of reuse: {reuse}"
        if all(blocks.quota)
        else f"hold none of {_absent(shares, blocks)}"
    )
    raise UserError(f"window: {examples} examples {problem}; expected {_accepted(shares, blocks)}, for example")


def _accepted(shares: Sequence[tuple[Makeup, float]], refused: ImageSchedule) -> str:
    """In words: the next larger number of examples that does; where none is found, what else to change."""
    numbers = range(refused.examples + 1, refused.examples + EXAMPLES[-1] + 1)
    larger = next((number for number in numbers if _rounded(shares, refused.reuse, number).is_even), None)
    if larger is not None:
        return f"examples: {larger}"
    if not any(all(_rounded(shares, 1, number).quota) for number in numbers):  # whatever the reuse
        return f"a share of 0, or of 1 in {EXAMPLES[-1]:,}"
    divisors = (number for number in range(refused.reuse - 1, 1, -1) if refused.uses % number == 0)
    return next((f"reuse: {number}" for number in divisors if all(refused.quota)), "a smaller reuse")


def _smallest(shares: Sequence[tuple[Makeup, float]]) -> ImageSchedule:
    """A schedule that holds every kind, without a window."""
    tried = [_rounded(shares, 1, number) for number in (EXAMPLES if len(shares) > 1 else (1,))]
    blocks = next((blocks for blocks in tried if blocks.is_even), None)
    if blocks is None:
        rare = _absent(shares, tried[-1])
        raise UserError(f"augmentation: of {rare} there are too few; expected 0, or 1 in {EXAMPLES[-1]:,}")
    return blocks


def _rounded(shares: Sequence[tuple[Makeup, float]], reuse: int, examples: int) -> ImageSchedule:
    exact = [share * examples for _, share in shares]
    quota = [int(number + 1e-9) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: quota[place] - exact[place])
    for place in by_remainder[: examples - sum(quota)]:
        quota[place] += 1
    return ImageSchedule(tuple(kind for kind, _ in shares), tuple(quota), reuse)


def _absent(shares: Sequence[tuple[Makeup, float]], blocks: ImageSchedule) -> str:
    """The rarest kind of which the blocks hold none, in words, with its share."""
    absent = [one for one, count in zip(shares, blocks.quota, strict=True) if not count]
    kind, share = min(absent, key=lambda one: one[1])
    images = " and ".join("one image" if count == 1 else f"a mosaic of {count}" for count in kind)
    return f"the examples of {images}{', blended' if len(kind) > 1 else ''} (a share of {share:.3g})"


def rows_at(
    blocks: ImageSchedule,
    position: Int64[tf.Tensor, ""],
    first: Int64[tf.Tensor, ""],
    count: int,
    images: int,
    seed: int,
) -> Int64[tf.Tensor, " count"]:
    """The data set's rows of the `count` uses from `first` on of the example at a position."""
    places = blocks.images_of(position, first, count, seed)
    start = position // blocks.examples * blocks.images
    return row_at(start + places, images, seed)
