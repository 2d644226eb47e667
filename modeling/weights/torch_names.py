"""What PyTorch's state dict calls a variable of a network made of modeling/layers/torch_blocks.py, and its axes."""

import numpy as np
from jaxtyping import Shaped

FIELDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "offset_kernel": "conv_offset_mask.weight",
    "offset_bias": "conv_offset_mask.bias",
}


def torch_name(path: str) -> str:
    """`backbone_layer1.0.conv1/kernel` -> `layer1.0.conv1.weight`."""
    layer, field = path.split("/")
    return f"{layer.split('_', 1)[1]}.{FIELDS[field]}"


def to_torch(value: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """A variable's value in PyTorch's order of axes: a kernel's last two come first, and swapped."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value


def from_torch(value: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The other way."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
