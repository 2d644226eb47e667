"""A network beside a trace, layer by layer: whole, on our own numbers, and each layer alone, on the original's.

Whole, one mistake makes every layer after it wrong. Alone (teacher forcing), a layer gets what the original had there,
so that each mistake shows where it is, and only there. Keras knows the way between two recorded places: the function
from the nearest recorded arrays to the next is what is judged. Rows come in the network's order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
from jaxtyping import Shaped

from modeling.darknet import sections
from modeling.darknet.options import Layer
from reproduction.align import Alignment, align, in_our_layout
from reproduction.compare import CompareError, OfAbsmax, Tolerance, judge, measure
from reproduction.golden.case import Case, Row
from reproduction.golden.network import Rebuilt
from reproduction.hints import Clue
from reproduction.hints.layers import Parameters, layer_alternatives, training_alternatives
from reproduction.trace import Layout, relayout

BOUND = OfAbsmax(bound=1e-5)
_TOGETHER = 64 << 20  # bytes of outputs that are computed and held at a time


@dataclass(frozen=True)
class Place:
    """A tensor of our network that the original recorded.

    name: of the recorded array.
    to_ours: a recorded array as the tensor's value; from_ours: the reverse.
    clue: what hints may know of it; called for failures alone.
    """

    name: str
    tensor: Shaped[keras.KerasTensor, "..."]
    to_ours: Callable[[np.ndarray], np.ndarray]
    from_ours: Callable[[Any], np.ndarray]
    clue: Callable[[bool], Clue] = field(default=lambda alone: Clue("layer"))


@dataclass(frozen=True)
class Walk:
    """A Keras network beside a case's trace.

    inputs: what the network is given, in its order, as recorded.
    places: in the network's order.
    """

    case: Case
    inputs: Sequence[Place]
    places: Sequence[Place]
    training: bool = False
    tolerance: Tolerance = BOUND

    def whole(self) -> Iterator[Row]:
        """Every place, computed from the network's inputs; a few at a time, so that they fit into memory."""
        given = [place.to_ours(self.case.trace[place.name]) for place in self.inputs]
        compared = [place for place in self.places if self._is_recorded(place.name)]
        for group in _groups(compared):
            outputs = run([place.tensor for place in self.inputs], [p.tensor for p in group], given, self.training)
            for place, output in zip(group, outputs, strict=True):
                yield from self._rows(place, place.from_ours(output))

    def alone(self) -> Iterator[Row]:
        """Every place whose recorded array is whole, from the nearest whole recorded arrays before it."""
        known = {id(place.tensor): place for place in (*self.places, *self.inputs) if place.name in self.case.trace}
        for place in self.places:
            if not self._is_recorded(place.name):
                continue
            quantity = f"alone/{place.name}"
            sources = _sources(place.tensor, known)
            if sources is None:
                yield self.case.skip(quantity, "what it is computed from was not recorded")
                continue
            given = [known[id(tensor)].to_ours(self.case.trace[known[id(tensor)].name]) for tensor in sources]
            (output,) = run(sources, [place.tensor], given, self.training)
            yield from self._rows(place, place.from_ours(output), "alone/")

    def _is_recorded(self, name: str) -> bool:
        return name in self.case.trace or _sample(name) in self.case.trace

    def _rows(self, place: Place, ours: np.ndarray, mode: str = "") -> Iterator[Row]:
        """Beside the whole recorded array, or beside the numbers at some flat positions of it."""
        trace = self.case.trace
        if place.name in trace:
            clue = place.clue(bool(mode))
            yield self.case.compare(f"{mode}{place.name}", ours, self.tolerance, trace[place.name], clue)
            return
        name = _sample(place.name)
        at = trace.array(f"{name}_idx", ("positions",), np.integer)
        if at.size and not 0 <= at.min() <= at.max() < ours.size:
            yield self.case.fail(f"{mode}{name}", f"positions up to {at.max()}, ours has {ours.size} numbers")
            return
        yield self.case.compare(f"{mode}{name}", ours.ravel()[at], self.tolerance, trace[name])


def darknet_walk(
    rebuilt: Rebuilt,
    parameters: Callable[[Layer], Parameters],
    prefix: str = "",
    image: str = "X",
    training: bool = False,
    tolerance: Tolerance = BOUND,
) -> Walk:
    """A cfg's network beside a trace of it, without the sections that detect: they are compared as heads.

    parameters: a layer's, by Darknet's names, as recorded; hints compute with them.
    prefix: of the recorded outputs: `eval/`, `train/`, `resize/`.
    """
    case, graph = rebuilt.case, rebuilt.graph
    places = []
    for layer, tensor in zip(case.network.layers, graph.outputs, strict=True):
        if isinstance(layer, sections.HEADS):
            continue
        name = f"{prefix}L{layer.index:03d}_output"

        def clue(alone: bool, layer: Layer = layer) -> Clue:
            alternatives = _alternatives(case, layer, parameters, prefix, image, training)
            return Clue("layer", "NCHW", alternatives) if alternatives else Clue("layer", "")

        places.append(
            Place(
                name,
                tensor,
                lambda array, tensor=tensor: _in_kerass_form(array, tensor),
                lambda ours, name=name: rebuilt.in_darknets_form(ours, name),
                clue,
            )
        )
    given = Place(image, graph.model.inputs[0], lambda array: np.asarray(rebuilt.image(image)), np.asarray)
    return Walk(case, [given], places, training, tolerance)


def keras_walk(
    model: keras.Model, case: Case, given: Mapping[str, str], inputs: Sequence[str], tolerance: Tolerance = BOUND
) -> tuple[Walk, Alignment]:
    """Any functional Keras model beside any trace.

    given: recorded array by the name of our layer, where they are called otherwise.
    inputs: recorded arrays that the model is given, in its order.

    Raises:
        AlignError: a name does not exist. Shapes that differ fail in their row.
    """
    tensors = {layer.name: layer.output for layer in model.layers if isinstance(layer.output, keras.KerasTensor)}
    names = [name for name in case.trace if name not in inputs]
    alignment = align({name: tuple(tensor.shape) for name, tensor in tensors.items()}, case.trace, given, names)
    places = [_aligned(case, theirs, tensors[ours]) for ours, theirs in alignment.pairs.items()]
    fed = [_aligned(case, name, tensor) for name, tensor in zip(inputs, model.inputs, strict=True)]
    return Walk(case, fed, places, tolerance=tolerance), alignment


def _aligned(case: Case, name: str, tensor: keras.KerasTensor) -> Place:
    declared = case.trace.layouts.get(name, Layout())

    def to_ours(array: np.ndarray) -> np.ndarray:
        return in_our_layout(name, array, declared, tuple(tensor.shape))

    def from_ours(value: Any) -> np.ndarray:
        ours = np.asarray(value)
        layout = declared.layout
        return relayout(ours, "NHWC", layout) if sorted(layout) == sorted("NHWC") and ours.ndim == 4 else ours

    layout = declared.layout if declared.layout else ("NHWC" if len(tensor.shape) == 4 else "")
    return Place(name, tensor, to_ours, from_ours, lambda alone: Clue("layer", layout))


def run(
    sources: Sequence[Shaped[keras.KerasTensor, "..."]],
    targets: Sequence[Shaped[keras.KerasTensor, "..."]],
    given: Sequence,
    training: bool,
) -> list:
    """The values of some tensors of a Keras network from those of others."""
    outputs = keras.Model(list(sources), list(targets))(list(given), training=training)
    return outputs if isinstance(outputs, list) else [outputs]


class Divergence(NamedTuple):
    """The first layer beyond the tolerance, the last one within it before, and how many were looked at."""

    layer: str
    last_good: str | None
    error: float
    recordings: int


def first_divergence(
    record_ours: Callable[[str], Any],
    record_theirs: Callable[[str], Any],
    layers: Sequence[str],
    tolerance: Tolerance = BOUND,
) -> Divergence | None:
    """Bisects for the first layer that differs, holding one layer's two arrays at a time; None if the last agrees.

    Supposes that what differs once still differs later. A layer whose error vanishes again (a maximum, a clip) may
    hide it, and so may shapes that differ, which are an error.

    record_ours, record_theirs: run the program, and give that layer's output.
    """
    seen: dict[int, float] = {}

    def differs(index: int) -> bool:
        metrics = measure(layers[index], record_ours(layers[index]), record_theirs(layers[index]))
        verdict = judge(metrics, tolerance)
        seen[index] = verdict.error
        return not verdict.passed

    if not layers:
        raise CompareError("no layer to compare")
    low, high = -1, len(layers) - 1  # low agrees, high differs
    if not differs(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if differs(middle) else (middle, high)
    return Divergence(layers[high], layers[low] if low >= 0 else None, seen[high], len(seen))


def first_failure(rows: Sequence[Row]) -> Row | None:
    """The first row in the network's order that fails: where to look."""
    return next((row for row in rows if row.outcome == "fail"), None)


def reads(layer: Layer) -> list[int]:
    """The layers that a section reads, in the order in which it takes them; -1 is the image."""
    match layer:
        case sections.Route():
            return list(layer.layers)
        case sections.Shortcut():
            return [layer.index - 1, *layer.from_]
        case sections.Sam():
            return [layer.index - 1, layer.from_]
    return [layer.index - 1]


def _alternatives(
    case: Case,
    layer: Layer,
    parameters: Callable[[Layer], Parameters],
    prefix: str,
    image: str,
    training: bool,
) -> Mapping[str, Callable[[], np.ndarray]]:
    """What the layer would give with a known mistake, on its recorded inputs; none where those are not recorded."""
    names = [f"{prefix}L{index:03d}_output" if index >= 0 else image for index in reads(layer)]
    if not set(names) <= set(case.trace):
        return {}
    inputs = [case.trace[name] for name in names]
    inputs = [array[np.newaxis] if array.ndim == 3 else array for array in inputs]
    if any(array.ndim != 4 for array in inputs):
        return {}
    return (training_alternatives if training else layer_alternatives)(layer, inputs, parameters(layer))


def _in_kerass_form(array: np.ndarray, tensor: keras.KerasTensor) -> np.ndarray:
    """A layer's output as Darknet lays it out, as Keras does."""
    if len(tensor.shape) == 2:
        return array.reshape(array.shape[0], -1)
    return np.ascontiguousarray(relayout(array, "NCHW", "NHWC"))


def _sources(target: keras.KerasTensor, known: Mapping[int, Place]) -> list[keras.KerasTensor] | None:
    """The nearest known tensors that a tensor is computed from; None where a way back leads to none."""
    found: dict[int, keras.KerasTensor] = {}
    visited, stack = set(), _inputs_of(target)
    if not stack:
        return None
    while stack:
        tensor = stack.pop()
        if id(tensor) in visited:
            continue
        visited.add(id(tensor))
        if id(tensor) in known:
            found[id(tensor)] = tensor
            continue
        behind = _inputs_of(tensor)
        if not behind:
            return None
        stack += behind
    return list(found.values())


def _inputs_of(tensor: keras.KerasTensor) -> list[keras.KerasTensor]:
    operation, node, _ = tensor._keras_history
    return list(operation._inbound_nodes[node].input_tensors)


def _groups(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Places whose outputs are held together; a batch of one is supposed."""
    group, size = [], 0
    for place in places:
        size += 4 * int(np.prod([length or 1 for length in place.tensor.shape]))
        if group and size > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(place)
    if group:
        yield group


def _sample(name: str) -> str:
    return f"{name.removesuffix('_output')}_sample"
