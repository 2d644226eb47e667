"""A network beside a trace, layer by layer: whole, on our own numbers, and each layer alone, on the original's.

Whole, one mistake makes every layer after it wrong. Alone (teacher forcing), a layer gets what the original had there,
so that each mistake shows where it is, and only there. Keras knows the way between two recorded places: the function
from the nearest recorded arrays to the next is what is judged. Rows come in the network's order.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from jaxtyping import Shaped

from official.core.errors import UserError, first_line
from reproduction.traces.align import Alignment, align, in_our_layout
from reproduction.traces.case import ALONE, Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.residual import Array
from reproduction.traces.compare import CompareError, OfAbsmax, Tolerance, judge, measure
from reproduction.traces.trace import Layout, relayout

KerasTensor = Shaped[keras.KerasTensor, "..."]
BOUND = OfAbsmax(bound=1e-5)
_TOGETHER = 64 << 20  # bytes of outputs that are computed and held at a time


class _NotAPartError(Exception):
    """A part of a network that Keras cannot cut out: it goes twice through one layer."""


@dataclass(frozen=True)
class Place:
    """A tensor of our network that the original recorded.

    name: of the recorded array.
    to_ours: a recorded array as the tensor's value, or an error where its shape is another; from_ours: the reverse.
    clue: what hints may know of it.
    """

    name: str
    tensor: KerasTensor
    to_ours: Callable[[Array], Any]
    from_ours: Callable[[Any], Array]
    clue: Callable[[], Clue] = lambda: Clue("layer")


@dataclass(frozen=True)
class Walk:
    """A Keras network, in evaluation mode, beside a case's trace.

    inputs: what the network is given, in its order, as recorded.
    places: in the network's order.
    exact: the walk of the same network in float64, with these places among its own; see `Case.compare`.
    """

    case: Case
    inputs: Sequence[Place]
    places: Sequence[Place]
    tolerance: Tolerance = BOUND
    exact: "Callable[[], Walk] | None" = None

    def whole(self) -> Iterator[Row]:
        """Every place, computed from the network's inputs; a few at a time, so that they fit into memory.

        The first that fails is explained. Those after it may be wrong because it is: `alone` tells.
        """
        given = [self._recorded(place) for place in self.inputs]
        is_explained = False
        for group in _groups(self.places):
            outputs = run([place.tensor for place in self.inputs], [place.tensor for place in group], given)
            exact = functools.cache(functools.partial(self._exactly, self.inputs, group))
            for place, output in zip(group, outputs, strict=True):
                row = self._row(place, output, "", not is_explained, exact)
                is_explained = is_explained or row.outcome == "fail"
                yield row

    def alone(self) -> Iterator[Row]:
        """Every recorded place, computed from the nearest places before it, as the original recorded those.

        Of places that are the same tensor ([dropout] works in place) the first is judged.
        """
        known = {id(place.tensor): place for place in (*self.places, *self.inputs) if place.name in self.case.trace}
        judged: set[int] = set()
        for place in [place for place in self.places if place.name in self.case.trace]:
            if id(place.tensor) in judged:
                continue
            judged.add(id(place.tensor))
            sources = _sources(place.tensor, known)
            if sources is None:
                yield self.case.skip(f"{ALONE}{place.name}", "what it is computed from was not recorded")
                continue
            given = [known[id(tensor)] for tensor in sources]
            try:
                (output,) = run(sources, [place.tensor], [self._recorded(one) for one in given])
            except UserError as error:
                yield self.case.fail(f"{ALONE}{place.name}", str(error))
                continue
            except _NotAPartError as error:
                yield self.case.skip(f"{ALONE}{place.name}", str(error))
                continue
            yield self._row(place, output, ALONE, True, functools.partial(self._exactly, given, [place]))

    def bisect(self) -> "Divergence | None":
        """The first place that differs, for networks too large for `whole`: a few places are computed, one at a time.

        Raises:
            CompareError, TraceError: a place has another shape, or was not recorded.
        """
        places = {place.name: place for place in self.places}
        given = [self._recorded(place) for place in self.inputs]

        def ours(name: str) -> Array:
            (output,) = run([place.tensor for place in self.inputs], [places[name].tensor], given)
            return places[name].from_ours(output)

        return first_divergence(ours, self.case.trace.__getitem__, list(places), self.tolerance)

    def _recorded(self, place: Place) -> Any:
        return place.to_ours(self.case.trace[place.name])

    def _exactly(self, given: Sequence[Place], asked: Sequence[Place]) -> dict[str, Array]:
        """Places from recorded ones, in float64, as arrays like the recorded."""
        other = self.exact()
        known = {place.name: place for place in (*other.places, *other.inputs)}
        sources, targets = ([known[place.name] for place in places] for places in (given, asked))
        values = run([s.tensor for s in sources], [t.tensor for t in targets], [other._recorded(s) for s in sources])
        return {place.name: place.from_ours(value) for place, value in zip(targets, values, strict=True)}

    def _row(
        self, place: Place, output: Any, mode: str, explained: bool, exact: Callable[[], Mapping[str, Array]]
    ) -> Row:
        quantity = f"{mode}{place.name}"
        if place.name not in self.case.trace:
            return self.case.fail(quantity, "not recorded")
        clue = place.clue() if explained else None
        expected = self.case.trace[place.name]
        asked = None if self.exact is None else lambda: exact()[place.name]
        return self.case.compare(quantity, place.from_ours(output), self.tolerance, expected, clue, asked)


def keras_walk(
    model: keras.Model, case: Case, given: Mapping[str, str], inputs: Sequence[str], tolerance: Tolerance = BOUND
) -> tuple[Walk, Alignment]:
    """Any functional Keras model beside any trace.

    given: recorded array by the name of our layer, where they are called otherwise; `align.cfg_names` knows those of a
        network that was built from a cfg.
    inputs: recorded arrays that the model is given, in its order.

    Raises:
        AlignError: a name does not exist. Shapes that differ fail in their row.
    """
    tensors = layer_tensors(model)
    names = [name for name in case.trace if name not in inputs]
    alignment = align({name: tuple(tensor.shape) for name, tensor in tensors.items()}, case.trace, given, names)
    places = [_aligned(case, theirs, tensors[ours]) for ours, theirs in alignment.pairs.items()]
    fed = [_aligned(case, name, tensor) for name, tensor in zip(inputs, model.inputs, strict=True)]
    return Walk(case, fed, places, tolerance), alignment


def layer_tensors(model: keras.Model) -> dict[str, KerasTensor]:
    """The output of each layer that is called once and has one output, by the layer's name, in the model's order."""
    outputs = {layer.name: getattr(layer, "output", None) for layer in model.layers}
    return {name: output for name, output in outputs.items() if isinstance(output, keras.KerasTensor)}


def _aligned(case: Case, name: str, tensor: KerasTensor) -> Place:
    declared = case.trace.layouts.get(name, Layout())
    turned = sorted(declared.layout) == sorted("NHWC") and len(tensor.shape) == 4

    def to_ours(array: Array) -> Array:
        return in_our_layout(name, array, declared, tuple(tensor.shape))

    def from_ours(value: Any) -> Array:
        ours = np.asarray(value)
        return relayout(ours, "NHWC", declared.layout) if turned else ours

    layout = declared.layout or ("NHWC" if len(tensor.shape) == 4 else "")
    return Place(name, tensor, to_ours, from_ours, lambda: Clue("layer", layout))


def run(
    sources: Sequence[KerasTensor],
    targets: Sequence[KerasTensor],
    given: Sequence,
) -> list:
    """The values of some tensors of a Keras network, in evaluation mode, from those of others."""
    try:
        part = keras.Model(list(sources), list(targets))
    except ValueError as error:
        raise _NotAPartError(f"Keras cannot compute this part alone: {first_line(error)}") from None
    outputs = part(list(given), training=False)
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


def _sources(target: KerasTensor, known: Mapping[int, Place]) -> list[KerasTensor] | None:
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


def _inputs_of(tensor: KerasTensor) -> list[KerasTensor]:
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
