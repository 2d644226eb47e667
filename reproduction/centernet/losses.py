"""The loss of recorded maps against recorded targets, and its gradient by every map (`loss_*`)."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from configs.centernet.task import CenterNetHead, CenterNetLoss
from losses.centernet.loss import loss_against
from losses.centernet.targets import DenseSize, Targets
from modeling.centernet.decode import Stack
from reproduction.centernet.mistakes import term_alternatives
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import OfAbsmax, Relative
from reproduction.traces.trace import Trace, TraceError, relayout

BOUND = 1e-5
TERMS = ("loss", "hm_loss", "wh_loss", "off_loss")
# Of the original's options those that change nothing here: sizes come as the targets have them, weights are recorded.
NO_EFFECT = {"--cat_spec_wh", "--dense_wh", "--norm_wh", "--hm_weight", "--wh_weight", "--off_weight", "num_stacks"}


def losses(case: Case) -> Iterator[Row]:
    """The terms, and the gradients beside float32 (of the largest) and float64 (each number)."""
    trace = case.trace
    stacks, targets, dense = _maps(trace), recorded_targets(trace), dense_size(trace)
    with tf.GradientTape() as tape:
        tape.watch(stacks)
        total, parts = loss_against(stacks, targets, dense, recorded_head(trace), loss_options(trace))
    gradients = tape.gradient(total, stacks)
    for precision in ("f32", "f64"):
        clues = _clues(trace, precision, targets)
        for name, value in (parts | {"loss": total}).items():  # the parts say more
            if name in TERMS:
                yield case.compare(f"{precision}/{name}", value, Relative(bound=BOUND), clue=clues.get(name))
        if precision == "f64" and not any(name.startswith("f64/stack") for name in trace):
            yield case.skip("f64/stack*", "gradients are not recorded in float64")
            continue
        tolerance = (OfAbsmax if precision == "f32" else Relative)(bound=BOUND)
        for number, stack in enumerate(gradients):
            for part, gradient in zip(Stack._fields, stack, strict=True):
                name = f"{precision}/stack{number}/grad/{part}"
                yield case.compare(name, relayout(gradient.numpy(), "NHWC", "NCHW"), tolerance)


def _clues(trace: Trace, precision: str, targets: Targets) -> dict[str, Clue]:
    """What the terms would be with a known mistake."""
    terms = {name: float(trace.number(f"{precision}/{name}")) for name in TERMS if f"{precision}/{name}" in trace}
    options = loss_options(trace)
    weights = {f"{name}_loss": getattr(options, f"{name}_weight") for name in ("hm", "wh", "off")}
    weights = {name: weight for name, weight in weights.items() if name in terms}
    cells, objects = int((targets.hm.numpy() == 1).sum()), int(targets.reg_mask.numpy().sum())
    found = term_alternatives(terms, weights, cells, objects) if "hm_loss" in terms else {}
    return {name: Clue("loss", "", one) for name, one in found.items()}


def _maps(trace: Trace) -> list[Stack]:
    stacks = sorted({name.split("/")[0] for name in trace if name.startswith("stack")})
    if not stacks or stacks != [f"stack{number}" for number in range(len(stacks))]:
        raise TraceError(f"{trace.origin}: expected stack0/raw/hm, stack1/raw/hm, ...; found stacks {stacks}")
    return [Stack(*(maps(trace, f"{stack}/raw/{part}") for part in Stack._fields)) for stack in stacks]


def maps(trace: Trace, name: str) -> Float32[tf.Tensor, "batch rows columns channels"]:
    """A recorded [batch, channels, rows, columns] as float32 [batch, rows, columns, channels]."""
    array = trace.array(name, ("batch", "channels", "rows", "columns"), np.floating)
    return tf.constant(relayout(array, "NCHW", "NHWC"), tf.float32)


def loss_options(trace: Trace) -> CenterNetLoss:
    """From the original's options `meta/options` and weights `meta/weights_hm_wh_off`; its defaults without them."""
    options = trace.text("meta/options").split() if "meta/options" in trace else []
    unknown = [option for option in options if option.startswith("--") and option not in NO_EFFECT | {"--reg_loss"}]
    if unknown:
        raise TraceError(f"{trace.origin}: the loss has no option {unknown[0]}")
    given: dict = {"dense_wh": "target/dense_wh" in trace}
    if "--reg_loss" in options[:-1]:
        given["reg_loss"] = options[options.index("--reg_loss") + 1]
    if "meta/weights_hm_wh_off" in trace:
        weights = trace.array("meta/weights_hm_wh_off", (3,), np.floating).tolist()
        given |= dict(zip(("hm_weight", "wh_weight", "off_weight"), weights, strict=True))
    return CenterNetLoss(**given)


def recorded_head(trace: Trace) -> CenterNetHead:
    """What the maps hold, by the targets."""
    return CenterNetHead(cat_spec_wh="target/cat_spec_wh" in trace)


def recorded_targets(trace: Trace) -> Targets:
    """`target/*`; with dense sizes, `wh` is not asked for and 0."""
    mask = trace.array("target/reg_mask", ("batch", "truths")).astype(bool)
    classes = np.zeros(mask.shape, np.int32)
    if "target/cat_spec_wh" in trace:
        columns = trace.array("target/cat_spec_wh", (*mask.shape, "columns"), np.floating)
        classes = trace.array("target/cat_spec_mask", columns.shape).argmax(axis=2) // 2
        pairs = columns.reshape(*mask.shape, -1, 2)
        wh = np.take_along_axis(pairs, classes[..., np.newaxis, np.newaxis], axis=2)[:, :, 0]
    elif "target/dense_wh" in trace:
        wh = np.zeros((*mask.shape, 2))
    else:
        wh = trace.array("target/wh", (*mask.shape, 2), np.floating)
    return Targets(
        hm=maps(trace, "target/hm"),
        wh=tf.constant(wh, tf.float32),
        reg=tf.constant(trace.array("target/reg", (*mask.shape, 2), np.floating), tf.float32),
        ind=tf.constant(trace.array("target/ind", mask.shape, np.integer), tf.int32),
        reg_mask=tf.constant(mask),
        classes=tf.constant(classes, tf.int32),
    )


def dense_size(trace: Trace) -> DenseSize | None:
    """What the size head is for with `--dense_wh`; the original has its weight once for width, once for height."""
    if "target/dense_wh" not in trace:
        return None
    return DenseSize(maps(trace, "target/dense_wh"), maps(trace, "target/dense_wh_mask")[..., 0])
