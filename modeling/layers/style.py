"""What all convolutions of a network share, and the record of those that its parts have made."""

import dataclasses
import zlib
from typing import Literal

from configs.style import Activation, Initialiser, StyleConfig

# Bits of a layer's seed. A layer of PyTorch's takes the next number too, for its bias.
_SEEDS: dict[Initialiser, int] = {"uniform": 0x7FFFFFFF, "pytorch": 0x3FFFFFFF}


@dataclasses.dataclass(frozen=True)
class Made:
    """A convolution, or a layer that is folded like one, and the batch-norm after it.

    A network's record, `model.made`, has all of them, each after those that were made before it. This order is that of
    the weights in a file without names (Darknet's), whose sections are in the order of the cfg. So a part makes its
    convolutions in the order in which the original lists them; tests/modeling/test_order_of_weights.py names the first
    that is not.
    """

    convolution: str  # name of the layer
    norm: str | None  # of the batch-norm's layer, also where it is folded; None: no batch-norm
    epsilon: float  # the batch-norm's


@dataclasses.dataclass(frozen=True)
class Style:
    """What all blocks of a network share. `folded`: batch-norm's scale and shift are in kernel and bias.

    Names of layers are no part of it: a part has its original's, by which files of weights are read.
    """

    activation: Activation
    norm: Literal["local", "sync", "folded"]
    epsilon: float
    momentum: float
    initialiser: Initialiser
    seed: int
    made: list[Made] = dataclasses.field(default_factory=list)  # grows as parts are made

    @classmethod
    def of(cls, model: StyleConfig, seed: int) -> "Style":
        """A configured network's, to be trained."""
        return cls(model.activation, model.norm, model.norm_epsilon, model.norm_momentum, model.initialiser, seed)

    @classmethod
    def folded(cls, model: StyleConfig) -> "Style":
        """The same network's for inference; its initial weights mean nothing."""
        return dataclasses.replace(cls.of(model, 0), norm="folded")

    @property
    def bias_before_norm(self) -> float | None:
        """The initial bias of a convolution that batch-norm follows; None: it has none."""
        return 0.0 if self.norm == "folded" else None

    def seed_of(self, name: str) -> int:
        """A layer's own seed, which does not depend on the layers around it."""
        return zlib.crc32(f"{self.seed}/{name}".encode()) & _SEEDS[self.initialiser]

    def record(self, convolution: str, norm: str | None = None) -> None:
        """Adds a convolution that has just been made, by the names of its layer and of its batch-norm's."""
        self.made.append(Made(convolution, norm, self.epsilon))
