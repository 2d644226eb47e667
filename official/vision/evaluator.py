"""Collects detections over a split and scores them as COCO does."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from official.core.config import Protocol
from official.vision.coco import METRIC, coco_results, evaluate_coco
from official.vision.nms import Detections


class CocoEvaluator:
    """Scores detections against a ground truth given as a COCO dictionary.

    Args:
        ground_truth: as a COCO annotation file holds it.
        category_ids: the data set's own id of each contiguous class id.
        protocol: how the detections were made; it is stored beside the numbers.
        split: what the ground truth was read from.
    """

    def __init__(
        self, ground_truth: dict[str, Any], category_ids: Sequence[int], protocol: Protocol, split: dict[str, Any]
    ):
        self._ground_truth, self._category_ids = ground_truth, category_ids
        self._protocol = {**protocol.model_dump(mode="json"), "split": split, "metric": METRIC}
        self.detections: list[dict[str, Any]] = []  # COCO results format

    def update(self, batch: Any, detections: Detections) -> None:
        """Adds one batch: it has `example_id` (negative: padding) and `image_size` (height, width) of the originals."""
        ids, sizes = np.asarray(batch.example_id), np.asarray(batch.image_size)
        self.detections += coco_results(detections, ids, sizes, self._category_ids)

    def result(self) -> dict[str, Any]:
        """COCO's metrics (0..1), per class too, with the protocol they were measured by."""
        scores = evaluate_coco(self._ground_truth, self.detections, self._protocol["detections_per_image"])
        return {**scores, "images": len(self._ground_truth["images"]), "protocol": self._protocol}

    def save_detections(self, path: str) -> None:
        """All detections as a COCO results file."""
        with tf.io.gfile.GFile(path, "w") as file:
            json.dump(self.detections, file)
