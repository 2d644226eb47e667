"""Vocabulary of a network that is taken from a Darknet cfg as it is."""

from typing import Literal

from pydantic import Field, PositiveInt

from configs.yolo.heads import Head
from official.core.config import Config


class DarknetModel(Config):
    """All layers of a cfg, up to what goes into its heads. What the heads make of it is `head`.

    Where the number of classes is not the cfg's, the layer before each head has as many filters as it takes.
    """

    type: Literal["darknet"] = "darknet"
    cfg: str = Field(description="The cfg file. Its layers are read, not [net] and not the options of its heads.")
    input_size: tuple[PositiveInt, PositiveInt] = Field(description="(height, width) in pixels.")
    head: Head
    norm: Literal["local", "sync"] = Field(
        "local", description="Batch-norm statistics of a replica, or of all replicas."
    )
    norm_epsilon: float = Field(1e-5, gt=0, description="Added to batch-norm's variance, inside the root.")
    norm_momentum: float = Field(
        0.99, gt=0, lt=1, description="Share of the old moving statistics (cuDNN Darknet: 0.99)."
    )
