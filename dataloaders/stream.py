"""The endless stream of training batches of a run: it follows from the configuration, the seed and the data alone."""

from collections.abc import Callable

import tensorflow as tf

from configs.data import TrainSplit
from dataloaders.compose.example_maker import ExampleMaker
from dataloaders.compose.recipes import rows_of_steps
from dataloaders.pipeline import train_dataset
from dataloaders.reading.dataset import DetectionDataset
from dataloaders.schedule.phases import phases_of
from dataloaders.schedule.sizes import Size, plan_sizes
from dataloaders.schedule.unreadable import StandIns
from official.core.config import Duration


class TrainStream:
    """Batches of every step, and which images they are made of."""

    def __init__(
        self,
        split: TrainSplit,
        input_size: Size,
        seed: int,
        duration: Duration,
        data: DetectionDataset,
        example_maker: Callable[[TrainSplit, Size], ExampleMaker],
    ) -> None:
        """
        Args:
            input_size: of the network; with `multi_scale`, the one that the others are around.
            seed: of the run (runtime.seed).
            duration: of the run (trainer.duration).
            data: the training split's.
            example_maker: what makes examples of a split (the run's own, or that without its augmentation) at a size.
                It is asked again for each dataset, and takes unreadable images from `stand_ins`.
        """
        self.seed, self.data = seed, data
        self._split, self._example_maker, examples = split, example_maker, len(data)
        self.stand_ins = StandIns(data)
        self.phases = phases_of(split, duration, examples)
        self.sizes = plan_sizes(
            input_size,
            split.multi_scale,
            seed,
            lambda length: length.in_steps(split.batch_size, examples),
        )

    def batches(self, start_step: int, input_size: Size, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """`TrainBatch` elements of all steps from `start_step` (0-based) on that use `input_size`; see pipeline.py."""
        steps = self.sizes.steps(start_step, input_size)
        return self.phases.batches(
            lambda split, steps: train_dataset(self._example_maker(split, input_size), split, steps, shard), steps
        )

    def rows(self, first_step: int, last_step: int) -> list[int]:
        """The data set's rows that steps first_step to last_step - 1 read, in order, each once."""
        parts = self.phases.parts(first_step, last_step)
        rows = [row for split, *steps in parts for row in rows_of_steps(split, len(self.data), self.seed, *steps)]
        return list(dict.fromkeys(rows))
