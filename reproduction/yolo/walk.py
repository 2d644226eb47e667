"""A network built from a cfg beside Darknet's trace of it, and what hints may know of its layers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from modeling.darknet import sections
from modeling.darknet.options import Layer
from reproduction.traces.align import in_our_layout
from reproduction.traces.case import Case
from reproduction.traces.causes import Clue
from reproduction.traces.causes.residual import Array
from reproduction.traces.trace import Layout
from reproduction.traces.walk import Place, Walk
from reproduction.yolo.case import network_of
from reproduction.yolo.mistakes.convolutions import statistics_alternatives
from reproduction.yolo.mistakes.layers import Parameters, layer_alternatives, training_alternatives
from reproduction.yolo.rebuilt import Rebuilt

NCHW = Layout(layout="NCHW")


def darknet_walk(
    rebuilt: Rebuilt,
    parameters: Mapping[str, Array],
    prefix: str = "",
    image: str = "X",
    exact: Callable[[], Rebuilt] | None = None,
) -> Walk:
    """Every layer of a cfg; of one that detects, what goes into it. `without_heads` leaves those out.

    parameters: as recorded or in the weights, by Darknet's names (L003_weights); hints compute with them.
    prefix: of the recorded outputs: `eval/`.
    image: the recorded input.
    exact: the same network in float64; see `Case.compare`.
    """
    case, graph = rebuilt.case, rebuilt.graph
    places = [
        _place(rebuilt, layer, tensor, prefix, lambda layer=layer: layer_clue(case, layer, parameters, prefix, image))
        for layer, tensor in zip(network_of(case).layers, graph.outputs, strict=True)
    ]
    given = Place(image, graph.model.inputs[0], lambda array: rebuilt.image(image), rebuilt.in_darknets_form)
    again = None if exact is None else functools.cache(lambda: darknet_walk(exact(), parameters, prefix, image))
    return Walk(case, [given], places, exact=again)


def without_heads(walk: Walk) -> Walk:
    """The layers that do not detect."""
    layers = zip(network_of(walk.case).layers, walk.places, strict=True)
    return dataclasses.replace(
        walk, places=[place for layer, place in layers if not isinstance(layer, sections.HEAD_SECTIONS)]
    )


def recorded_parameters(case: Case) -> dict[str, Array]:
    """What the trace has in `init/`, by Darknet's names."""
    return {name.removeprefix("init/"): case.trace[name] for name in case.trace if name.startswith("init/")}


def layer_clue(
    case: Case, layer: Layer, parameters: Mapping[str, Array], prefix: str, image: str = "X", training: bool = False
) -> Clue:
    """What a layer would give with a known mistake, on its recorded inputs; no such thing where those are missing."""
    inputs = _recorded_inputs(case, layer, prefix, image)
    alternatives = training_alternatives if training else layer_alternatives
    return Clue("layer", "NCHW", alternatives(layer, inputs, _of(layer, parameters)) if inputs else {})


def statistics_clue(case: Case, name: str, parameters: Mapping[str, Array], prefix: str) -> Clue:
    """The same of `L003_rolling_mean` or `L003_rolling_variance` after one forward pass in training."""
    layer = network_of(case).layers[int(name[1:4])]
    inputs = _recorded_inputs(case, layer, prefix, "X")
    if not (inputs and isinstance(layer, sections.Convolutional)):
        return Clue("statistics")
    found = statistics_alternatives(layer, inputs, _of(layer, parameters))
    return Clue("statistics", "", found[name.partition("_")[2]])


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


def _place(rebuilt: Rebuilt, layer: Layer, tensor: keras.KerasTensor, prefix: str, clue: Callable[[], Clue]) -> Place:
    name = f"{prefix}L{layer.index:03d}_output"

    def to_ours(array: Array) -> Array:
        if len(tensor.shape) == 2:  # Darknet counts numbers in a row as channels
            array = array.reshape(len(array), -1)
        return np.ascontiguousarray(in_our_layout(name, array, NCHW, tuple(tensor.shape)))

    def from_ours(value: Any) -> Array:
        return rebuilt.in_darknets_form(value, name)

    return Place(name, tensor, to_ours, from_ours, clue)


def _recorded_inputs(case: Case, layer: Layer, prefix: str, image: str) -> list[Array]:
    """Maps [image, channel, row, column] that a layer reads; none if one was not recorded, or is no map."""
    names = [f"{prefix}L{index:03d}_output" if index >= 0 else image for index in reads(layer)]
    if not set(names) <= set(case.trace):
        return []
    inputs = [case.trace[name] for name in names]
    inputs = [array[np.newaxis] if array.ndim == 3 else array for array in inputs]
    return inputs if all(array.ndim == 4 for array in inputs) else []


def _of(layer: Layer, parameters: Mapping[str, Array]) -> Parameters:
    """The parameters that a layer uses, without a number: its own, or those of the layer that it shares them with."""
    owner = getattr(layer, "share_index", None)
    prefix = f"L{layer.index if owner is None else owner:03d}_"
    return {name.removeprefix(prefix): array for name, array in parameters.items() if name.startswith(prefix)}
