"""The input size of each training step: one of a few that are compiled, by seed and step (Darknet's random=1)."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64

from configs.data import MultiScale
from official.core.config import Duration

Size = tuple[int, int]  # (height, width) in pixels
STRIDE = 32  # all sides are multiples of it, the coarsest stride of a detector (Darknet's resize_step)


@dataclass(frozen=True)
class SizePlan:
    """The sizes of a run, smallest first, and which step uses which. A step's size follows from the seed alone."""

    sizes: tuple[Size, ...]
    base: Size = (0, 0)
    coefficient: float = 1.0
    every: int = 1  # steps of one size in a row: a block
    largest_from: int | None = None  # blocks that begin at this step or later have the largest size
    seed: int = 0

    def at(self, step: int) -> Size:
        """The size of step `step`, 0-based."""
        return self.sizes[_index_of_block(self, step // self.every) if len(self.sizes) > 1 else 0]

    def steps(self, start_step: int, size: Size) -> tf.data.Dataset:
        """The numbers, int64, of all steps from `start_step` on that use `size`, without end if there is none."""
        numbers = tf.data.Dataset.counter(start=np.int64(start_step), dtype=tf.int64)
        if len(self.sizes) == 1:
            return numbers
        wanted = self.sizes.index(size)
        if self.largest_from is not None and wanted < len(self.sizes) - 1:
            # Later it does not occur: who reads ahead would look for it for ever.
            numbers = tf.data.Dataset.range(start_step, -(-self.largest_from // self.every) * self.every)
        is_wanted = tf.autograph.experimental.do_not_convert(lambda step: self.index(step // self.every) == wanted)
        return numbers.filter(is_wanted)

    def index(self, block: Int64[tf.Tensor, ""]) -> Int64[tf.Tensor, ""]:
        """The place in `sizes` of the size that a block of steps uses: the one closest to what Darknet would draw.

        Darknet detector.c train_detector: a factor from 1..coefficient, inverted half of the time, and one stride more.
        The first block has the largest size, so that a lack of memory shows at once.
        """
        key = tf.stack([tf.constant(self.seed, tf.int64), block])
        share, coin = tf.unstack(tf.random.stateless_uniform([2], key, alg="philox"))
        factor = 1 + (self.coefficient - 1) * share
        drawn = _size_at(self.base, tf.where(coin < 0.5, factor, 1 / factor))
        distances = tf.reduce_sum(tf.abs(tf.constant(self.sizes, tf.float32) - drawn), axis=1)  # [sizes]
        largest = block == 0
        if self.largest_from is not None:
            largest |= block * self.every >= self.largest_from
        return tf.where(largest, tf.constant(len(self.sizes) - 1, tf.int64), tf.argmin(distances))


def plan_sizes(base: Size, config: MultiScale | None, seed: int, to_steps: Callable[[Duration], int]) -> SizePlan:
    """The plan of a run with the configured input size `base`; without a config it keeps to that size."""
    if config is None:
        return SizePlan((base,))
    sizes = _all_sizes(base, config.coefficient)
    if config.sizes != "all" and config.sizes < len(sizes):
        places = np.linspace(0, len(sizes) - 1, config.sizes).round().astype(int)
        sizes = [sizes[place] for place in places]
    largest_from = to_steps(config.largest_from) if config.largest_from else None
    return SizePlan(tuple(sizes), base, config.coefficient, to_steps(config.every), largest_from, seed)


@functools.lru_cache(maxsize=1024)
def _index_of_block(plan: SizePlan, block: int) -> int:
    return int(plan.index(tf.constant(block, tf.int64)))


def _size_at(base: Size, factor: Float32[tf.Tensor, ""]) -> Float32[tf.Tensor, "2"]:
    """Darknet's size for a factor. One stride is added: what a factor below 1 makes larger than `base` is `base`."""
    sides = tf.constant(base, tf.float32)
    drawn = tf.floor(factor * sides / STRIDE + 1.5) * STRIDE
    return tf.where((factor < 1) & tf.reduce_any(drawn > sides), sides, drawn)


def _all_sizes(base: Size, coefficient: float) -> list[Size]:
    """All sizes that Darknet may draw, smallest first: the size changes where a side's product is half a stride."""
    changes = {1 / coefficient, 1.0, coefficient}
    for side in base:
        changes |= {(strides + 0.5) * STRIDE / side for strides in range(2 * int(side * coefficient) // STRIDE)}
    ordered = sorted(change for change in changes if 1 / coefficient <= change <= coefficient)
    factors = [(one + other) / 2 for one, other in itertools.pairwise(ordered)] + [coefficient]
    drawn = [tuple(int(side) for side in _size_at(base, tf.constant(factor, tf.float32))) for factor in factors]
    return sorted(set(drawn))
