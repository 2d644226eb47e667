"""Collects detections over a split and scores them as COCO does, and as Darknet does."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Integer
from matplotlib.figure import Figure

from official.core.expect import Sizes, TensorError, expect, expect_fields, expect_relative
from official.vision.boxes import yxyx_to_cxcywh
from official.vision.coco import METRIC, coco_results, match_coco, precision_curves, summarise_coco
from official.vision.confusion import IOU_THRESHOLD, SCORE_FLOOR, confusion_matrix
from official.vision.darknet_map import PROBABILITY_FLOOR, Labelled, darknet_map
from official.vision.nms import Detections
from official.vision.plots import average_precision_figure, confusion_figure, precision_recall_figure
from official.vision.protocol import EvaluationProtocol


class CocoEvaluator:
    """Scores detections against a ground truth given as a COCO dictionary.

    Args:
        ground_truth: as a COCO annotation file holds it; all its categories are among `category_ids`.
        category_ids: the data set's own id of each contiguous class id.
        protocol: how the detections were made; it is stored beside the numbers.
        split: what the ground truth was read from.

    Raises:
        TensorError: boxes, ids or sizes that cannot be in the form that is expected; also from `update`.
    """

    def __init__(
        self,
        ground_truth: dict[str, Any],
        category_ids: Sequence[int],
        protocol: EvaluationProtocol,
        split: dict[str, Any],
    ):
        check_ground_truth(ground_truth)
        self._ground_truth, self._category_ids, self.protocol = ground_truth, category_ids, protocol
        self._protocol = {
            **protocol.model_dump(mode="json"),
            "split": split,
            "metric": METRIC,
            "darknet_metric": darknet_protocol(protocol),
        }
        self.detections: list[dict[str, Any]] = []  # COCO results format
        self._found: list[tuple[Labelled, np.ndarray]] = []  # the same, as Darknet scores them: not clipped

    def update(self, batch: Any, detections: Detections) -> None:
        """Adds one batch: it has `example_id` (negative: padding) and `image_size` (height, width) of the originals."""
        ids, sizes = np.asarray(batch.example_id), np.asarray(batch.image_size)
        check_detections(detections, ids, sizes, len(self._category_ids))
        self.detections += coco_results(detections, ids, sizes, self._category_ids, self.protocol)
        boxes, scores, classes, valid = (np.asarray(part) for part in detections)
        valid = valid & (ids >= 0)[:, np.newaxis]
        images = np.broadcast_to(ids[:, np.newaxis], valid.shape)
        centred = yxyx_to_cxcywh(tf.constant(boxes[valid])).numpy()
        self._found.append((Labelled(images[valid], classes[valid], centred), scores[valid]))

    def result(self) -> dict[str, Any]:
        """COCO's metrics and Darknet's (0..1), per class too, with the protocols they were measured by."""
        most = self._protocol["detections_per_image"]
        matched = match_coco(self._ground_truth, self.detections, most)
        scores, self._curves = summarise_coco(matched, most), precision_curves(matched, most)
        self._per_class = scores["per_class"]
        darknet = self._darknet_map()
        names = {category["id"]: category["name"] for category in self._ground_truth["categories"]}
        for category, value in zip(self._category_ids, darknet["per_class"]["auc"], strict=True):
            scores["per_class"][names[category]]["darknet_AP50"] = float(value)
        return {
            **scores,
            "darknet_mAP50": darknet["auc"],
            "darknet_mAP50_11": darknet["11"],
            "darknet_mAP50_101": darknet["101"],
            "darknet_at_0.25": darknet["at_0.25"],
            "images": len(self._ground_truth["images"]),
            "protocol": self._protocol,
        }

    def figures(self) -> dict[str, Figure]:
        """What `result` has computed, as curves of precision, bars of AP, and who is taken for whom."""
        names = {category["id"]: category["name"] for category in self._ground_truth["categories"]}
        counts = confusion_matrix(self._ground_truth, self.detections, self._category_ids)
        title = f"confusion, score from {SCORE_FLOOR:g}, IoU from {IOU_THRESHOLD:g}"
        return {
            "precision_recall": precision_recall_figure(*self._curves),
            "average_precision": average_precision_figure(self._per_class),
            "confusion": confusion_figure([names[category] for category in self._category_ids], counts, title),
        }

    def save_detections(self, path: str) -> None:
        """All detections as a COCO results file."""
        with tf.io.gfile.GFile(path, "w") as file:
            json.dump(self.detections, file)

    def _darknet_map(self) -> dict[str, Any]:
        nothing = Labelled(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4), np.float32)), np.zeros(0, np.float32)
        labelled, scores = zip(nothing, *self._found, strict=True)
        found = Labelled(*(np.concatenate(parts) for parts in zip(*labelled, strict=True)))
        truth = darknet_truth(self._ground_truth, self._category_ids)
        return darknet_map(truth, found, np.concatenate(scores), len(self._category_ids))


def check_detections(
    detections: Detections, ids: Integer[np.ndarray, " b"], sizes: Integer[np.ndarray, "b 2"], classes: int
) -> None:
    """Raises a TensorError of detections in another form. Values: pixels, scores beyond 0..1, foreign class ids."""
    meanings = {
        "boxes": "yxyx relative to the original image, 0..1",
        "scores": "probabilities 0..1, best first",
        "classes": f"contiguous ids, 0 to {classes - 1}",
        "valid": "False for padding",
    }
    known: Sizes = {}
    expect_fields("evaluator: detections", detections, Detections, meanings, known)
    expect("evaluator: batch.example_id", ids, Integer[np.ndarray, " b"], "the images' own ids", known)
    expect("evaluator: batch.image_size", sizes, Integer[np.ndarray, "b 2"], "(height, width) in pixels", known)
    valid = np.asarray(detections.valid) & (ids >= 0)[:, np.newaxis]  # [b, n]
    expect_relative("evaluator: detections.boxes", detections.boxes, valid, "yxyx")
    found, scores = np.asarray(detections.classes)[valid], np.asarray(detections.scores)[valid]
    foreign = found[(found < 0) | (found >= classes)]
    if foreign.size:
        raise TensorError(
            f"evaluator: detections.classes has {foreign[0]}; expected {meanings['classes']}. Likely the data set's "
            "own category id: detections carry contiguous ones"
        )
    wild = scores[(scores < -0.001) | (scores > 1.001)]
    if wild.size:
        raise TensorError(
            f"evaluator: detections.scores has {wild[0]:g}; expected {meanings['scores']}. Likely logits: take their "
            "sigmoid; or percent"
        )


def check_ground_truth(ground_truth: dict[str, Any]) -> None:
    """Raises a TensorError if most boxes of a COCO dictionary cannot be x, y, width, height (xywh) in pixels."""
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in ground_truth["images"]}
    known = [annotation for annotation in ground_truth["annotations"] if annotation["image_id"] in sizes]
    boxes = np.array([annotation["bbox"] for annotation in known], np.float64).reshape(-1, 4)
    sides = np.array([sizes[annotation["image_id"]] for annotation in known], np.float64).reshape(-1, 2)
    corners = boxes[:, :2] + boxes[:, 2:]
    relative = (corners <= 1).all(axis=1) & (sides > 2).all(axis=1)
    beyond = (corners > sides + 1).any(axis=1)
    for wrong, likely in ((relative, "relative to the image"), (beyond, "xyxy, the far corner in place of the size")):
        if wrong.sum() * 2 > len(boxes):
            raise TensorError(
                f"ground truth: bbox {boxes[wrong][0].tolist()}, and {wrong.sum()} of {len(boxes)} like it; expected "
                f"xywh in pixels (left, top, width, height), as in COCO's files. Likely {likely}"
            )


def darknet_truth(ground_truth: dict[str, Any], category_ids: Sequence[int]) -> Labelled:
    """All annotations of a COCO dictionary, crowds too, as Darknet reads boxes: cxcywh relative, float32."""
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in ground_truth["images"]}
    class_of = {category: number for number, category in enumerate(category_ids)}
    annotations = ground_truth["annotations"]
    images = np.array([annotation["image_id"] for annotation in annotations], np.int64)
    sides = np.array([sizes[image] for image in images.tolist()], np.float64).reshape(-1, 2)
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    centres = (boxes[:, :2] + boxes[:, 2:] / 2) / sides
    return Labelled(
        images,
        np.array([class_of[annotation["category_id"]] for annotation in annotations], np.int64),
        np.concatenate([centres, boxes[:, 2:] / sides], axis=1).astype(np.float32),
    )


def darknet_protocol(protocol: EvaluationProtocol) -> dict[str, Any]:
    """What Darknet's metric was measured by, where that is not the protocol itself, and what its own door does."""
    return {
        "code": "validate_detector_map of AlexeyAB/darknet @59596d78, computed here",
        "iou_threshold": 0.5,
        "score_floor": max(protocol.score_floor, PROBABILITY_FLOOR),
        "boxes": "not clipped to the image",
        "truth": "all annotations, crowds and difficult objects too, not rounded to a label file's six digits",
        "detector_map": {  # what the same figure from Darknet's own door was measured by
            "resize": "stretch; letterbox if the cfg says letter_box=1",
            "interpolation": "align_corners",
            "score_floor": PROBABILITY_FLOOR,
            "nms": "the cfg's nms_kind",
            "nms_threshold": 0.45,
            "detections_per_image": "all",
        },
    }
