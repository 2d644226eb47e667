"""Collects detections over a split and scores them as COCO does, and as Darknet does."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from official.core.config import Protocol
from official.vision.boxes import yxyx_to_cxcywh
from official.vision.coco import METRIC, coco_results, evaluate_coco
from official.vision.darknet_map import PROBABILITY_FLOOR, Labelled, darknet_map
from official.vision.nms import Detections


class CocoEvaluator:
    """Scores detections against a ground truth given as a COCO dictionary.

    Args:
        ground_truth: as a COCO annotation file holds it; all its categories are among `category_ids`.
        category_ids: the data set's own id of each contiguous class id.
        protocol: how the detections were made; it is stored beside the numbers.
        split: what the ground truth was read from.
    """

    def __init__(
        self, ground_truth: dict[str, Any], category_ids: Sequence[int], protocol: Protocol, split: dict[str, Any]
    ):
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
        self.detections += coco_results(detections, ids, sizes, self._category_ids, self.protocol)
        boxes, scores, classes, valid = (np.asarray(part) for part in detections)
        valid = valid & (ids >= 0)[:, np.newaxis]
        images = np.broadcast_to(ids[:, np.newaxis], valid.shape)
        centred = yxyx_to_cxcywh(tf.constant(boxes[valid])).numpy()
        self._found.append((Labelled(images[valid], classes[valid], centred), scores[valid]))

    def result(self) -> dict[str, Any]:
        """COCO's metrics and Darknet's (0..1), per class too, with the protocols they were measured by."""
        scores = evaluate_coco(self._ground_truth, self.detections, self._protocol["detections_per_image"])
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


def darknet_protocol(protocol: Protocol) -> dict[str, Any]:
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
