"""The gradient that each head gives to the layer before it, and its cost (`loss/`).

The head takes the recorded output of the layer before it, so that nothing but the loss is compared.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

from losses import HEADS, LOSSES
from losses.darknet import HeadLoss, darknet_loss
from losses.detection import CellTruth, cell_loss
from losses.from_cfg import head_and_loss
from losses.truth import Truth
from modeling.darknet.build import build_network
from modeling.darknet.cfg import Network
from modeling.darknet.options import Layer
from modeling.darknet.sections import Detection, Region, Yolo
from official.core.task import Moment, Scalar
from reproduction.compare import AbsoluteAndRelative, Exact, Relative
from reproduction.golden.case import Case, Row
from reproduction.trace import relayout

DELTA = AbsoluteAndRelative(absolute=2e-6, relative=2e-6)
COST = Relative(bound=2e-6)


def deltas(case: Case) -> Iterator[Row]:
    """Of each head the delta, the cost, and which slots were assigned an object; and the network's cost."""
    layers, graph = case.heads, build_network(case.network, seed=0)
    inputs = [_input_of(case, layer) for layer in layers]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = [
            keras.Model(graph.outputs[layer.index - 1], graph.outputs[layer.index])(array)
            for layer, array in zip(layers, inputs, strict=True)
        ]
        value, heads = loss(case.network, outputs, labels(case), moment(case))
    batch = inputs[0].shape[0]
    for layer, head, gradient in zip(layers, heads, tape.gradient(value, inputs), strict=True):
        name = f"train/L{layer.index:03d}"
        delta = relayout(-batch * gradient.numpy(), "NHWC", "NCHW")
        delta = delta.reshape(batch, -1) if isinstance(layer, Detection) else delta
        yield case.compare(f"{name}_loss_delta", delta, DELTA)
        yield case.compare(f"{name}_cost", head.cost, COST)
        if isinstance(layer, Yolo) and f"{name}_class_ids" in case.trace:
            yield case.compare(f"{name}_class_ids", _assigned(head), Exact())
    cost = tf.add_n([head.cost for head in heads]) / len(heads)
    yield case.compare("train/network_cost", cost, COST)


def labels(case: Case) -> Truth | CellTruth:
    """The recorded truth: of [detection] the objects of its cells, else those of the image."""
    head = case.heads[0]
    if isinstance(head, Detection):
        side, width = head.side, 5 + head.classes  # is object, one-hot class, x, y, width, height
        cells = case.trace.array("truth", ("images", side * side, width), np.floating).astype(np.float32)
        cells = tf.constant(cells.reshape(-1, side, side, width))
        return CellTruth(cells[..., 0] != 0, cells[..., 1:-4], cells[..., -4:])
    # cx, cy, width, height, class, and maybe more
    rows = case.trace.array("truth", ("images", "truths", "numbers"), np.floating).astype(np.float32)
    valid = np.logical_and.accumulate(rows[..., 0] != 0, axis=1)  # [images, truths]; the list ends where cx is 0
    return Truth(tf.constant(rows[..., :4]), tf.constant(rows[..., 4].astype(np.int32)), tf.constant(valid))


def loss(
    network: Network, outputs: Sequence[Float[tf.Tensor, "batch ..."]], truth: Truth | CellTruth, moment: Moment
) -> tuple[Scalar, list[HeadLoss]]:
    """(what training minimises, what it is made of)."""
    head, rules = head_and_loss(network)
    if isinstance(truth, CellTruth):
        heads = [cell_loss(outputs[0], truth, head, rules)]
        return darknet_loss(outputs, heads)[0], heads
    value, _ = LOSSES[head.type](outputs, truth, head, rules, moment)
    return value, HEADS[head.type](outputs, truth, head, rules, moment)


def moment(case: Case) -> Moment:
    """When the trace was recorded: `meta/seen_at_forward` examples into training. It matters to [region] alone."""
    net = case.network.net
    is_region = isinstance(case.heads[0], Region)
    seen = int(case.trace.number("meta/seen_at_forward")) if is_region else 0
    step = max(1, seen // (net.mini_batch * net.subdivisions))  # Darknet has counted the batch before it computes
    return Moment(tf.constant(step, tf.int64), (net.height, net.width))


def _input_of(case: Case, head: Layer) -> tf.Tensor:
    """What the layer before a head gave it, [batch, rows, columns, channels]."""
    shape = ("batch", "channels", "rows", "columns")
    array = case.trace.array(f"train/L{head.index - 1:03d}_output", shape, np.floating)
    return tf.constant(relayout(array, "NCHW", "NHWC"), tf.float32)


def _assigned(head: HeadLoss) -> np.ndarray:
    """The class that each slot [image, anchor, row, column] is the best one for, -1 for none; the last truth counts."""
    claims, (batch, rows, columns, anchors) = head.targets.claims, head.targets.object.shape
    classes = np.full(batch * rows * columns * anchors, -1)
    images, truths, which = np.nonzero(claims.best)
    classes[claims.slot.numpy()[images, truths, which]] = claims.truth.classes.numpy()[images, truths]
    return classes.reshape(batch, rows, columns, anchors).transpose(0, 3, 1, 2).ravel()
