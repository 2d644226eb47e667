"""Networks of one layer and what it needs, forward and backward (`layers/`, `layers_cudnn_emulated/`).

Training is compared with what the library computes once three of its CPU functions follow cuDNN, with which the
published weights were trained: the CPU's own erase gradients where branches join, and train batch-norm otherwise.
[connected] has a batch-norm of its own, the same everywhere, so a network of that kind is taken from `layers/`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from modeling.darknet import sections
from modeling.darknet.options import Layer
from reproduction.compare import OfAbsmax
from reproduction.golden.case import Case, Row
from reproduction.golden.network import STATISTICS, Rebuilt, compare_updates, gradients_of
from reproduction.golden.network_walk import darknet_walk, layer_clue, recorded_parameters, statistics_clue
from reproduction.hints import Clue
from reproduction.trace import relayout

BOUND = OfAbsmax(bound=1e-5)
CPU_RELU6 = "recorded from a CPU build, whose relu6 is 0 everywhere (activations.c lacks it)"


def evaluation(case: Case) -> Iterator[Row]:
    """The output of every layer in evaluation mode: in the whole network, and alone, on what the original had there."""
    walk = darknet_walk(Rebuilt.of(case), recorded_parameters(case), "eval/")
    spoilt = _relu6_of_the_cpu(case, "eval")
    sound = dataclasses.replace(walk, places=walk.places[:spoilt])
    yield from sound.whole()
    yield from sound.alone()
    for place in walk.places[len(sound.places) :]:
        yield case.skip(place.name, CPU_RELU6)
    for head in case.network.heads:
        yield case.skip(f"eval/L{head.index:03d}_output", "a section that detects; compared with its loss")


def _relu6_of_the_cpu(case: Case, mode: str) -> int | None:
    """The first layer that is relu6 by its cfg and 0 everywhere by the record; what follows was computed from it."""
    relu6 = [layer.index for layer in case.network.layers if getattr(layer, "activation", "") == "relu6"]
    names = {index: f"{mode}/L{index:03d}_output" for index in relu6}
    return next((index for index, name in names.items() if name in case.trace and not case.trace[name].any()), None)


def training_cases(case: Case) -> list[str]:
    """The file if its training is what cuDNN computes."""
    folder = case.path.parent
    if folder.name.endswith("_cudnn_emulated"):
        return [""]
    has_own_norm = any(isinstance(layer, sections.Connected) and layer.batch_normalize for layer in case.network.layers)
    emulated = folder.with_name(f"{folder.name}_cudnn_emulated") / case.path.name
    return [""] if has_own_norm and not emulated.exists() else []


def training(case: Case) -> Iterator[Row]:
    """The output of every layer in training mode, the moving statistics after it, and all gradients."""
    if any(isinstance(layer, sections.Dropout) and layer.probability for layer in case.network.layers):
        yield case.skip("train", "dropout draws at random in training")
        return
    if _relu6_of_the_cpu(case, "train") is not None:
        yield case.skip("train", CPU_RELU6)
        return
    rebuilt = Rebuilt.of(case)
    image = rebuilt.image()
    with tf.GradientTape() as tape:
        tape.watch(image)
        outputs = rebuilt.all_outputs(image, training=True)
    parameters = recorded_parameters(case)
    for layer, output in zip(case.network.layers, outputs, strict=True):
        name = f"train/L{layer.index:03d}_output"
        clue = layer_clue(case, layer, parameters, "train/", training=True)
        yield case.compare(name, rebuilt.in_darknets_form(output, name), BOUND, clue=clue)
    for name, array in rebuilt.parameters().items():
        if name.endswith(STATISTICS):
            clue = statistics_clue(case, name, parameters, "train/")
            yield case.compare(f"after_train_forward/{name}", array, BOUND, clue=clue)
    if any(name.startswith(("upstream_delta", "input_delta", "grad/", "delta_after")) for name in case.trace):
        yield from _gradients(rebuilt, tape, image, outputs)
    else:
        yield case.skip("gradients", "the trace has none")


def _gradients(rebuilt: Rebuilt, tape: tf.GradientTape, image: tf.Tensor, outputs: list[tf.Tensor]) -> Iterator[Row]:
    case, variables = rebuilt.case, rebuilt.graph.model.trainable_variables
    upstream = case.trace.array("upstream_delta", dtype=np.floating)
    last = outputs[-1]
    upstream = relayout(upstream, "NCHW", "NHWC") if last.shape.rank == 4 else upstream.reshape(last.shape)
    # Deltas are minus the gradient; going backward is linear, so the signs cancel.
    deltas = gradients_of(tape, last, [image, *outputs, *variables], tf.constant(upstream, tf.float32))
    yield case.compare("input_delta", rebuilt.in_darknets_form(deltas[0]), BOUND, clue=Clue("gradient", "NCHW"))
    yield from compare_updates(rebuilt, "grad", rebuilt.updates(deltas[1 + len(outputs) :]), BOUND.bound)
    for layer, delta in zip(case.network.layers, deltas[1:], strict=False):
        name = f"delta_after_backward/L{layer.index:03d}"
        if name in case.trace and _keeps_its_delta(layer):
            yield case.compare(name, rebuilt.in_darknets_form(delta, name), BOUND, clue=Clue("gradient", "NCHW"))


def _keeps_its_delta(layer: Layer) -> bool:
    """Whether what arrived at a layer is still there after its backward: activation and batch-norm change it."""
    return getattr(layer, "activation", "linear") == "linear" and not getattr(layer, "batch_normalize", 0)
