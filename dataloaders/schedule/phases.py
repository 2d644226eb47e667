"""Augmentation that ends before the run does: the last steps see images as evaluation shows them."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from configs.data import TrainSplit
from dataloaders.batch import TrainBatch
from official.core.config import Duration


class Phases(NamedTuple):
    """Steps before `plain_from` (0-based) are augmented as the split says, those from there on are not."""

    split: TrainSplit
    plain_from: int | None  # None: all are

    @property
    def plain(self) -> TrainSplit:
        """The split of the last steps."""
        return self.split.model_copy(update={"augmentation": None, "plain_last": None})

    def parts(self, first_step: int, last_step: int) -> list[tuple[TrainSplit, int, int]]:
        """The splits of steps first_step to last_step - 1, each with its first step and the one after its last."""
        if self.plain_from is None:
            return [(self.split, first_step, last_step)]
        middle = min(max(first_step, self.plain_from), last_step)
        parts = [(self.split, first_step, middle), (self.plain, middle, last_step)]
        return [part for part in parts if part[1] < part[2]]

    def batches(
        self, make: Callable[[TrainSplit, tf.data.Dataset], tf.data.Dataset], steps: tf.data.Dataset
    ) -> tf.data.Dataset:
        """`TrainBatch` elements of the steps, int64 scalars that rise; `make` gives those of one split."""
        if self.plain_from is None:
            return make(self.split, steps)
        augmented = make(self.split, steps.take_while(lambda step: step < self.plain_from))
        plain = make(self.plain, steps.filter(lambda step: step >= self.plain_from))
        return augmented.concatenate(plain.map(_in_form_of(augmented.element_spec)))


def phases_of(split: TrainSplit, duration: Duration, examples_per_epoch: int) -> Phases:
    """The phases of a run of that duration."""
    if split.plain_last is None:
        return Phases(split, None)
    total, last = (length.in_steps(split.batch_size, examples_per_epoch) for length in (duration, split.plain_last))
    return Phases(split, max(0, total - last))


def _in_form_of(spec: TrainBatch) -> Callable[[TrainBatch], TrainBatch]:
    """Gives batches zeros for the draws that augmented ones have and they have not: an empty tuple in their place."""

    @tf.autograph.experimental.do_not_convert
    def convert(batch: TrainBatch) -> TrainBatch:
        absent = [name for name, drawn in batch.draws._asdict().items() if isinstance(drawn, tuple) and not drawn]
        of_spec = {name: getattr(spec.draws, name) for name in absent}
        zeros = tf.nest.map_structure(lambda drawn: tf.zeros(drawn.shape, drawn.dtype), of_spec)
        return batch._replace(draws=batch.draws._replace(**zeros))

    return convert
