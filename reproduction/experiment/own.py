"""The experiment's own objects, as a training run builds them. They note which parts of the experiment were called."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import tensorflow as tf
from jaxtyping import Float, Float32

from configs.experiment import Experiment
from official.core.config import Duration
from official.core.config_io import check_config, override
from official.core.task import Batch, Moment, Scalar, Scalars, Task
from reproduction.experiment.original import Original
from reproduction.traces.precision import precision
from tasks import build_task

if TYPE_CHECKING:
    from reproduction.seeded.family import Family

EPOCH = 5000  # examples of an epoch, where a duration counts in epochs and no data set is opened
BATCH = 2  # examples of a micro-batch in a small copy
SIDE = 96  # the shorter side of a small copy's input, at least
MOST_MICRO_BATCHES = 2


class Own:
    """What a check calls of an experiment, and the names of the parts (parts.py) that it has called."""

    def __init__(
        self, experiment: Experiment | None, original: Original | None = None, called: set[str] | None = None
    ) -> None:
        self.experiment, self.original = experiment, original
        self.called: set[str] = set() if called is None else called
        self._trained: dict[tuple[Path, str], keras.Model] = {}

    def note(self, *parts: str) -> None:
        """Remembers that these parts were called."""
        self.called.update(parts)

    def note_network(self) -> None:
        """Remembers that the whole network was called."""
        if self.original is not None:
            self.note(*(f"task.model.{name}" for name in self.original.network))

    @property
    def family(self) -> "Family":
        """Seeded inputs of the experiment, and the stated formulas for them."""
        return self.original.seeded(self)

    @functools.cached_property
    def task(self) -> Task:
        return build_task(self.experiment)

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Any, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        """The loss that training minimises, and its parts."""
        self.note("task.loss", "task.model.head")
        return self.task.loss(outputs, labels, moment)

    def decode(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]]
    ) -> tuple[Float32[tf.Tensor, "batch boxes yxyx=4"], Float32[tf.Tensor, "batch boxes classes"]]:
        """Boxes yxyx relative to the network's input, and scores."""
        self.note("task.model.head")
        return self.task.decode(outputs)

    def prepare(self, batch: Batch) -> tuple[Float[tf.Tensor, "batch height width 3"], Any]:
        """What the step makes of a raw batch: the network's input, and labels."""
        self.note("pixels")
        return self.task.prepare(batch)

    def detect(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Detections of an evaluation batch by a network for inference, or by what stands in for it."""
        self.note("task.model.head")
        return self.task.detect(model, batch)

    def outputs_with(
        self, weights: Path, images: Float[tf.Tensor, "batch height width 3"], dtype: Literal["float32", "float64"]
    ) -> list[Float[tf.Tensor, "batch ..."]]:
        """The outputs of the model that training builds, with the weights of a file, in evaluation mode."""
        self.note_network()
        if (weights, dtype) not in self._trained:
            with precision(dtype):
                model = self.task.build_model()
            self.task.load_weights(model, str(weights))
            self._trained[weights, dtype] = model
        return tf.nest.flatten(self._trained[weights, dtype](images, training=False))

    @functools.cached_property
    def model(self) -> keras.Model:
        """The network that training builds, with fresh weights from the run's seed."""
        return self.task.build_model()

    def output_shapes(self, size: tuple[int, int]) -> list[tuple[int, ...]]:
        """The shape of each output for an input of (height, width), without the batch."""
        shapes, small = [], self.small.experiment.task.model.input_size
        for output in tf.nest.flatten(self.small.model(tf.zeros([1, *small, 3]), training=False)):
            shape = tuple(output.shape[1:])
            if len(shape) > 1:  # a row of numbers, of [detection], has the size of no input but its own
                grid = [side * now // then for side, now, then in zip(shape[:2], size, small, strict=True)]
                shape = (*grid, *shape[2:])
            shapes.append(shape)
        return shapes

    def to_steps(self, duration: Duration) -> int:
        """A duration of the experiment in steps, as its run counts them; an epoch has EPOCH examples."""
        return duration.in_steps(self.experiment.task.data.train.batch_size, EPOCH)

    @functools.cached_property
    def small(self) -> "Own":
        """The same experiment with a small input and few examples, for what computes the whole network in training.

        Everything but these sizes is the experiment's: the classes that are built, their options, the seed.
        """
        task, trainer = self.experiment.task, self.experiment.trainer
        micro = min(trainer.micro_batches, MOST_MICRO_BATCHES)
        sets = [
            f"task.model.input_size={list(self.small_size)}",
            f"trainer.micro_batches={micro}",
            f"task.data.train.batch_size={BATCH * micro}",
            f"task.data.train.max_boxes={min(task.data.train.max_boxes or 16, 16)}",
        ]
        data = self.experiment.model_dump(mode="json", exclude_none=True)
        changed = check_config(override(data, sets), Experiment, "the experiment, with a small input")
        return Own(changed, self.original, self.called)

    @property
    def small_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the network can take: the sides differ, unless the network fixes them."""
        model = self.experiment.task.model
        if self.original.fixes_size(model):
            return tuple(model.input_size)
        stride = self.original.coarsest_stride(model)
        height = -(-SIDE // stride) * stride
        return height, height + stride
