"""Vocabulary of what all convolutions of a network share, whatever its parts."""

from typing import Annotated, Literal

from pydantic import Field

from official.core.config import Config

Activation = Literal["leaky", "mish", "swish", "relu", "linear", "logistic"]
Initialiser = Annotated[
    Literal["uniform", "pytorch"],
    Field(description="Of kernels. uniform: Darknet's, U(-1, 1) * sqrt(2 / fan_in); pytorch: U(-1, 1) / sqrt(fan_in)."),
]
Norm = Literal["local", "sync"]


class StyleConfig(Config):
    """A network of parts; each family gives the defaults of its originals."""

    activation: Activation = Field(description="Of every part that has none of its own.")
    norm: Norm = Field("local", description="Batch-norm statistics of a replica, or of all replicas.")
    norm_epsilon: float = Field(1e-5, gt=0, description="Added to batch-norm's variance, inside the root.")
    norm_momentum: float = Field(
        gt=0, lt=1, description="Share of the old moving statistics (PyTorch: that of the new)."
    )
    initialiser: Initialiser
