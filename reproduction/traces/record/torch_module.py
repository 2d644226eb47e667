"""Any PyTorch module by forward hooks: what each of its modules gives out. PyTorch itself is not imported here."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reproduction.traces.record.names import fresh, legal, maps_in
from reproduction.traces.trace import Source, TraceError, write_trace

PYTORCH = Source(program="PyTorch")


def record_torch(module: Any, inputs: Mapping[str, Any], path: str | os.PathLike, source: Source = PYTORCH) -> None:
    """Runs `module(*inputs)` once, and writes inputs, `state/PARAMETER`, and each module's output by its name.

    Names are those of `named_modules()` with `/` for `.`; the module itself is `output`. A module that gives out
    several tensors has them behind its name (`head/0`, `head/hm`), one that is called again is `conv/call2`. Maps are
    NCHW. The mode is the caller's: `module.eval()` first, and `torch.no_grad()` around it saves memory.

    inputs: tensors by name, in the order of the module's arguments.

    Raises:
        TraceError: the module gives out no tensor.
    """
    arrays = {legal(name): _array(tensor) for name, tensor in inputs.items()}
    arrays |= {f"state/{name}": _array(tensor) for name, tensor in module.state_dict().items()}
    before = set(arrays)
    handles = []
    for name, part in module.named_modules():
        called = legal(name.replace(".", "/")) if name else "output"

        def note(part: Any, given: Any, output: Any, called: str = called) -> None:
            name = called if called not in seen else f"{called}/call{seen[called] + 1}"
            seen[called] = seen.get(called, 0) + 1
            for leaf, tensor in _leaves(name, output):
                arrays[fresh(leaf, arrays)] = _array(tensor)

        handles.append(part.register_forward_hook(note))
    seen: dict[str, int] = {}
    try:
        module(*inputs.values())
    finally:
        for handle in handles:
            handle.remove()
    if arrays.keys() == before:
        raise TraceError(f"{type(module).__name__} gives out no tensor")
    maps = {name: array for name, array in arrays.items() if not name.startswith("state/")}
    write_trace(path, arrays, source, maps_in("NCHW", maps))


def _array(tensor: Any) -> np.ndarray:
    """A copy: the next module may work in place. bfloat16, which NumPy lacks, becomes float32."""
    values = tensor.detach().cpu()
    return np.array((values.float() if "bfloat16" in str(values.dtype) else values).numpy())


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    """Tensors in nested mappings and sequences, by their way there."""
    if hasattr(value, "detach"):
        return [(name, value)]
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = list(enumerate(value))
    else:
        return []
    return [leaf for key, part in parts for leaf in _leaves(f"{name}/{legal(str(key))}", part)]
