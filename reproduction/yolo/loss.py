"""The gradient that each head gives to the layer before it, and its cost (`loss/`).

The head takes the recorded output of the layer before it, so that nothing but the loss is compared.
"""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

from configs.yolo.heads import Head
from configs.yolo.losses import Loss
from losses.truth import Truth
from losses.yolo import HEAD_LOSS_PARTS, LOSSES
from losses.yolo.darknet.head_loss import HeadLoss, darknet_loss
from losses.yolo.darknet.yolov1 import CellTruth, cell_loss
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.build import build_network
from modeling.darknet.options import Layer
from modeling.darknet.sections import Detection, GaussianYolo, Region, Yolo
from official.core.task import Moment, Scalar
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.traces.compare import AbsoluteAndRelative, Exact, Relative
from reproduction.traces.trace import relayout
from reproduction.yolo.case import heads_of, network_of
from reproduction.yolo.loss_options import Options, options_of
from reproduction.yolo.mistakes.heads import Level, assignment_alternatives, delta_alternatives
from reproduction.yolo.restated.common import truths_of

DELTA = AbsoluteAndRelative(absolute=2e-6, relative=2e-6)
COST = Relative(bound=2e-6)


def same_kind(subject: Subject, case: Case) -> bool:
    """Whether the head is of the experiment's kind, and so are its box loss and its coordinates."""
    task = subject.experiment.task
    return _kind(task.model.head, task.loss) == _kind(*head_and_loss(network_of(case)))


def _kind(head: Head, loss: Loss) -> tuple:
    new_coords = any(getattr(level, "new_coords", False) for level in getattr(head, "levels", ()))
    return head.type, getattr(loss, "iou_loss", ""), new_coords


def deltas(case: Case, subject: Subject) -> Iterator[Row]:
    """Of each head the delta and the cost; and the network's cost.

    With the automatic gradient only the terms that equal Darknet's are compared (its file lists the others).
    """
    options = options_of(case, subject)
    if options.refused:
        yield case.skip("train", options.refused)
        return
    if options.differs:
        yield case.skip("options", options.differs)
    if options.is_automatic:
        yield from _terms_of_darknet(case, options)
        return
    inputs, tape, value, heads = _recorded_forward(case, options)
    batch = inputs[0].shape[0]
    for layer, head, gradient in zip(heads_of(case), heads, tape.gradient(value, inputs), strict=True):
        name = f"train/L{layer.index:03d}"
        delta = relayout(-batch * gradient.numpy(), "NHWC", "NCHW")
        delta = delta.reshape(batch, -1) if isinstance(layer, Detection) else delta
        clue = Clue("gradient", "NCHW" if delta.ndim == 4 else "", _suspected(case, layer))
        yield case.compare(f"{name}_loss_delta", delta, DELTA, clue=clue)
        yield case.compare(f"{name}_cost", head.cost, COST, clue=Clue("loss"))
    cost = tf.add_n([head.cost for head in heads]) / len(heads)
    yield case.compare("train/network_cost", cost, COST, clue=Clue("loss"))
    yield from _without_probable_classes(case, options)


def _terms_of_darknet(case: Case, options: Options) -> Iterator[Row]:
    """Of the automatic gradient, objectness and classes, and with mse the raw width and height."""
    inputs, tape, value, _ = _recorded_forward(case, options)
    for layer, gradient in zip(heads_of(case), tape.gradient(value, inputs), strict=True):
        name, batch = f"train/L{layer.index:03d}_loss_delta", gradient.shape[0]
        if layer.new_coords:
            yield case.skip(name, "with new_coords the automatic gradient goes through the sigmoid once more; own_loss")
            continue
        shape = (batch, len(layer.mask), -1, *gradient.shape[1:3])
        ours = (-batch * relayout(gradient.numpy(), "NHWC", "NCHW")).reshape(shape)
        recorded = case.trace.array(name, ("images", "channels", "rows", "columns"), np.floating).reshape(shape)
        terms = {"objectness": slice(4, 5)}
        if layer.cls_normalizer == 1:
            terms["classes"] = slice(5, None)
        if layer.iou_loss == "mse":
            terms["width and height"] = slice(2, 4)
        for term, entries in terms.items():
            clue = Clue("gradient")
            yield case.compare(f"{name}: {term}", ours[:, :, entries], DELTA, recorded[:, :, entries], clue)
        left = "its centres" if layer.iou_loss == "mse" else "its boxes"
        reason = "the automatic gradient is not Darknet's there; own_loss compares it with the formula"
        yield case.skip(f"{name}: {left}", reason)


def _without_probable_classes(case: Case, options: Options) -> Iterator[Row]:
    """Objectness where no class is probable: then nothing is ignored, however it overlaps (yolo_layer.c).

    In every recorded case some class of every prediction is above 0.25. What changes without one is known: what was
    ignored, and got nothing, is background.
    """
    layers = [layer for layer in heads_of(case) if _has_plain_objectness(layer)]
    if len(layers) < len(heads_of(case)):
        return
    inputs, tape, value, _ = _recorded_forward(case, options, _with_improbable_classes)
    for layer, array, gradient in zip(heads_of(case), inputs, tape.gradient(value, inputs), strict=True):
        name, batch = f"train/L{layer.index:03d}_loss_delta", array.shape[0]
        objectness = slice(4, None, array.shape[3] // len(layer.mask))
        ours = -batch * relayout(gradient.numpy(), "NHWC", "NCHW")[:, objectness]
        recorded = case.trace.array(name, ("images", "channels", "rows", "columns"), np.floating)[:, objectness]
        raw = relayout(array.numpy(), "NHWC", "NCHW")[:, objectness].astype(float)
        expected = np.where(recorded == 0, -layer.obj_normalizer / (1 + np.exp(-raw)), recorded)
        clue = Clue("gradient", "", {"ignore_rule without the class's probability": lambda one=recorded: one})
        yield case.compare(f"{name} of objectness, no class above 0.25", ours, DELTA, expected, clue)


def _has_plain_objectness(layer: Layer) -> bool:
    return isinstance(layer, Yolo) and layer.truth_thresh >= 1 and not (layer.new_coords or layer.objectness_smooth)


def _with_improbable_classes(layer: Layer, array: Array) -> Array:
    """[batch, channels, rows, columns], with low logits of all classes."""
    entries = array.reshape(array.shape[0], len(layer.mask), -1, *array.shape[2:]).copy()
    entries[:, :, 5:] = -8
    return entries.reshape(array.shape)


def assignment(case: Case, subject: Subject) -> Iterator[Row]:
    """Of each head how many slots of an image and anchor have an object, its class, and which are asked for a box."""
    options = options_of(case, subject)
    if options.refused:
        yield case.skip("train", options.refused)
        return
    *_, heads = _recorded_forward(case, options)
    for layer, head in zip(heads_of(case), heads, strict=True):
        name = f"train/L{layer.index:03d}"
        if isinstance(layer, Yolo) and f"{name}_class_ids" in case.trace:
            ours, shape = _assigned(head), head.targets.object.shape
            expected = case.trace.array(f"{name}_class_ids", ours.shape, np.integer)
            suspected = _assigned_otherwise(case, layer)
            counts = {cause: lambda one=one: (one() >= 0).sum(axis=(2, 3)) for cause, one in suspected.items()}
            positives = [(ids.reshape(shape[0], shape[3], -1) >= 0).sum(axis=-1) for ids in (ours, expected)]
            yield case.compare(f"{name}_positives", positives[0], Exact(), positives[1], Clue("targets", "", counts))
            classes = {cause: lambda one=one: one().ravel() for cause, one in suspected.items()}
            yield case.compare(f"{name}_class_ids", ours, Exact(), clue=Clue("targets", "", classes))
        if not isinstance(layer, Yolo | GaussianYolo) or layer.truth_thresh < 1:  # then what overlaps is asked, too
            yield case.skip(f"{name}_box_slots", f"this [{layer.section}]'s delta does not tell them; it is compared")
            continue
        delta = case.trace.array(f"{name}_loss_delta", ("batch", "channels", "rows", "columns"), np.floating)
        batch, _, *grid = delta.shape
        entries = delta.reshape(batch, len(layer.mask), -1, *grid)  # [batch, anchors, entries, rows, columns]
        asked = np.any(entries[:, :, : 8 if isinstance(layer, GaussianYolo) else 4] != 0, axis=2)
        yield case.compare(f"{name}_box_slots", _claimed(head), Exact(), asked, Clue("targets", "NAHW"))


def _recorded_forward(
    case: Case, options: Options, change: Callable[[Layer, Array], Array] = lambda layer, array: array
) -> tuple[list[tf.Tensor], tf.GradientTape, tf.Tensor, list[HeadLoss]]:
    """(what the layer before each head gave it, the tape from there to the loss, the loss, what it is made of).

    change: of what is given to a head, [batch, channels, rows, columns].
    """
    graph = build_network(network_of(case), seed=0)
    inputs = [_input_of(case, layer, graph.outputs[layer.index - 1].shape, change) for layer in heads_of(case)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = [
            keras.Model(graph.outputs[layer.index - 1], graph.outputs[layer.index])(array)
            for layer, array in zip(heads_of(case), inputs, strict=True)
        ]
        value, heads = loss(options, outputs, labels(case), moment(case))
    return inputs, tape, value, heads


def labels(case: Case) -> Truth | CellTruth:
    """The recorded truth: of [detection] the objects of its cells, else those of the image."""
    head = heads_of(case)[0]
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
    options: Options, outputs: Sequence[Float[tf.Tensor, "batch ..."]], truth: Truth | CellTruth, moment: Moment
) -> tuple[Scalar, list[HeadLoss]]:
    """(what training minimises, what it is made of)."""
    head, rules = options.head, options.rules
    if isinstance(truth, CellTruth):
        heads = [cell_loss(outputs[0], truth, head, rules)]
        return darknet_loss(outputs, heads)[0], heads
    value, _ = LOSSES[head.type](outputs, truth, head, rules, moment)
    return value, HEAD_LOSS_PARTS[head.type](outputs, truth, head, rules, moment)


def moment(case: Case) -> Moment:
    """When the trace was recorded: `meta/seen_at_forward` examples into training. It matters to [region] alone."""
    net = network_of(case).net
    is_region = isinstance(heads_of(case)[0], Region)
    seen = int(case.trace.number("meta/seen_at_forward")) if is_region else 0
    step = max(1, seen // (net.mini_batch * net.subdivisions))  # Darknet has counted the batch before it computes
    return Moment(tf.constant(step, tf.int64), (net.height, net.width))


def _input_of(
    case: Case, head: Layer, shape: tuple[int | None, ...], change: Callable[[Layer, Array], Array]
) -> tf.Tensor:
    """What the layer before a head gave it, [batch, rows, columns, channels]; `shape` is that layer's of ours."""
    _, *sides, channels = shape
    name = f"train/L{head.index - 1:03d}_output"
    array = case.trace.array(name, ("batch", channels, *(sides or ("rows", "columns"))), np.floating)
    return tf.constant(relayout(change(head, array), "NCHW", "NHWC"), tf.float32)


def _rule(case: Case, layer: Yolo) -> Level:
    """What a head was given, for hints."""
    head, rules = head_and_loss(network_of(case))
    raw = of_slots(case, layer, f"train/L{layer.index - 1:03d}_output")
    size = network_of(case).net.height, network_of(case).net.width
    return Level.of(head, heads_of(case).index(layer), rules, raw, size, truths_of(labels(case)))


def of_slots(case: Case, layer: Yolo, name: str) -> Float[np.ndarray, "batch rows columns anchors entries"]:
    """A recorded [batch, channels, rows, columns] as [batch, rows, columns, anchors, entries]."""
    array = case.trace.array(name, ("images", "channels", "rows", "columns"), np.floating)
    return relayout(array.reshape(len(array), len(layer.mask), -1, *array.shape[2:]), "NAEHW", "NHWAE")


def _assigned_otherwise(case: Case, layer: Yolo) -> Alternatives:
    """Classes of a head's slots [image, anchor, row, column], with a known mistake."""
    return assignment_alternatives(_rule(case, layer))


def _suspected(case: Case, layer: Layer) -> Alternatives:
    """A head's delta with a known mistake; nothing where no formula is written down for it."""
    if not isinstance(layer, Yolo) or layer.iou_loss == "mse" or layer.new_coords:
        return {}
    name = f"train/L{layer.index:03d}_loss_delta"
    others = delta_alternatives(_rule(case, layer), of_slots(case, layer, name))
    shape = case.trace[name].shape
    return {cause: lambda one=one: relayout(one(), "NHWAE", "NAEHW").reshape(shape) for cause, one in others.items()}


def _assigned(head: HeadLoss) -> np.ndarray:
    """The class that each slot [image, anchor, row, column] is the best one for, -1 for none; the last truth counts."""
    claims, (batch, rows, columns, anchors) = head.targets.claims, head.targets.object.shape
    classes = np.full(batch * rows * columns * anchors, -1)
    images, truths, which = np.nonzero(claims.best)
    classes[claims.slot.numpy()[images, truths, which]] = claims.truth.classes.numpy()[images, truths]
    return classes.reshape(batch, rows, columns, anchors).transpose(0, 3, 1, 2).ravel()


def _claimed(head: HeadLoss) -> np.ndarray:
    """Slots [image, anchor, row, column] that any truth claims, the best one or one similar enough."""
    claims, (batch, rows, columns, anchors) = head.targets.claims, head.targets.object.shape
    claimed = np.zeros(batch * rows * columns * anchors, bool)
    claimed[claims.slot.numpy()[claims.claimed.numpy()]] = True
    return claimed.reshape(batch, rows, columns, anchors).transpose(0, 3, 1, 2)
