"""CenterNet's published weights and ImageNet's backbones in our networks, and ours in CenterNet's.

What is loaded follows CenterNet's lib/models/model.py load_model: modeling/weights/state_dict.py.
"""

from collections.abc import Collection

import keras
import numpy as np

from modeling.backbones.dla import UNUSED_PROJECTIONS
from modeling.weights.keras_file import SUFFIXES, load_keras_file
from modeling.weights.state_dict import StateDict, load_state_dict, save_state_dict, variables_by_torch_name
from official.core.task import Loaded

_DLA = "base."  # before DLA's names; in its ImageNet file there is nothing
# What files have and no network here: the classifier of ImageNet, the projections that DLA does not use.
_LEFT_OUT_ENDS = ("fc.weight", "fc.bias")
_LEFT_OUT_STARTS = tuple(f"{name}." for name in UNUSED_PROJECTIONS)


def load_centernet_weights(model: keras.Model, path: str) -> Loaded:
    """Fills a network of `build_centernet` from a state dict of PyTorch's, or from a .keras or .weights.h5 file.

    PyTorch's: CenterNet's checkpoints, or ResNet and DLA backbones of ImageNet. Whatever agrees in name and shape is
    loaded; the report lists the rest, and what keeps its initial weights makes it not `complete`.

    Raises:
        TorchFileError, KerasFileError: the file cannot be read, or is another network's (of a state dict: nothing in it
            agrees), or damaged. Nothing has been loaded then.
    """
    if path.endswith(SUFFIXES):
        return load_keras_file(model, path)
    return load_state_dict(model, path, _with_our_names, _is_left_out)


def save_centernet_weights(model: keras.Model, path: str) -> None:
    """Writes a network of `build_centernet` as a checkpoint that CenterNet's own network of this kind loads strictly.

    It has PyTorch's counters of batches, as 0, and DLA's unused projections, of zeros; not `base.fc`, which the
    original keeps where its backbone came from ImageNet, and without which its load_model prints a line and goes on.

    Raises:
        TorchFileError: the network's batch-norm is folded.
    """
    is_dla = any(name.startswith(_DLA) for name in variables_by_torch_name(model, path))
    save_state_dict(model, path, _unused_projections() if is_dla else {})


def _unused_projections() -> StateDict:
    tensors: StateDict = {}
    for name, (channels, filters) in UNUSED_PROJECTIONS.items():
        norm = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        tensors[f"{name}.0.weight"] = np.zeros((filters, channels, 1, 1), np.float32)
        tensors |= {f"{name}.1.{field}": np.full(filters, value, np.float32) for field, value in norm.items()}
    return tensors


def _with_our_names(found: StateDict, ours: Collection[str]) -> StateDict:
    """With `base.` before the names in a file of DLA alone."""
    if any(name.startswith(_DLA) for name in found) or not any(f"{_DLA}{name}" in ours for name in found):
        return found
    return {f"{_DLA}{name}": value for name, value in found.items()}


def _is_left_out(name: str) -> bool:
    """Whether a parameter of a file is one that no network here has or needs."""
    return name.endswith(_LEFT_OUT_ENDS) or name.startswith(_LEFT_OUT_STARTS)
