"""Darknet's own score of detections, which may have been taken for COCO's AP."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from official.vision.darknet_map import Labelled, darknet_map
from official.vision.evaluator import darknet_truth
from reproduction.traces.causes.scores import Found


def darknets_map(truth: dict[str, Any], found: Found) -> float:
    """Darknet's mAP at IoU 0.5, by the area under the curve. truth, found: COCO's ground truth and results."""
    ids = sorted(category["id"] for category in truth["categories"])
    sides = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    index = {number: at for at, number in enumerate(ids)}
    images = np.array([one["image_id"] for one in found], np.int64)
    size = np.array([sides[image] for image in images.tolist()], float).reshape(-1, 2)
    xywh = np.array([one["bbox"] for one in found], float).reshape(-1, 4)
    centred = np.concatenate([(xywh[:, :2] + xywh[:, 2:] / 2) / size, xywh[:, 2:] / size], axis=1)
    classes = np.array([index[one["category_id"]] for one in found], np.int64)
    scores = np.array([one["score"] for one in found], np.float32)
    labelled = Labelled(images, classes, centred.astype(np.float32))
    return float(darknet_map(darknet_truth(truth, ids), labelled, scores, len(ids))["auc"])


OTHER_SCORES: Mapping[str, Callable[[dict[str, Any], Found], float]] = {"Darknet's mAP": darknets_map}
