"""CenterNet's published weights and ImageNet's backbones in our networks, and ours in CenterNet's.

Names and axes: modeling/weights/torch_names.py. What is loaded follows CenterNet's lib/models/model.py load_model: a
parameter that agrees in name and shape, and nothing of another shape.
"""

from collections.abc import Container, Iterable

import keras
import numpy as np

from modeling.backbones.dla import UNUSED_PROJECTIONS
from modeling.weights.keras_file import SUFFIXES, load_keras_file
from modeling.weights.torch_file import TorchFileError, read_state_dict, write_state_dict
from modeling.weights.torch_names import from_torch, to_torch, torch_name
from official.core.task import Loaded

_DLA = "base."  # before DLA's names; in its ImageNet file there is nothing
# What files have and no network here: counters, the classifier of ImageNet, the projections that DLA does not use.
_LEFT_OUT_ENDS = (".num_batches_tracked", "fc.weight", "fc.bias")
_LEFT_OUT_STARTS = tuple(f"{name}." for name in UNUSED_PROJECTIONS)
_SHOWN = 8  # names of a kind in a report


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
    variables = _variables(model, path)
    found = _with_our_names(read_state_dict(path), variables)
    values = {name: from_torch(found[name]) for name in variables if name in found}
    agreeing = {name: value for name, value in values.items() if value.shape == tuple(variables[name].shape)}
    if not agreeing:
        raise TorchFileError(
            f"{path}: is of another network: it has {_listed(found)}; none of its parameters has name and shape of one"
            f" of {_listed(variables)}"
        )
    for name, value in agreeing.items():
        if not np.isfinite(value).all() or (name.endswith(".running_var") and value.min() < 0):
            raise TorchFileError(f"{path}: {name} holds NaN, infinity or a negative variance; the file is damaged")
    for name, value in agreeing.items():
        variables[name].assign(value)
    shapes = {name: to_torch(np.empty(variable.shape, bool)).shape for name, variable in variables.items()}
    lines = [f"loaded {len(agreeing)} of {len(variables)} variables from {path}", *_leftovers(found, shapes)]
    return Loaded("\n".join(lines), None, complete=len(agreeing) == len(variables))


def _with_our_names(found: dict[str, np.ndarray], ours: Container[str]) -> dict[str, np.ndarray]:
    """With `base.` before the names in a file of DLA alone."""
    if any(name.startswith(_DLA) for name in found) or not any(f"{_DLA}{name}" in ours for name in found):
        return found
    return {f"{_DLA}{name}": value for name, value in found.items()}


def _leftovers(found: dict[str, np.ndarray], ours: dict[str, tuple[int, ...]]) -> list[str]:
    """Lines on what differs between a file and a network, whose shapes are in PyTorch's order of axes."""
    lines = []
    if missing := [name for name in ours if name not in found]:
        lines.append(f"  not in the file, so with their initial weights: {_listed(missing)}")
    others = [name for name, shape in ours.items() if name in found and found[name].shape != shape]
    for name in others[:_SHOWN]:
        shapes = f"{found[name].shape} in the file, here {ours[name]}"
        lines.append(f"  of another shape, so with its initial weights: {name}, {shapes}")
    if others[_SHOWN:]:
        lines.append(f"  and {len(others) - _SHOWN} more of another shape")
    if unknown := [name for name in found if name not in ours and not _is_left_out(name)]:
        lines.append(f"  not in this network, so left out: {_listed(unknown)}")
    return lines


def save_centernet_weights(model: keras.Model, path: str) -> None:
    """Writes a network of `build_centernet` as a checkpoint that CenterNet's own network of this kind loads strictly.

    It has PyTorch's counters of batches, as 0, and DLA's unused projections, of zeros; not `base.fc`, which the
    original keeps where its backbone came from ImageNet, and without which its load_model prints a line and goes on.

    Raises:
        TorchFileError: the network's batch-norm is folded.
    """
    tensors = {name: to_torch(keras.ops.convert_to_numpy(value)) for name, value in _variables(model, path).items()}
    if any(name.startswith(_DLA) for name in tensors):
        for name, (channels, filters) in UNUSED_PROJECTIONS.items():
            norm = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
            tensors[f"{name}.0.weight"] = np.zeros((filters, channels, 1, 1), np.float32)
            tensors |= {f"{name}.1.{field}": np.full(filters, value, np.float32) for field, value in norm.items()}
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith(".running_var")]
    counters = {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    write_state_dict(path, {name: value.astype(np.float32) for name, value in tensors.items()} | counters)


def _variables(model: keras.Model, path: str) -> dict[str, keras.Variable]:
    """The network's variables by PyTorch's names; `path` is for the error."""
    variables = {torch_name(variable.path): variable for variable in model.variables}
    if not any(name.endswith(".running_var") for name in variables):
        raise TorchFileError(
            f"{path}: the network's batch-norm is folded into its kernels; take the network that was trained instead"
        )
    return variables


def _is_left_out(name: str) -> bool:
    """Whether a parameter of a file is one that no network here has or needs."""
    return name.endswith(_LEFT_OUT_ENDS) or name.startswith(_LEFT_OUT_STARTS)


def _listed(names: Iterable[str]) -> str:
    """`hm (4), wh (4)`: the first parts of names, and how many begin with each."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.partition(".")[0]
        counts[first] = counts.get(first, 0) + 1
    shown = [f"{name} ({count})" for name, count in counts.items()]
    return ", ".join(shown[:_SHOWN] + [f"and {len(shown) - _SHOWN} more"] * (len(shown) > _SHOWN))
