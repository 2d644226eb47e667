import json
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Metric
from official.vision.evaluator import CocoEvaluator, darknet_truth
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol

TRUTH = {
    "images": [{"id": 7, "width": 320, "height": 200}, {"id": 5, "width": 64, "height": 96}],
    "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 11, "name": "absent"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [32, 20, 64, 40]},
        {"id": 2, "image_id": 7, "category_id": 90, "bbox": [160, 100, 80, 50]},
        {"id": 3, "image_id": 5, "category_id": 3, "bbox": [0, 24, 32, 48], "iscrowd": 1},
    ],
}
CATEGORY_IDS = (3, 90, 11)


class Batch(NamedTuple):
    example_id: tf.Tensor
    image_size: tf.Tensor


def detections(rows, count=3):
    """Rows of each image: (yxyx, class, score), padded to `count`."""
    empty = ([0.0] * 4, 0, 0.0)
    padded = [image + [empty] * (count - len(image)) for image in rows]
    boxes, classes, scores = (tf.constant([[row[part] for row in image] for image in padded]) for part in range(3))
    valid = tf.constant([[number < len(image) for number in range(count)] for image in rows])
    return Detections(boxes, scores, classes, valid)


def evaluator(**protocol):
    made = CocoEvaluator(TRUTH, CATEGORY_IDS, EvaluationProtocol(**protocol), {"name": "here"})
    dog, cat = [0.5, 0.5, 0.75, 0.75], [0.1, 0.1, 0.3, 0.3]
    made.update(
        Batch(tf.constant([7, -1]), tf.constant([[200, 320], [1, 1]])),
        detections([[(dog, 1, 0.9), (cat, 0, 0.8), (dog, 0, 0.004)], [(dog, 1, 0.9)]]),
    )
    # The crowd's box, but twice as wide: clipped to the image it is the crowd's very box.
    crowd = [0.25, -0.5, 0.75, 0.5]
    made.update(Batch(tf.constant([5]), tf.constant([[96, 64]])), detections([[(crowd, 0, 0.7)]]))
    return made


def test_cocos_and_darknets_metrics_side_by_side():
    made = evaluator()
    result = made.result()
    assert len(made.detections) == 4
    # COCO ignores the crowd and what lies in it, and knows no class without objects.
    assert result["AP50"] == pytest.approx(1)
    # Darknet: one cat of two is found. The crowd is an object as any, and the detection that reaches beyond the image
    # has IoU 0.5 with it. What has 0.004 is below its floor.
    assert result["darknet_mAP50"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result["darknet_mAP50_11"] == pytest.approx((1 + 6 / 11) / 3)
    assert result["darknet_mAP50_101"] == pytest.approx((1 + 51 / 101) / 3)
    assert {name: values["darknet_AP50"] for name, values in result["per_class"].items()} == pytest.approx(
        {"cat": 1 / 2, "dog": 1, "absent": 0}
    )
    counts = result["darknet_at_0.25"]
    assert (counts["TP"], counts["FP"], counts["FN"]) == (2, 1, 1)
    assert set(Metric.__args__) <= set(result)
    json.dumps(result)


def test_boxes_are_clipped_for_coco_alone():
    found = [entry["bbox"] for entry in evaluator().detections if entry["image_id"] == 5]
    assert found == [[0, 24, 32, 48]]


def test_each_metric_states_its_protocol():
    protocol = evaluator(score_floor=0.001, detections_per_image=77).result()["protocol"]
    assert protocol["split"] == {"name": "here"} and protocol["metric"].startswith("pycocotools")
    assert protocol["detections_per_image"] == 77 and protocol["score_floor"] == 0.001
    stated = protocol["darknet_metric"]
    assert stated["score_floor"] == 0.005 and stated["detector_map"]["nms_threshold"] == 0.45
    assert evaluator(score_floor=0.2).result()["protocol"]["darknet_metric"]["score_floor"] == 0.2


def test_no_detections():
    result = CocoEvaluator(TRUTH, CATEGORY_IDS, EvaluationProtocol(), {}).result()
    assert result["AP"] == result["darknet_mAP50"] == 0 and result["darknet_at_0.25"]["FN"] == 3


def test_truth_is_as_darknet_reads_it():
    truth = darknet_truth(TRUTH, CATEGORY_IDS)
    assert truth.images.tolist() == [7, 7, 5] and truth.classes.tolist() == [0, 1, 0]
    expected = [[0.2, 0.2, 0.2, 0.2], [0.625, 0.625, 0.25, 0.25], [0.25, 0.5, 0.5, 0.5]]
    np.testing.assert_array_equal(truth.boxes, np.float32(expected))
    nothing = darknet_truth({**TRUTH, "annotations": []}, CATEGORY_IDS)
    assert nothing.boxes.shape == (0, 4)


def test_saved_detections_are_coco_results(tmp_path):
    made = evaluator()
    made.save_detections(str(tmp_path / "detections.json"))
    assert json.loads((tmp_path / "detections.json").read_text()) == made.detections


def test_figures_of_what_was_scored():
    made = evaluator()
    result = made.result()
    figures = made.figures()
    assert figures.keys() == {"precision_recall", "average_precision", "confusion"}
    lines = {line.get_label() for line in figures["precision_recall"].axes[0].get_lines()}
    assert lines == {"cat", "dog", "mean of classes"}
    bars = figures["average_precision"].axes[0].containers[0]
    assert [bar.get_width() for bar in bars] == [result["per_class"][name]["AP50"] for name in ("dog", "cat")]
    counts = {text.get_position(): text.get_text() for text in figures["confusion"].axes[0].texts}
    assert counts == {(0, 0): "1", (1, 1): "1"}  # the cat and the dog; the rest is in the crowd, or below the floor
