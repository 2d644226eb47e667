"""Which class is taken for which: detections matched to truths whatever their class."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from pycocotools import mask

SCORE_FLOOR, IOU_THRESHOLD = 0.25, 0.5  # detections that a user would be shown; COCO's lowest overlap


def confusion_matrix(
    ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]], category_ids: Sequence[int]
) -> Int64[np.ndarray, "truth found"]:
    """Counts; row: the truth's class, column: the detection's. The last of each means nothing there.

    Of an image, the detections from SCORE_FLOOR on, best first, take the free truth that they overlap most, at least by
    IOU_THRESHOLD. What is left over is missed (last column) or false (last row). A crowd is no truth, and a detection
    of which half lies in one is not false.

    Args:
        ground_truth: COCO JSON as a dict.
        detections: COCO results.
        category_ids: the data set's own id of each row and column.
    """
    row_of = {category: number for number, category in enumerate(category_ids)}
    nothing = len(category_ids)
    counts = np.zeros([nothing + 1, nothing + 1], np.int64)
    truths, found = _by_image(ground_truth["annotations"]), _by_image(detections)
    for image in [entry["id"] for entry in ground_truth["images"]]:
        shown = sorted((d for d in found[image] if d["score"] >= SCORE_FLOOR), key=lambda d: -d["score"])
        rows = [row_of[truth["category_id"]] for truth in truths[image]]
        crowd = np.array([bool(truth.get("iscrowd", 0)) for truth in truths[image]], bool)  # [truths]
        overlaps = _overlaps(shown, truths[image], crowd)
        free = ~crowd
        for detection, overlap in zip(shown, overlaps, strict=True):
            column = row_of[detection["category_id"]]
            best = int(np.argmax(np.where(free, overlap, -1))) if free.any() else -1
            if best >= 0 and overlap[best] >= IOU_THRESHOLD:
                free[best] = False
                counts[rows[best], column] += 1
            elif not (overlap[crowd] >= IOU_THRESHOLD).any():
                counts[nothing, column] += 1
        for number in np.flatnonzero(free):
            counts[rows[number], nothing] += 1
    return counts


def _by_image(entries: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        found[entry["image_id"]].append(entry)
    return found


def _overlaps(
    detections: Sequence[dict[str, Any]], truths: Sequence[dict[str, Any]], crowd: np.ndarray
) -> Float[np.ndarray, "detections truths"]:
    """IoU; with a crowd, the part of the detection that lies in it."""
    if not detections or not truths:
        return np.zeros([len(detections), len(truths)])
    boxes, others = ([entry["bbox"] for entry in entries] for entries in (detections, truths))  # xywh in pixels
    return np.asarray(mask.iou(boxes, others, crowd.astype(np.uint8)))
