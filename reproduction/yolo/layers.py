"""Networks of one layer and what it needs, forward and backward (`layers/`, `layers_cudnn_emulated/`).

Training is compared with what the library computes once three of its CPU functions follow cuDNN, with which the
published weights were trained: the CPU's own erase gradients where branches join, and train batch-norm otherwise.
[connected] has a batch-norm of its own, the same everywhere, so a network of that kind is taken from `layers/`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from modeling.darknet import sections
from modeling.darknet.build import Graph
from modeling.darknet.options import Layer
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import OfAbsmax
from reproduction.traces.trace import relayout
from reproduction.yolo.case import network_of
from reproduction.yolo.rebuilt import STATISTICS, Arrays, Rebuilt, compare_updates, gradients_of
from reproduction.yolo.walk import darknet_walk, layer_clue, reads, recorded_parameters, statistics_clue

BOUND = OfAbsmax(bound=1e-5)
_GRADIENTS = ("upstream_delta", "input_delta", "grad/", "delta_after")
CPU_RELU6 = "recorded from a CPU build, whose relu6 is 0 everywhere (activations.c lacks it)"


def evaluation(case: Case) -> Iterator[Row]:
    """The output of every layer in evaluation mode: in the whole network, and alone, on what the original had there."""
    walk = darknet_walk(Rebuilt.of(case), recorded_parameters(case), "eval/", exact=lambda: Rebuilt.exact(case))
    spoilt = _relu6_of_the_cpu(case, "eval")
    sound = dataclasses.replace(walk, places=walk.places[:spoilt])
    yield from sound.whole()
    yield from sound.alone()
    for place in walk.places[len(sound.places) :]:
        yield case.skip(place.name, CPU_RELU6)


def _relu6_of_the_cpu(case: Case, mode: str) -> int | None:
    """The first layer that is relu6 by its cfg and 0 everywhere by the record; what follows was computed from it."""
    relu6 = [layer.index for layer in network_of(case).layers if getattr(layer, "activation", "") == "relu6"]
    names = {index: f"{mode}/L{index:03d}_output" for index in relu6}
    return next((index for index, name in names.items() if name in case.trace and not case.trace[name].any()), None)


def training_cases(case: Case) -> list[str]:
    """The file if its training is what cuDNN computes."""
    folder = case.path.parent
    if folder.name.endswith("_cudnn_emulated"):
        return [""]
    has_own_norm = any(
        isinstance(layer, sections.Connected) and layer.batch_normalize for layer in network_of(case).layers
    )
    emulated = folder.with_name(f"{folder.name}_cudnn_emulated") / case.path.name
    return [""] if has_own_norm and not emulated.exists() else []


def training(case: Case) -> Iterator[Row]:
    """The output of every layer in training mode, the moving statistics after it, and all gradients."""
    if any(isinstance(layer, sections.Dropout) and layer.probability for layer in network_of(case).layers):
        yield case.skip("train", "dropout draws at random in training")
        return
    if _relu6_of_the_cpu(case, "train") is not None:
        yield case.skip("train", CPU_RELU6)
        return
    rebuilt = Rebuilt.of(case)
    has_gradients = any(name.startswith(_GRADIENTS) for name in case.trace)
    ours = _trained(rebuilt, has_gradients)
    exact = functools.cache(lambda: _trained(Rebuilt.exact(case), has_gradients))
    parameters = recorded_parameters(case)
    for layer in network_of(case).layers:
        name = f"train/L{layer.index:03d}_output"
        clue = layer_clue(case, layer, parameters, "train/", training=True)
        yield case.compare(name, ours.arrays[name], BOUND, None, clue, lambda name=name: exact().arrays[name])
    for name in [name for name in ours.arrays if name.startswith("after_train_forward/")]:
        clue = statistics_clue(case, name.partition("/")[2], parameters, "train/")
        yield case.compare(name, ours.arrays[name], BOUND, None, clue, lambda name=name: exact().arrays[name])
    if has_gradients:
        yield from _gradients(rebuilt, ours, exact)
    else:
        yield case.skip("gradients", "the trace has none")


class _Trained(NamedTuple):
    """What training by one image gives: by the recorded arrays' names, and updates by the parameters'."""

    arrays: Mapping[str, Arrays]
    updates: Mapping[str, Arrays]


def _trained(rebuilt: Rebuilt, has_gradients: bool) -> _Trained:
    """Outputs and moving statistics; and the deltas of the image, every layer and every parameter."""
    layers, image = network_of(rebuilt.case).layers, rebuilt.image()
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs = rebuilt.all_outputs(image, training=True)
    arrays = {
        name: rebuilt.in_darknets_form(output, name)
        for name, output in zip((f"train/L{layer.index:03d}_output" for layer in layers), outputs, strict=True)
    }
    moved = {name: array for name, array in rebuilt.parameters().items() if name.endswith(STATISTICS)}
    arrays |= {f"after_train_forward/{name}": array for name, array in moved.items()}
    if not has_gradients:
        return _Trained(arrays, {})
    upstream, last = rebuilt.case.trace.array("upstream_delta", dtype=np.floating), outputs[-1]
    upstream = relayout(upstream, "NCHW", "NHWC") if last.shape.rank == 4 else upstream.reshape(last.shape)
    # Deltas are minus the gradient; going backward is linear, so the signs cancel.
    sources = [image, *outputs, *rebuilt.graph.model.trainable_variables]
    deltas = gradients_of(tape, last, sources, tf.constant(upstream, last.dtype))
    arrays["input_delta"] = rebuilt.in_darknets_form(deltas[0])
    for layer, delta in zip(layers, deltas[1 : 1 + len(layers)], strict=True):
        name = f"delta_after_backward/L{layer.index:03d}"
        arrays[name] = rebuilt.in_darknets_form(delta, name)
    return _Trained(arrays, rebuilt.updates(deltas[1 + len(layers) :]))


def _gradients(rebuilt: Rebuilt, ours: _Trained, exact: Callable[[], _Trained]) -> Iterator[Row]:
    case, clue = rebuilt.case, Clue("gradient", "NCHW")

    def row(name: str) -> Row:
        return case.compare(name, ours.arrays[name], BOUND, None, clue, lambda: exact().arrays[name])

    yield row("input_delta")
    yield from compare_updates(rebuilt, "grad", ours.updates, BOUND.bound, lambda: exact().updates)
    in_part = _passed_by(rebuilt.graph)
    for layer in network_of(case).layers:
        name = f"delta_after_backward/L{layer.index:03d}"
        if name not in case.trace or not _keeps_its_delta(layer):
            continue
        if layer.index in in_part:
            yield case.skip(name, "the original keeps a delta for each section; ours is the total of what it passes on")
        else:
            yield row(name)


def _passed_by(graph: Graph) -> set[int]:
    """Sections whose delta in Darknet is a part of ours: those that pass an output on which others read without them.

    A [route] of one source has that source's output: to us both are one tensor, whose gradient is the total of all that
    reads it under either number. Darknet adds up for each section what reads that one, and the route's to its source's
    when it goes backward. So the source has the total, and the route has it where nothing reads past it. [dropout]
    and [empty] have no delta of their own: they lie in the memory of the section before them.
    """
    layers, outputs = graph.network.layers, graph.outputs
    memory, source, read = list(range(len(layers))), {}, [len(layers) - 1]  # what goes backward starts at the last
    for layer in layers:
        if layer.index and isinstance(layer, sections.Dropout | sections.Empty):
            memory[layer.index] = memory[layer.index - 1]
        for index in reads(layer):
            if index < 0 or outputs[index] is not outputs[layer.index]:
                read.append(index)
            elif memory[index] != memory[layer.index]:
                source[memory[layer.index]] = memory[index]

    def adds_to(index: int, other: int) -> bool:
        while index != other and index in source:
            index = source[index]
        return index == other

    return {
        layer.index
        for layer in layers
        for index in read
        if index >= 0 and outputs[index] is outputs[layer.index] and not adds_to(memory[index], memory[layer.index])
    }


def _keeps_its_delta(layer: Layer) -> bool:
    """Whether what arrived at a layer is still there after its backward: activation and batch-norm change it."""
    return getattr(layer, "activation", "linear") == "linear" and not getattr(layer, "batch_normalize", 0)
