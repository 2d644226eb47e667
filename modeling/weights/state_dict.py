"""PyTorch's state dicts in networks made here, and these as state dicts, by name and shape.

Names and axes: modeling/weights/torch_names.py. A parameter that agrees in name and shape is loaded, and nothing of
another shape; the rest is listed. What an original's files have beyond its network, and what they call it otherwise, a
family hands in.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import keras
import numpy as np
from jaxtyping import Shaped

from modeling.weights.torch_file import TorchFileError, read_state_dict, write_state_dict
from modeling.weights.torch_names import from_torch, to_torch, torch_name
from official.core.task import Loaded

StateDict = dict[str, Shaped[np.ndarray, "..."]]
_COUNTER = ".num_batches_tracked"  # PyTorch's batch-norm has one, which no network here needs
_SHOWN = 8  # names of a kind in a report


def load_state_dict(
    model: keras.Model,
    path: str,
    with_our_names: Callable[[StateDict, Collection[str]], StateDict],
    is_left_out: Callable[[str], bool],
) -> Loaded:
    """Fills a network with whatever of a file agrees in name and shape; what keeps its initial weights is reported.

    with_our_names: of (the file's parameters, the network's names); the parameters by the names they have here.
    is_left_out: whether a parameter of this name is expected to have no place in the network, and not reported.

    Raises:
        TorchFileError: the file cannot be read, nothing in it agrees, or it is damaged. Nothing has been loaded then.
    """
    variables = variables_by_torch_name(model, path)
    found = with_our_names(read_state_dict(path), variables)
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
    unknown = [name for name in found if not (name in shapes or name.endswith(_COUNTER) or is_left_out(name))]
    lines = [f"loaded {len(agreeing)} of {len(variables)} variables from {path}", *_differences(found, shapes)]
    if unknown:
        lines.append(f"  not in this network, so left out: {_listed(unknown)}")
    return Loaded("\n".join(lines), None, complete=len(agreeing) == len(variables))


def save_state_dict(model: keras.Model, path: str, more: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Writes a network as a state dict, with `more` parameters, which no network here has, and PyTorch's counters as 0.

    Raises:
        TorchFileError: the network's batch-norm is folded.
    """
    variables = variables_by_torch_name(model, path)
    tensors = {name: to_torch(keras.ops.convert_to_numpy(value)) for name, value in variables.items()} | dict(more)
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith(".running_var")]
    counters = {f"{norm}{_COUNTER[1:]}": np.zeros((), np.int64) for norm in norms}
    write_state_dict(path, {name: value.astype(np.float32) for name, value in tensors.items()} | counters)


def variables_by_torch_name(model: keras.Model, path: str) -> dict[str, keras.Variable]:
    """A network's variables by PyTorch's names; `path` is for the error."""
    variables = {torch_name(variable.path): variable for variable in model.variables}
    if not any(name.endswith(".running_var") for name in variables):
        raise TorchFileError(
            f"{path}: the network's batch-norm is folded into its kernels; take the network that was trained instead"
        )
    if len(variables) < len(model.variables):  # parts that have no names of PyTorch's may have the same ones
        kept = {id(variable) for variable in variables.values()}
        double = next(torch_name(variable.path) for variable in model.variables if id(variable) not in kept)
        raise TorchFileError(f"{path}: two parts of this network have a {double}; take a .keras or .weights.h5 file")
    return variables


def _differences(found: Mapping[str, np.ndarray], ours: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Lines on what a network lacks of a file; its shapes are in PyTorch's order of axes."""
    lines = []
    if missing := [name for name in ours if name not in found]:
        lines.append(f"  not in the file, so with their initial weights: {_listed(missing)}")
    others = [name for name, shape in ours.items() if name in found and found[name].shape != shape]
    for name in others[:_SHOWN]:
        shapes = f"{found[name].shape} in the file, here {ours[name]}"
        lines.append(f"  of another shape, so with its initial weights: {name}, {shapes}")
    if others[_SHOWN:]:
        lines.append(f"  and {len(others) - _SHOWN} more of another shape")
    return lines


def _listed(names: Iterable[str]) -> str:
    """`hm (4), wh (4)`: the first parts of names, and how many begin with each."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.partition(".")[0]
        counts[first] = counts.get(first, 0) + 1
    shown = [f"{name} ({count})" for name, count in counts.items()]
    return ", ".join(shown[:_SHOWN] + [f"and {len(shown) - _SHOWN} more"] * (len(shown) > _SHOWN))
