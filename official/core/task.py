"""The contract between the trainer, which owns the step, and a detector family, which owns everything else."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import keras
import tensorflow as tf
from jaxtyping import Float, Int64
from matplotlib.figure import Figure

Batch = Any  # a NamedTuple of tensors; its first dimension is the example; it has `example_id` (int64 [batch])
Scalar = Float[tf.Tensor, ""]
Scalars = dict[str, Scalar]


class HostShare(NamedTuple):
    """Which part of each global batch this host reads."""

    index: int = 0
    count: int = 1


class Loaded(NamedTuple):
    """What became of a foreign file of weights."""

    report: str  # what was loaded into which layers, and what was not
    examples_seen: int | None  # of training behind these weights; None where the file does not say
    complete: bool = True  # every weight of the model was in the file


class Moment(NamedTuple):
    """When and at which size a loss is taken: all that it may depend on besides outputs and labels."""

    step: Int64[tf.Tensor, ""]  # number of this update, from 1
    input_size: tuple[int, int]  # (height, width) of the network's input in pixels, static


@runtime_checkable
class Evaluator(Protocol):
    """Collects detections of a whole split and scores them."""

    def update(self, batch: Batch, detections: Any) -> None: ...

    def result(self) -> dict[str, Any]: ...

    def figures(self) -> dict[str, Figure]:
        """For people, by name; after `result`."""

    def save_detections(self, path: str) -> None: ...


@runtime_checkable
class Objective(Protocol):
    """What runs inside the training step: pure, static in shape, and on the accelerator."""

    def prepare(self, batch: Batch) -> tuple[Float[tf.Tensor, "batch height width channels"], Any]:
        """On the accelerator: raw batch to network input and labels (colour, flips, normalising)."""

    def loss(
        self, outputs: Sequence[Float[tf.Tensor, "batch ..."]], labels: Any, moment: Moment
    ) -> tuple[Scalar, Scalars]:
        """Mean over the examples given, float32 scalar, and its named parts."""


@runtime_checkable
class Network(Protocol):
    """The network that is trained, and the same for inference."""

    def build_model(self) -> keras.Model:
        """The network with fresh weights from the run's seed."""

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        """Fills a network of `build_model` from a file that is no checkpoint of ours. Raises a UserError naming it."""

    def build_inference_model(self) -> keras.Model:
        """The same network for inference (batch-norm folded), for evaluation and export; weights come by `fold`."""

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        """Copies a trained network's weights into one of `build_inference_model`."""

    def decode(self, outputs: Any) -> Any:
        """What the outputs of a network for inference mean: boxes and scores, before any is left out."""

    def facts(self) -> dict[str, Any]:
        """What must not change in a run (JSON values): network, classes, category ids, number of examples."""

    def facts_of(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint's manifest, which an older version may have written, with its facts in today's words."""


@runtime_checkable
class Inputs(Protocol):
    """The batches of training."""

    batch_size: int
    """Examples of one optimiser step: all replicas, all micro-batches."""

    def examples_per_epoch(self) -> int:
        """Of the training split, which is opened for it."""

    def input_size_at(self, step: int) -> tuple[int, int]:
        """(height, width) of step `step` (0-based); one step is compiled for each that occurs."""

    def train_inputs(self, start_step: int, shard: HostShare, input_size: tuple[int, int]) -> tf.data.Dataset:
        """Batches, static in shape: those of all steps from `start_step` (0-based) on that use `input_size`."""

    def example_name(self, example_id: int) -> str:
        """What a user knows a training example by, such as its file."""

    def pictures(self, batch: Batch) -> Any:
        """uint8 [height, width, 3] picture of a training batch as the network sees it, truth drawn in."""

    def data_reports(self) -> dict[str, dict[str, Any]]:
        """What the checks of the data found in each split that is open (JSON values)."""


@runtime_checkable
class Unreadable(Protocol):
    """What becomes of examples that turn out to be unreadable."""

    def replace_unreadable(self, first_step: int, last_step: int) -> list[str]:
        """Reads the examples of these steps one by one. What cannot be read is replaced in later `train_inputs`.

        Returns a message for each file that is found to be unreadable. Raises a UserError where too many are.
        """

    def unreadable(self) -> dict[str, str]:
        """What `replace_unreadable` has found by now (JSON values): a run that resumes goes on with it."""

    def leave_out(self, unreadable: dict[str, str]) -> None:
        """Replaces in later `train_inputs` what `unreadable` told of the run before this one."""

    def check_eval_inputs(self) -> None:
        """Reads the validation split one by one; raises a UserError that names a file that cannot be read."""


@runtime_checkable
class Scoring(Protocol):
    """Evaluation on the validation split."""

    def eval_inputs(self) -> tf.data.Dataset:
        """The validation split once, in order."""

    def detect(self, model: Callable[..., Any], batch: Batch) -> Any:
        """Detections of an evaluation batch, in static shapes. The network for inference is called as a model is."""

    def draw(self, batch: Batch, detections: Any) -> Any:
        """uint8 [height, width, 3] picture of an evaluation batch with its detections."""

    def evaluator(self) -> Evaluator:
        """A fresh evaluator of the validation split."""


@runtime_checkable
class Task(Objective, Network, Inputs, Unreadable, Scoring, Protocol):
    """All that a detector family provides to training, evaluation and export."""
