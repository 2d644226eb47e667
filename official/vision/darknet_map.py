"""Darknet's own mean average precision, as `darknet detector map` prints it (detector.c validate_detector_map).

It is not COCO's, nor VOC's. Which truth a detection belongs to is decided for each detection alone: the one of its
class that it overlaps most, above the threshold, whether or not a better detection has it already. All detections are
then ranked by probability; the first of a truth is true, every other false. The mean is over all classes: one that has
no object counts as 0. There are no crowds, no size classes, no limit on detections.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

PROBABILITY_FLOOR = 0.005  # below it a detection does not exist
CONFIDENCE = 0.25  # of the counts that are printed beside the mean
RECALL_POINTS = {"auc": 0, "11": 11, "101": 101}  # -points 0 (area under the curve), 11, 101


class Labelled(NamedTuple):
    """Boxes of all images, one after the other."""

    images: Int[np.ndarray, " n"]  # any number that names the image
    classes: Int[np.ndarray, " n"]  # from 0
    boxes: Float32[np.ndarray, "n cxcywh=4"]  # cxcywh relative to the image, not clipped to it


def darknet_map(
    truth: Labelled, found: Labelled, probabilities: Float32[np.ndarray, " n"], classes: int, iou_threshold: float = 0.5
) -> dict[str, Any]:
    """Average precisions (0..1) of detections after NMS, by the area under the curve and at 11 and 101 recalls.

    Args:
        truth: all objects, as a label file holds them.
        found: detections, one row for each (box, class). Equal probabilities rank in this order; so do, for the counts
            at a confidence, the detections of one truth. (Darknet: in the order its sorting by class leaves behind.)
        probabilities: of `found`; those not above 0.005 are left out.
        classes: how many there are.
        iou_threshold: a match has more than this.

    Returns:
        "auc", "11", "101": the means. "per_class": the same keys, average precision of each class [classes].
        "at_0.25": TP, FP, FN, precision, recall, F1, average_iou of the detections above that probability; a quotient
        without a denominator is 0.

    Raises:
        ValueError: a box is of a class that there is not.
    """
    strange = set(np.concatenate([truth.classes, found.classes]).tolist()) - set(range(classes))
    if strange:
        raise ValueError(f"darknet_map: boxes of class {min(strange)}; expected 0 to {classes - 1}")
    kept = probabilities > np.float32(PROBABILITY_FLOOR)
    found, probabilities = Labelled(*(part[kept] for part in found)), probabilities[kept]
    matched, overlap = _match(truth, found, np.float32(iou_threshold))
    order = np.argsort(-probabilities, kind="stable")
    hit = np.zeros(len(order), bool)  # in the order of rank
    hit[_first_of_each(matched[order])] = True
    objects = np.bincount(truth.classes, minlength=classes).tolist()
    curves = [_curve(hit[found.classes[order] == number], objects[number]) for number in range(classes)]
    per_class = {
        name: np.array([_average_precision(*curve, points) for curve in curves])
        for name, points in RECALL_POINTS.items()
    }
    means: dict[str, Any] = {name: float(sum(values) / classes) for name, values in per_class.items()}
    return {
        **means,
        "per_class": per_class,
        f"at_{CONFIDENCE}": _at_confidence(matched, overlap, probabilities, len(truth.classes)),
    }


def box_iou(
    a: Float32[np.ndarray, "*a cxcywh=4"], b: Float32[np.ndarray, "*b cxcywh=4"]
) -> Float32[np.ndarray, "*pairs"]:
    """Darknet's box_iou (box.c) of cxcywh boxes that broadcast, in its float32 operations; 0 where they do not meet."""
    ends = [(boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2) for boxes in (a, b)]
    sides = np.minimum(ends[0][1], ends[1][1]) - np.maximum(ends[0][0], ends[1][0])  # [*pairs, 2]
    intersection = np.where((sides < 0).any(axis=-1), np.float32(0), sides[..., 0] * sides[..., 1])
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection
    meet = (intersection != 0) & (union != 0)
    return np.where(meet, intersection / np.where(meet, union, np.float32(1)), np.float32(0))


def _match(
    truth: Labelled, found: Labelled, threshold: np.float32
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Of each detection: the row of its truth, -1 for none, and their IoU."""
    matched, overlap = np.full(len(found.images), -1), np.zeros(len(found.images), np.float32)
    order = np.argsort(truth.images, kind="stable")
    images, detections = truth.images[order], np.argsort(found.images, kind="stable")
    for rows in np.split(detections, np.flatnonzero(np.diff(found.images[detections])) + 1):
        if not len(rows):
            continue
        image = found.images[rows[0]]
        objects = order[np.searchsorted(images, image) : np.searchsorted(images, image, "right")]
        if len(objects):
            ious = box_iou(found.boxes[rows, np.newaxis], truth.boxes[objects])  # [detections, objects]
            allowed = (found.classes[rows, np.newaxis] == truth.classes[objects]) & (ious > threshold)
            ious = np.where(allowed, ious, np.float32(0))
            overlap[rows] = ious.max(axis=1)
            matched[rows] = np.where(allowed.any(axis=1), objects[ious.argmax(axis=1)], -1)  # of equals the first
    return matched, overlap


def _first_of_each(matched: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " truths"]:
    """The row that names each truth first."""
    truths, first = np.unique(matched, return_index=True)
    return first[truths >= 0]


def _curve(hit: np.ndarray, objects: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Recall and precision after each detection of a class, the most probable first."""
    true = np.cumsum(hit)
    recall = true / objects if objects else np.zeros(len(hit))
    return recall, true / np.arange(1, len(hit) + 1)


def _average_precision(recall: Float64[np.ndarray, " n"], precision: Float64[np.ndarray, " n"], points: int) -> float:
    """With 0 points: the area under the curve, whose precision is the best at this recall or beyond."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if points == 0:
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    reached = np.searchsorted(recall, np.arange(points) / (points - 1))  # the first detection with that recall or more
    return float(np.sum(np.append(best, 0.0)[reached]) / points)


def _at_confidence(
    matched: Int64[np.ndarray, " n"],
    overlap: Float32[np.ndarray, " n"],
    probabilities: Float32[np.ndarray, " n"],
    objects: int,
) -> dict[str, Any]:
    """Counts of the detections above CONFIDENCE. A truth's first detection takes it, however improbable that is."""
    sure = probabilities > np.float32(CONFIDENCE)
    true = np.zeros(len(matched), bool)
    true[_first_of_each(matched)] = True
    true &= sure
    hits, claims = int(true.sum()), int(sure.sum())
    precision, recall = hits / max(claims, 1), hits / max(objects, 1)
    return {
        "TP": hits,
        "FP": claims - hits,
        "FN": objects - hits,
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "average_iou": float(overlap[true].astype(np.float64).sum()) / max(claims, 1),
    }
