"""From maps to boxes: peaks, boxes in the image, flip test, and the merge of test scales (`decode_*`)."""

import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.centernet.task import CenterNetHead
from modeling.centernet.decode import (
    Maps,
    Peaks,
    average_flipped,
    best_peaks,
    decode,
    maps_of,
    suppress_neighbours,
    to_image,
)
from modeling.centernet.soft_nms import Rows, merge_scales, soft_nms
from official.vision.boxes import swap_xy
from reproduction.centernet.losses import maps
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, Exact
from reproduction.traces.trace import Trace, TraceError, relayout

SCORES = Absolute(bound=1e-6)
BOXES = Absolute(bound=1e-3)  # pixels
MOST = 100  # detections of an image, where the trace does not say


def decoding(case: Case) -> Iterator[Row]:
    """What a file holds says which of the four it is."""
    names = set(case.trace)
    if any(name.startswith(("soft", "merge/")) for name in names):
        yield from _scales(case)
    elif names & {"averaged_hm", "averaged_wh"}:
        yield from _flip_test(case)
    elif names & {"hm_logits", "hm_sigmoid", "detections_without_reg"}:
        yield from _peaks(case)
    elif names & {"hm", "nms"}:
        kept = suppress_neighbours(maps(case.trace, "hm"))
        yield case.compare("nms", relayout(kept.numpy(), "NHWC", "NCHW"), Exact())
    else:
        raise TraceError(f"{case.path}: holds nothing that is decoded; docs/traces.md says what could be")


def _peaks(case: Case) -> Iterator[Row]:
    """From raw maps to detections, in output pixels and in pixels of images."""
    trace, count = case.trace, int(case.trace.number("meta/K"))
    logits, wh, reg = (maps(trace, name) for name in ("hm_logits", "wh", "reg"))
    heat = tf.sigmoid(logits)
    yield case.compare("hm_sigmoid", relayout(heat.numpy(), "NHWC", "NCHW"), SCORES)
    # Of the recorded probabilities: whether two neighbours are equal hangs on their last bit.
    kept = relayout(suppress_neighbours(maps(trace, "hm_sigmoid")).numpy(), "NHWC", "NCHW")
    if trace["nms_heat"].size:
        yield case.compare("nms_heat", kept, Exact())
    yield case.compare("nms_nonzero", np.count_nonzero(kept, keepdims=True).ravel(), Exact())
    yield from _cells(case, heat, count)
    peaks = best_peaks(Maps(heat, wh, reg), count)
    yield from detections(case, "detections", peaks)
    yield from detections(case, "detections_without_reg", best_peaks(Maps(heat, wh, None), count))
    yield from _decoded(case, [logits, wh, reg], count)
    for post in sorted({name.split("/")[0] for name in trace if name.startswith("post")}):
        yield from _in_image(case, post, peaks)


def _cells(case: Case, heat: tf.Tensor, count: int) -> Iterator[Row]:
    """Where the peaks are: boxes without size, half a cell further."""
    peaks = best_peaks(Maps(heat, tf.zeros([*heat.shape[:3], 2]), None), count)
    x, y = np.moveaxis(peaks.boxes.numpy()[..., :2] - 0.5, -1, 0)
    yield case.compare("topk/score", peaks.scores, SCORES)
    at, rows = case.trace.array("topk/ind", tuple(peaks.scores.shape), np.number).astype(int), heat.shape[1]
    swapped = {"x": at % rows, "y": at // rows, "ind": at // rows * heat.shape[2] + at % rows}
    for name, ours in {"class": peaks.classes, "x": x, "y": y, "ind": y * heat.shape[2] + x}.items():
        others = {"height_width_swapped cells": lambda name=name: swapped[name]} if name in swapped else {}
        yield case.compare(f"topk/{name}", ours, Exact(), clue=Clue("targets", "", others))


def detections(case: Case, name: str, peaks: Peaks) -> Iterator[Row]:
    """Beside recorded rows of xyxy, score and class, [batch, peaks, 6]."""
    recorded = case.trace.array(name, (*peaks.scores.shape, 6), np.floating)
    yield case.compare(f"{name}/boxes", peaks.boxes, BOXES, recorded[..., :4])
    yield case.compare(f"{name}/scores", peaks.scores, SCORES, recorded[..., 4])
    yield case.compare(f"{name}/classes", peaks.classes, Exact(), recorded[..., 5])


def _decoded(case: Case, outputs: list[tf.Tensor], count: int) -> Iterator[Row]:
    """The same through `decode`, from outputs of two stacks, of which the last counts."""
    rows, columns = outputs[0].shape[1:3]
    both, head = [tf.zeros_like(part) for part in outputs] + outputs, CenterNetHead(K=count)
    boxes, scores = decode(maps_of(both, head), head)
    boxes = swap_xy(boxes) * tf.constant([columns, rows] * 2, tf.float32)
    best = Peaks(boxes, tf.reduce_sum(scores, axis=-1), tf.argmax(scores, axis=-1, output_type=tf.int32))
    for row in detections(case, "detections", best):
        yield row.model_copy(update={"quantity": f"{row.quantity} (decode)"})


def _in_image(case: Case, post: str, peaks: Peaks) -> Iterator[Row]:
    """The first image's boxes in pixels of an image of some size, by class, and there the best first."""
    trace = case.trace
    centre = trace.array(f"{post}/c", (2,), np.floating)
    scale = np.ravel(trace.array(f"{post}/s", dtype=np.floating))[:1]  # the original uses no more
    columns, rows = trace.array(f"{post}/out_wh", (2,), np.integer).tolist()
    boxes = to_image(
        peaks.boxes[:1], tf.constant(centre[np.newaxis], tf.float32), tf.constant(scale, tf.float32), (rows, columns)
    )[0]
    classes, scores = peaks.classes[0].numpy(), peaks.scores[0].numpy()
    order = np.argsort(classes, kind="stable")
    name = f"{post}/x1y1x2y2_score_class0"
    recorded = trace.array(name, (len(order), 6), np.floating)
    yield case.compare(f"{name}/boxes", boxes.numpy()[order], BOXES, recorded[:, :4])
    yield case.compare(f"{name}/scores", scores[order], SCORES, recorded[:, 4])
    yield case.compare(f"{name}/classes", classes[order], Exact(), recorded[:, 5])


def _flip_test(case: Case) -> Iterator[Row]:
    """A batch of an image and its mirror image: the maps' average, and what it is decoded to."""
    trace = case.trace
    both = (tf.sigmoid(maps(trace, "hm")), maps(trace, "wh"), maps(trace, "reg"))
    averaged = average_flipped(Maps(*(part[:1] for part in both)), Maps(*(part[1:] for part in both)))
    yield case.compare("averaged_hm", relayout(averaged.heat.numpy(), "NHWC", "NCHW"), SCORES)
    yield case.compare("averaged_wh", relayout(averaged.wh.numpy(), "NHWC", "NCHW"), BOXES)
    count = trace.array("detections", (1, "peaks", 6)).shape[1]
    yield from detections(case, "detections", best_peaks(averaged, count))


def _scales(case: Case) -> Iterator[Row]:
    """Soft-NMS of one list of boxes (`soft0`, ...), and of those of several scales and classes (`merge`)."""
    trace = case.trace
    for soft in sorted({name.split("/")[0] for name in trace if name.startswith("soft")}):
        given = _boxes(trace, f"{soft}/in")
        boxes, scores, running = soft_nms(given[:, :4], given[:, 4])
        yield from _rows(case, f"{soft}/out_inplace", boxes, scores)
        yield case.compare(f"{soft}/n_keep", running, Exact())
    if any(name.startswith("merge/") for name in trace):
        yield from _merge(case)


def _merge(case: Case) -> Iterator[Row]:
    trace = case.trace
    found = [re.fullmatch(r"merge/(?:in_scale([0-9]+)|out)_class([0-9]+)", name) for name in trace]
    classes = sorted({int(match[2]) for match in found if match})  # from 1
    scales = sorted({int(match[1]) for match in found if match and match[1]})
    if not classes or not scales or classes[0] < 1:
        raise TraceError(f"{case.path}: expected merge/in_scale0_class1, ... and merge/out_class1, ...")
    per_scale = []
    for scale in scales:
        parts = [_boxes(trace, f"merge/in_scale{scale}_class{number}") for number in classes]
        rows, numbers = np.concatenate(parts), np.repeat(np.array(classes) - 1, [len(part) for part in parts])
        per_scale.append(Rows(rows[:, :4], rows[:, 4], numbers))
    most = int(trace.number("meta/K")) if "meta/K" in trace else MOST
    merged = merge_scales(per_scale, classes[-1], most)
    for number in classes:
        own = merged.classes == number - 1
        yield from _rows(case, f"merge/out_class{number}", merged.boxes[own], merged.scores[own])


def _boxes(trace: Trace, name: str) -> np.ndarray:
    """Rows of xyxy in pixels and a score."""
    return trace.array(name, ("boxes", 5), np.floating).astype(np.float32)


def _rows(case: Case, name: str, boxes: np.ndarray, scores: np.ndarray) -> Iterator[Row]:
    recorded = _boxes(case.trace, name)
    yield case.compare(f"{name}/boxes", boxes, BOXES, recorded[:, :4])
    yield case.compare(f"{name}/scores", scores, SCORES, recorded[:, 4])
