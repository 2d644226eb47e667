"""What a detector family provides, so that an experiment of it can be compared with the stated formulas."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from reproduction.experiment.own import Own
from reproduction.traces.compare import Numbers

Outputs = Sequence[Float[np.ndarray, "batch ..."]]  # raw, of each output of the network
Size = tuple[int, int]  # (height, width) in pixels of the network's input


class Stated(NamedTuple):
    """What the formulas say of a loss: the mean over the examples."""

    value: float
    parts: Mapping[str, float]
    gradients: Sequence[Float[np.ndarray, "batch ..."]]  # of the value by each output


class Group(NamedTuple):
    """Numbers of one output that are compared together: `level 0 objectness`."""

    name: str
    output: int
    entries: slice  # of the output's last axis


# A mistake that a port could make: (outputs, labels, size) -> what the formulas would say with it.
Mistakes = Mapping[str, Callable[[Outputs, Any, Size], Stated]]


@dataclasses.dataclass(frozen=True)
class OfExperiment:
    """What a family's class takes from its experiment, whatever the family."""

    own: Own

    @property
    def head(self) -> Any:
        return self.own.experiment.task.model.head

    @property
    def rules(self) -> Any:
        return self.own.experiment.task.loss


@runtime_checkable
class Family(Protocol):
    """Seeded inputs of an experiment, and what the formulas make of them. Arrays are NumPy's, labels the task's own."""

    own: Own

    def labels(self, rng: np.random.Generator) -> Any:
        """Truths of four images: none, one, several with every corner case, as many as there is room for."""

    def outputs(self, labels: Any, size: Size, rng: np.random.Generator) -> Outputs:
        """Raw outputs of the experiment's shapes, some of them near the truths."""

    def maps(self, outputs: Outputs) -> Outputs:
        """What the decoder is given: the outputs, as the inference network hands them on."""

    def few(self, outputs: Outputs) -> Outputs:
        """`maps`, of which few are objects, near each other: fewer than an image may have, where that can be."""

    def groups(self, outputs: Outputs) -> Iterator[Group]:
        """The parts of the outputs whose gradients are compared, one after the other."""

    def loss(self, outputs: Outputs, labels: Any, size: Size, step: int) -> Stated: ...

    def mistakes(self) -> Mistakes:
        """By cause (reproduction/traces/causes/causes.py) and variant."""

    def decode(self, maps: Outputs, size: Size) -> tuple[Numbers, Numbers]:
        """Boxes yxyx relative to the network's input [batch, boxes, 4], scores [batch, boxes, classes]."""

    def decoding_mistakes(self) -> Mapping[str, Callable[[Outputs, Size], tuple[Numbers, Numbers]]]: ...

    def evaluated(
        self, model: keras.Model, images: Float32[np.ndarray, "batch height width 3"]
    ) -> Sequence[Float[tf.Tensor, "batch ..."]]:
        """What the network for inference should give for RGB images 0..1: by the trained network in evaluation mode."""

    def undecided(self, outputs: Outputs, labels: Any, size: Size) -> Sequence[Bool[np.ndarray, "batch ..."]]:
        """By output: where a decision is so near that float32 may take it otherwise."""

    def nudged(self, labels: Any, share: float, rng: np.random.Generator) -> Any:
        """The truths, whose boxes move by about this share of themselves where the loss computes with their fractions.

        Where they only decide, such as which cell a box is in, they stay: a seeded box may lie on the very border.
        """

    def hidden(self) -> str:
        """Why the gradient of the loss does not tell what was assigned; empty where it does."""

    def assigned(
        self, gradient: Float[np.ndarray, "batch ..."], output: Float32[np.ndarray, "batch ..."], number: int
    ) -> Mapping[str, Bool[np.ndarray, "batch ..."]]:
        """What is asked of each prediction of output `number`, by the gradient of the loss: positives, classes, ...

        What this gradient cannot tell is left out.
        """

    @property
    def in_levels(self) -> bool:
        """Whether colours are computed in 8 bits: then a number may come out one level lower by the processor."""

    def batch(self, labels: Any, size: Size, rng: np.random.Generator) -> Any:
        """A raw training batch with these truths, as the host sends it."""

    def plain(self, batch: Any) -> Any:
        """The batch with draws that leave its colours alone: 8-bit colours may differ by a level between processors."""

    def pixel_mistakes(self) -> Mapping[str, Callable[[Numbers], Numbers]]:
        """By cause: the right network input -> what it would be with this mistake."""

    def prepare(self, batch: Any) -> tuple[Float[np.ndarray, "batch height width 3"], Any]:
        """The network's input and the labels that the formulas make of a raw batch."""
