"""The contract between the trainer, which owns the step, and a detector family, which owns everything else."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import keras
import tensorflow as tf

Batch = Any  # a NamedTuple of tensors; its first dimension is the example; it has `example_id` (int64 [batch])
Scalars = dict[str, tf.Tensor]


class Shard(NamedTuple):
    """Which part of each global batch this host reads."""

    index: int = 0
    count: int = 1


@runtime_checkable
class Evaluator(Protocol):
    """Collects detections of a whole split and scores them."""

    def update(self, batch: Batch, detections: Any) -> None: ...

    def result(self) -> dict[str, Any]: ...

    def save_detections(self, path: str) -> None: ...


@runtime_checkable
class Task(Protocol):
    """What a detector family provides. What runs inside the step is pure, static in shape, and on the accelerator."""

    batch_size: int
    """Examples of one optimiser step: all replicas, all micro-batches."""
    examples_per_epoch: int

    def build_model(self) -> keras.Model:
        """The network with fresh weights from the run's seed."""

    def train_inputs(self, start_step: int, shard: Shard) -> tf.data.Dataset:
        """Endless batches from the one that step `start_step` (0-based) sees."""

    def eval_inputs(self) -> tf.data.Dataset:
        """The validation split once, in order."""

    def prepare(self, batch: Batch) -> tuple[tf.Tensor, Any]:
        """On the accelerator: raw batch to network input and labels (colour, flips, normalising)."""

    def loss(self, outputs: Sequence[tf.Tensor], labels: Any) -> tuple[tf.Tensor, Scalars]:
        """Mean over the examples given, float32 scalar, and its named parts."""

    def detect(self, model: keras.Model, batch: Batch) -> Any:
        """Detections of an evaluation batch, in static shapes."""

    def evaluator(self) -> Evaluator:
        """A fresh evaluator of the validation split."""

    def pictures(self, batch: Batch) -> Any:
        """uint8 [height, width, 3] picture of a training batch as the network sees it, truth drawn in."""
