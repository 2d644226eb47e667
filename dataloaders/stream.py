"""The endless stream of training batches of a run: it follows from the configuration, the seed and the data alone."""

from abc import ABC, abstractmethod

import tensorflow as tf

from configs.centernet.task import CenterNetTask
from configs.data import TrainSplit
from configs.experiment import Task
from configs.yolo.task import YoloTask
from dataloaders.centernet.input import Centred
from dataloaders.compose.recipes import rows_of_steps
from dataloaders.pipeline import train_batches, train_dataset
from dataloaders.reading.dataset import DetectionDataset
from dataloaders.schedule.phases import phases_of
from dataloaders.schedule.sizes import Size, plan_sizes
from dataloaders.schedule.unreadable import StandIns
from official.core.config import Duration

Shard = tuple[int, int]  # (index, count) of a host


class TrainStream(ABC):
    """Batches of every step, and which images they are made of."""

    def __init__(self, task: Task, seed: int, duration: Duration, data: DetectionDataset) -> None:
        """
        Args:
            seed: of the run (runtime.seed).
            duration: of the run (trainer.duration).
            data: the training split's.
        """
        self.task, self.seed, self.data = task, seed, data
        self._split, examples = task.data.train, len(data)
        self.stand_ins = StandIns(data)
        self.phases = phases_of(self._split, duration, examples)
        self.sizes = plan_sizes(
            task.model.input_size,
            self._split.multi_scale,
            seed,
            lambda length: length.in_steps(self._split.batch_size, examples),
        )

    def batches(self, start_step: int, input_size: Size, shard: Shard = (0, 1)) -> tf.data.Dataset:
        """`TrainBatch` elements of all steps from `start_step` (0-based) on that use `input_size`; see pipeline.py."""
        steps = self.sizes.steps(start_step, input_size)
        return self.phases.batches(lambda split, steps: self.of_split(split, steps, input_size, shard), steps)

    def rows(self, first_step: int, last_step: int) -> list[int]:
        """The data set's rows that steps first_step to last_step - 1 read, in order, each once."""
        parts = self.phases.parts(first_step, last_step)
        rows = [row for split, *steps in parts for row in rows_of_steps(split, len(self.data), self.seed, *steps)]
        return list(dict.fromkeys(rows))

    @abstractmethod
    def of_split(
        self, split: TrainSplit, steps: tf.data.Dataset, input_size: Size, shard: Shard = (0, 1)
    ) -> tf.data.Dataset:
        """The batches of some steps as `split` has them: the run's own, or that without its augmentation."""


class YoloStream(TrainStream):
    """Boxes cxcywh relative to the network's input."""

    def of_split(
        self, split: TrainSplit, steps: tf.data.Dataset, input_size: Size, shard: Shard = (0, 1)
    ) -> tf.data.Dataset:
        examples, protocol = self.stand_ins.examples("cxcywh"), self.task.evaluation
        return train_batches(examples, split, input_size, protocol, "cxcywh", self.seed, steps, shard)


class CenterNetStream(TrainStream):
    """Boxes xyxy in pixels of the output maps."""

    def of_split(
        self, split: TrainSplit, steps: tf.data.Dataset, input_size: Size, shard: Shard = (0, 1)
    ) -> tf.data.Dataset:
        examples, protocol = self.stand_ins.examples("xyxy_pixels"), self.task.evaluation
        return train_dataset(Centred(examples, split, input_size, protocol, self.seed), split, steps, shard)


STREAMS: dict[type, type[TrainStream]] = {YoloTask: YoloStream, CenterNetTask: CenterNetStream}


def stream_of(task: Task, seed: int, duration: Duration, data: DetectionDataset) -> TrainStream:
    """That of the task's family."""
    return STREAMS[type(task)](task, seed, duration, data)
