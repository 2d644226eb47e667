"""COCO's metrics by pycocotools, on any ground truth with boxes."""

import contextlib
import io
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Integer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from official.vision.boxes import yxyx_to_xywh
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol

METRIC = f"pycocotools {version('pycocotools')} bbox"
_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}


def coco_results(
    detections: Detections,
    image_ids: Integer[np.ndarray, " b"],
    image_sizes: Integer[np.ndarray, "b 2"],
    category_ids: Sequence[int],
    protocol: EvaluationProtocol,
) -> list[dict]:
    """COCO results (image_id, category_id, bbox = x, y, width, height in pixels, score) of a batch.

    Args:
        detections: boxes yxyx relative to the original images.
        image_ids: the data set's own; a negative one marks a padding row, which is left out.
        image_sizes: (height, width) of the originals in pixels.
        category_ids: the data set's own id of each contiguous class id.
        protocol: whether boxes are clipped to the images, and how all numbers are rounded.
    """
    boxes, scores, classes, valid = (np.asarray(part) for part in detections)
    height, width = np.asarray(image_sizes, np.float64).T  # [b] each
    sides = np.stack([height, width, height, width], axis=-1)[:, np.newaxis]  # [b, 1, 4]
    boxes = boxes.astype(np.float64)
    pixels = (boxes.clip(0, 1) if protocol.clip_boxes else boxes) * sides  # [b, n, 4]
    bbox = yxyx_to_xywh(tf.constant(pixels)).numpy()
    return [
        {
            "image_id": int(image_ids[image]),
            "category_id": int(category_ids[classes[image, row]]),
            "bbox": [protocol.rounded(float(number)) for number in bbox[image, row]],
            "score": protocol.rounded(float(scores[image, row])),
        }
        for image, row in np.argwhere(valid)
        if image_ids[image] >= 0
    ]


def evaluate_coco(ground_truth: dict, detections: list[dict], max_dets: int = 100) -> dict:
    """AP, AP50, AP75, APs, APm, APl, AR, AR1, AR10, ARs, ARm, ARl (0..1), and "per_class": {name: {AP, AP50}}.

    As COCO defines them (AP without more: mean over IoU 0.50:0.95 and over the classes that occur). A number that the
    ground truth does not define, such as APs without small objects or the AP of a class without objects, is -1, as in
    pycocotools.

    Args:
        ground_truth: COCO JSON as a dict: images, categories, annotations (`area` and `iscrowd` may be missing). Not
            changed.
        detections: COCO results, see `coco_results`. All images of `ground_truth` count, also those without a
            detection.
        max_dets: the best detections of an image that count (COCO: 100).

    Raises:
        ValueError: a detection names an image or category that is not in the ground truth.
    """
    return summarise_coco(match_coco(ground_truth, detections, max_dets), max_dets)


def match_coco(ground_truth: dict, detections: list[dict], max_dets: int = 100) -> COCOeval:
    """The same, as pycocotools keeps it: precision by IoU, recall, class, area and number of detections."""
    _check_ids(ground_truth, detections)
    truth = _index(ground_truth, ground_truth["annotations"])
    found = _index(ground_truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = sorted({1, 10, max_dets})
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


class PrecisionCurves(NamedTuple):
    """At IoU 0.5, over all areas; -1 where the ground truth has no object of a class."""

    class_names: list[str]
    recall: Float[np.ndarray, " levels"]
    precision: Float[np.ndarray, "levels classes"]


def precision_curves(evaluation: COCOeval, max_dets: int = 100) -> PrecisionCurves:
    """Of each class in the order of `summarise_coco`."""
    parameters = evaluation.params
    at_50 = int(np.argmin(np.abs(parameters.iouThrs - 0.50)))
    precision = evaluation.eval["precision"][at_50, :, :, 0, parameters.maxDets.index(max_dets)]  # [levels, classes]
    return PrecisionCurves(_class_names(evaluation), parameters.recThrs, precision)


def _class_names(evaluation: COCOeval) -> list[str]:
    return [category["name"] for category in evaluation.cocoGt.loadCats(evaluation.params.catIds)]


def _check_ids(ground_truth: dict, detections: list[dict]) -> None:
    for key, table in (("image_id", "images"), ("category_id", "categories")):
        unknown = {detection[key] for detection in detections} - {entry["id"] for entry in ground_truth[table]}
        if unknown:
            raise ValueError(
                f"detections name {key} {sorted(unknown)[:5]} ({len(unknown)} in all), which the ground truth's "
                f"{table} lack; were they made on this data set, with its own ids?"
            )


def _index(ground_truth: dict, annotations: list[dict]) -> COCO:
    """pycocotools' form of the annotations, with the fields it needs filled in; also of an empty list."""
    coco = COCO()
    # Ids are given anew from 1: COCOeval takes a match with the id 0 for no match.
    filled = [
        {"area": annotation["bbox"][2] * annotation["bbox"][3], "iscrowd": 0, **annotation, "id": number}
        for number, annotation in enumerate(annotations, start=1)
    ]
    coco.dataset = {"images": ground_truth["images"], "categories": ground_truth["categories"], "annotations": filled}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def summarise_coco(evaluation: COCOeval, max_dets: int = 100) -> dict:
    """The numbers of `evaluate_coco`."""
    parameters = evaluation.params
    last = parameters.maxDets.index(max_dets)
    precision = evaluation.eval["precision"]  # [iou thresholds, recall levels, classes, areas, max_dets]
    recall = evaluation.eval["recall"]  # [iou thresholds, classes, areas, max_dets]
    at_50 = int(np.argmin(np.abs(parameters.iouThrs - 0.50)))
    at_75 = int(np.argmin(np.abs(parameters.iouThrs - 0.75)))
    summary = {
        "AP": _mean(precision[:, :, :, 0, last]),
        "AP50": _mean(precision[at_50, :, :, 0, last]),
        "AP75": _mean(precision[at_75, :, :, 0, last]),
    }
    for suffix, label in _AREAS.items():
        area = parameters.areaRngLbl.index(label)
        summary[f"AP{suffix}"] = _mean(precision[:, :, :, area, last])
        summary[f"AR{suffix}"] = _mean(recall[:, :, area, last])
    for few in (1, 10):
        summary[f"AR{few}"] = _mean(recall[:, :, 0, parameters.maxDets.index(few)])
    summary["per_class"] = {
        name: {"AP": _mean(precision[:, :, number, 0, last]), "AP50": _mean(precision[at_50, :, number, 0, last])}
        for number, name in enumerate(_class_names(evaluation))
    }
    return summary


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined; -1 if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
