"""Plans which images each example is made of. The stream of positions is divided into blocks of equal length.

A block holds each makeup of an example (one image; a mosaic of four; ...) as often as its share says, in random order,
and is made of the next images of the training order (order.py): each is used `reuse` times in the block and not again
before the next pass. So each pass of the order uses each image exactly `reuse` times, whatever the makeups, and the
images of any position follow from the seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64

from dataloaders.schedule.order import keys_of, row_at, seed_at, shuffled
from official.core.errors import UserError

EXAMPLES = (100, 1_000, 10_000)  # of a block of several makeups: the first in which each makeup occurs

Makeup = tuple[int, ...]  # images of each composition: (1,) one image, (4,) a mosaic, (1, 1) two images blended


class ExamplePlan(NamedTuple):
    """Everything that follows from a position of the training stream before a file is read.

    Images are padded to the most that any makeup has: only the first `sum(makeup)` places and rows are the example's.
    """

    position: Int64[tf.Tensor, ""]
    makeup: Int32[tf.Tensor, ""]  # its number in `ImageSchedule.makeups`
    count: Int32[tf.Tensor, ""]  # of the example's images
    places: Int64[tf.Tensor, " p"]  # of the images in their block, 0-based
    rows: Int64[tf.Tensor, " p"]  # of the images in the data set
    seed: Int64[tf.Tensor, "2"]  # by which everything random about the example is drawn


@dataclass(frozen=True)
class ImageSchedule:
    """Blocks of the training stream, in which `quota[i]` examples are of `makeups[i]`."""

    makeups: tuple[Makeup, ...]
    quota: tuple[int, ...]
    reuse: int = 1

    @property
    def examples(self) -> int:
        return sum(self.quota)

    @property
    def images(self) -> int:
        """Number of different images in a block."""
        return self.uses // self.reuse

    @property
    def uses(self) -> int:
        """Number of places that a block has for images."""
        return sum(sum(makeup) * count for makeup, count in zip(self.makeups, self.quota, strict=True))

    @property
    def is_even(self) -> bool:
        """True if every makeup occurs, and every image is used equally often."""
        return all(self.quota) and self.uses % self.reuse == 0

    @property
    def most_images(self) -> int:
        """Largest number of images of an example."""
        return max(sum(makeup) for makeup in self.makeups)

    @property
    def most_compositions(self) -> int:
        """Largest number of compositions of an example."""
        return max(len(makeup) for makeup in self.makeups)

    @property
    def images_of_compositions(self) -> Int32[np.ndarray, "makeups compositions"]:
        """Images of each composition of each makeup; 0: the makeup has no such composition."""
        return np.array([makeup + (0,) * (self.most_compositions - len(makeup)) for makeup in self.makeups], np.int32)

    def plan(self, position: Int64[tf.Tensor, ""], images: int, seed: int) -> ExamplePlan:
        """The plan of the example at a position.

        Args:
            images: of the data set.
            seed: of the run.
        """
        makeup, first = self._makeup_at(position, seed)
        places = self._places(position, first, seed)
        start = position // self.examples * self.images
        return ExamplePlan(
            position,
            makeup,
            tf.gather([sum(makeup) for makeup in self.makeups], makeup),
            places,
            row_at(start + places, images, seed),
            seed_at(position, images, seed),
        )

    def rows_of_block(self, block: Int64[tf.Tensor, ""], images: int, seed: int) -> Int64[tf.Tensor, " p"]:
        """The data set's rows of the images of a block; `ExamplePlan.places` counts in them."""
        return row_at(block * self.images + tf.range(self.images, dtype=tf.int64), images, seed)

    def _makeup_at(
        self, position: Int64[tf.Tensor, ""], seed: int
    ) -> tuple[Int32[tf.Tensor, ""], Int64[tf.Tensor, ""]]:
        """The number of the example's makeup, and that of its first use of an image within the block."""
        block, place = position // self.examples, position % self.examples
        if len(self.makeups) == 1:
            return tf.constant(0), place * sum(self.makeups[0])
        key = tf.random.experimental.stateless_fold_in(keys_of(seed, block), -1)
        makeups = np.repeat(np.arange(len(self.makeups), dtype=np.int32), self.quota)  # [examples]
        makeups = tf.random.experimental.stateless_shuffle(makeups, key)  # at once: many times faster than one by one
        uses = tf.gather(tf.constant([sum(makeup) for makeup in self.makeups], tf.int64), makeups)
        return tf.gather(makeups, place), tf.gather(tf.cumsum(uses, exclusive=True), place)

    def _places(self, position: Int64[tf.Tensor, ""], first: Int64[tf.Tensor, ""], seed: int) -> Int64[tf.Tensor, " p"]:
        """Places in the block's images, 0-based, of `most_images` uses from `first` on."""
        uses = first + tf.range(self.most_images, dtype=tf.int64)
        if self.reuse == 1:
            return uses
        passes, places = uses // self.images, uses % self.images
        block = position // self.examples
        of_block = tf.random.stateless_uniform([], keys_of(seed, block), None, None, tf.int64)
        return shuffled(places, keys_of(of_block, passes), self.images)


def schedule_of(shares: Sequence[tuple[Makeup, float]], reuse: int = 1, examples: int | None = None) -> ImageSchedule:
    """A schedule in which makeups occur by their shares, which sum to 1; largest remainders first.

    Args:
        examples: of a block; none: as few as do.

    Raises:
        UserError: a makeup would never occur, or the images of a block cannot all be used equally often.
    """
    shares = [(makeup, share) for makeup, share in shares if share > 0]
    if examples is None:
        return _smallest(shares)
    schedule = _rounded(shares, reuse, examples)
    if schedule.is_even:
        return schedule
    problem = (
        f"are made of {schedule.uses} images, which are not a multiple of reuse: {reuse}"
        if all(schedule.quota)
        else f"hold none of {_absent(shares, schedule)}"
    )
    raise UserError(f"window: {examples} examples {problem}; expected {_accepted(shares, schedule)}, for example")


def _accepted(shares: Sequence[tuple[Makeup, float]], refused: ImageSchedule) -> str:
    """Words for the next larger number of examples that would do; where none is found, for what else to change."""
    numbers = range(refused.examples + 1, refused.examples + EXAMPLES[-1] + 1)
    larger = next((number for number in numbers if _rounded(shares, refused.reuse, number).is_even), None)
    if larger is not None:
        return f"examples: {larger}"
    if not any(all(_rounded(shares, 1, number).quota) for number in numbers):  # whatever the reuse
        return f"a share of 0, or of 1 in {EXAMPLES[-1]:,}"
    divisors = (number for number in range(refused.reuse - 1, 1, -1) if refused.uses % number == 0)
    return next((f"reuse: {number}" for number in divisors if all(refused.quota)), "a smaller reuse")


def _smallest(shares: Sequence[tuple[Makeup, float]]) -> ImageSchedule:
    """A schedule that holds every makeup, without a window."""
    tried = [_rounded(shares, 1, number) for number in (EXAMPLES if len(shares) > 1 else (1,))]
    schedule = next((schedule for schedule in tried if schedule.is_even), None)
    if schedule is None:
        rare = _absent(shares, tried[-1])
        raise UserError(f"augmentation: of {rare} there are too few; expected 0, or 1 in {EXAMPLES[-1]:,}")
    return schedule


def _rounded(shares: Sequence[tuple[Makeup, float]], reuse: int, examples: int) -> ImageSchedule:
    exact = [share * examples for _, share in shares]
    quota = [int(number + 1e-9) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: quota[place] - exact[place])
    for place in by_remainder[: examples - sum(quota)]:
        quota[place] += 1
    return ImageSchedule(tuple(makeup for makeup, _ in shares), tuple(quota), reuse)


def _absent(shares: Sequence[tuple[Makeup, float]], schedule: ImageSchedule) -> str:
    """The rarest makeup of which the blocks hold none, in words, with its share."""
    absent = [one for one, count in zip(shares, schedule.quota, strict=True) if not count]
    makeup, share = min(absent, key=lambda one: one[1])
    images = " and ".join("one image" if count == 1 else f"a mosaic of {count}" for count in makeup)
    return f"the examples of {images}{', blended' if len(makeup) > 1 else ''} (a share of {share:.3g})"
