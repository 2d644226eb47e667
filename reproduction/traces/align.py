"""Which of our layers is which recorded array: by the cfg's numbers, or by a map {ours: theirs} that the user writes.

Shapes must agree once an array is put from the layout that its manifest declares into ours. What the manifest does not
say is not guessed: an array is never transposed because its lengths would then fit.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import yaml
from jaxtyping import Shaped

from official.core.errors import UserError
from reproduction.traces.trace import Layout, Trace, relayout

OURS = {4: "NHWC", 3: "HWC"}  # how Keras lays out maps
_SUGGESTED = 3
_OF_CFG = re.compile(r"L(\d{3,})_(?!.*(_stop\d+|_alongside)$)")  # places of a network built from a cfg
Shape = tuple[int | None, ...]  # None: any length


class AlignError(UserError):
    """Names or shapes that do not go together; says which, and what would."""


@dataclass(frozen=True)
class Alignment:
    """Pairs ours -> theirs, in our order, and what is left over.

    suggestions: of each of ours without a partner, recorded names that may be meant, the likeliest first.
    """

    pairs: Mapping[str, str]
    suggestions: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]

    def as_yaml(self) -> str:
        """A map to complete: the pairs, and what has none as comments."""
        lines = [yaml.safe_dump(dict(self.pairs), sort_keys=False)] if self.pairs else []
        lines += [f"# {ours}: {' or '.join(near) or '?'}\n" for ours, near in self.suggestions.items()]
        return "".join(lines)


def read_map(path: str | Path) -> dict[str, str]:
    """The map {ours: theirs} in a YAML or JSON file.

    Raises:
        AlignError: it is not a mapping of names to names.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise AlignError(f"{path}: neither YAML nor JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or not all(isinstance(word, str) for pair in found.items() for word in pair):
        raise AlignError(f"{path}: expected a mapping of our names to the original's, such as `conv1: L000_output`")
    return found


def align(
    ours: Mapping[str, Shape], trace: Trace, given: Mapping[str, str], names: Sequence[str] | None = None
) -> Alignment:
    """Pairs our outputs with recorded arrays.

    ours: shapes by name, in the network's order.
    given: the user's map; what it lacks is paired where both have the same name.
    names: recorded arrays that are meant, by default all.

    Raises:
        AlignError: the map has a name that does not exist, one array twice, or arrays of other shapes.
    """
    theirs = list(trace if names is None else names)
    for mine, recorded in given.items():
        _must_be(mine, list(ours), "our model")
        _must_be(recorded, theirs, trace.origin)
    twice = [name for name in given.values() if list(given.values()).count(name) > 1]
    if twice:
        raise AlignError(f"the map gives {twice[0]!r} of {trace.origin} to two of ours")
    taken = set(given.values())
    same = {name: name for name in ours if name not in given and name in theirs and name not in taken}
    pairs = {name: (given | same)[name] for name in ours if name in given or name in same}
    left = [name for name in theirs if name not in set(pairs.values())]
    suggestions = {name: _suggest(name, ours[name], left, trace) for name in ours if name not in pairs}
    return Alignment(pairs, suggestions, tuple(left))


def cfg_names(model: keras.Model, prefix: str = "") -> dict[str, str]:
    """The map of a network that was built from a cfg: the last Keras layer of each section -> `PREFIX/L004_output`.

    A section that is no layer of its own (a [route] to one place) has none: what it gives is another's output. Before a
    [dropout], which works in place, what came of it is recorded: the same in evaluation.
    """
    last: dict[int, str] = {}
    for layer in model.layers:
        if found := _OF_CFG.match(layer.name):
            last[int(found[1])] = layer.name
    return {name: f"{prefix}L{index:03d}_output" for index, name in sorted(last.items())}


def in_our_layout(
    name: str, array: Shaped[np.ndarray, "..."], declared: Layout, shape: Shape
) -> Shaped[np.ndarray, "..."]:
    """A recorded array in our layout (NHWC, HWC), if its manifest declares one; its shape must be ours then.

    Raises:
        AlignError: it is not.
    """
    wanted = OURS.get(array.ndim, "")
    given = declared.layout
    turned = relayout(array, given, wanted) if given and sorted(given) == sorted(wanted) else array
    if not fits(turned.shape, shape):
        how = f"in layout {given}, " if given else "without a layout in a manifest, "
        also = ""
        if not given and array.ndim == 4 and fits(tuple(array.shape[axis] for axis in (0, 2, 3, 1)), shape):
            also = "; it would fit as NCHW: if it is, say so in the manifest (write_trace, layouts)"
        raise AlignError(f"{name}: recorded with shape {array.shape} {how}ours is {shape}{also}")
    return turned


def fits(shape: Sequence[int], wanted: Shape) -> bool:
    """Whether a shape is the wanted one, in which None is any length."""
    return len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True))


def _suggest(name: str, shape: Shape, left: Sequence[str], trace: Trace) -> tuple[str, ...]:
    """Recorded names like this one, those of its shape first."""
    close = {other: difflib.SequenceMatcher(None, _plain(name), _plain(other)).ratio() for other in left}
    best = sorted(left, key=lambda other: -close[other])[: 4 * _SUGGESTED]
    of_shape = {other: _has_shape(other, shape, trace) for other in best}
    ranked = sorted(best, key=lambda other: -(of_shape[other] + close[other]))
    return tuple(other for other in ranked if of_shape[other] or close[other] > 0.5)[:_SUGGESTED]


def _has_shape(name: str, shape: Shape, trace: Trace) -> bool:
    try:
        in_our_layout(name, trace[name], trace.layouts.get(name, Layout()), shape)
    except UserError:
        return False
    return True


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _must_be(name: str, names: Sequence[str], where: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=_SUGGESTED, cutoff=0.4)
        hint = f"the nearest: {', '.join(near)}" if near else f"there are {', '.join(list(names)[:5])}, ..."
        raise AlignError(f"the map names {name!r}, which {where} does not have; {hint}")
