import copy
import json

import numpy as np
import pytest
import tensorflow as tf

from official.vision.coco import METRIC, coco_results, evaluate_coco
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol


def ground_truth(extra=True):
    """Two images, three categories of which one has no object; ids neither start at 0 nor are contiguous."""
    annotations = [
        {"id": 0, "image_id": 7, "category_id": 3, "bbox": [10, 20, 40, 30]},
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [100, 50, 120, 110]},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 20, 25]},
    ]
    if extra:
        annotations = [{**entry, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in annotations]
    return {
        "images": [{"id": 7, "width": 320, "height": 200}, {"id": 5, "width": 64, "height": 96}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}, {"id": 11, "name": "absent"}],
        "annotations": annotations,
    }


def perfect(truth):
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: annotation[key] for key in keys}, "score": 0.9} for annotation in truth["annotations"]]


@pytest.mark.parametrize("extra", [True, False])
def test_perfect_detections(extra, capsys):
    truth = ground_truth(extra)
    before = copy.deepcopy(truth)
    result = evaluate_coco(truth, perfect(truth))
    assert truth == before
    assert capsys.readouterr().out == ""
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "AR1", "AR10", "ARs", "ARm", "ARl"):
        assert result[metric] == pytest.approx(1.0), metric
    assert result["per_class"]["cat"] == pytest.approx({"AP": 1.0, "AP50": 1.0})
    assert result["per_class"]["absent"] == {"AP": -1.0, "AP50": -1.0}
    json.dumps(result)


def test_a_missed_object_and_a_false_alarm_cost():
    truth = ground_truth()
    first, second, _ = perfect(truth)
    false_alarm = {"image_id": 5, "category_id": 90, "bbox": [1, 1, 9, 9], "score": 0.99}
    result = evaluate_coco(truth, [first, second, false_alarm])
    assert result["per_class"]["cat"]["AP50"] == pytest.approx(51 / 101)  # recall 0.5 at precision 1
    assert result["per_class"]["dog"]["AP50"] == pytest.approx(0.5)
    assert result["AR"] == pytest.approx(0.75)


def test_no_detections_is_zero():
    result = evaluate_coco(ground_truth(), [])
    assert result["AP"] == 0 and result["AR"] == 0 and result["per_class"]["dog"]["AP"] == 0


def test_no_annotations_is_undefined():
    truth = {**ground_truth(), "annotations": []}
    assert evaluate_coco(truth, [])["AP"] == -1
    detection = {"image_id": 5, "category_id": 3, "bbox": [1, 1, 9, 9], "score": 0.99}
    assert evaluate_coco(truth, [detection])["AP50"] == -1


def test_max_dets_limits_what_counts():
    truth = ground_truth()
    noise = [{"image_id": 7, "category_id": 3, "bbox": [200, 100, 10, 10], "score": 0.95}] * 3
    assert evaluate_coco(truth, perfect(truth) + noise, max_dets=2)["per_class"]["cat"]["AP50"] < 0.6
    assert evaluate_coco(truth, perfect(truth) + noise, max_dets=5)["AR"] == pytest.approx(1.0)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_of_another_data_set_are_an_error(key):
    detections = perfect(ground_truth())
    detections[0][key] = 12345
    with pytest.raises(ValueError, match=f"{key}.*12345"):
        evaluate_coco(ground_truth(), detections)


def test_results_from_detections():
    detections = Detections(
        boxes=tf.constant([[[0.1, 0.5, 0.3, 0.75], [0, 0, 1, 1]], [[0, 0, 0, 0]] * 2, [[0.1, 0.2, 0.3, 0.4]] * 2]),
        scores=tf.constant([[0.75, 0.5], [0, 0], [0.5, 0]]),
        classes=tf.constant([[1, 0], [0, 0], [1, 0]]),
        valid=tf.constant([[True, True], [False, False], [True, False]]),
    )
    sizes = np.array([[200, 320], [96, 64], [0, 0]], np.int32)
    results = coco_results(detections, np.array([7, 5, -1]), sizes, (3, 90), EvaluationProtocol())
    found = [(entry["image_id"], entry["category_id"], entry["score"]) for entry in results]
    assert found == [(7, 90, 0.75), (7, 3, 0.5)]
    np.testing.assert_allclose(results[0]["bbox"], [160, 20, 80, 40], rtol=1e-6)
    assert results[1]["bbox"] == [0, 0, 320, 200]
    json.dumps(results)


class ToHundredths(EvaluationProtocol):
    def rounded(self, number):
        return round(number, 2)


def test_boxes_beyond_the_image_and_rounding_are_the_protocols():
    boxes = tf.constant([[[-0.25, 0.333333, 1.5, 1.0]]])
    found = Detections(boxes, tf.constant([[0.123456]]), tf.constant([[0]]), tf.constant([[True]]))
    given = found, np.array([7]), np.array([[200, 320]], np.int32), (3,)
    clipped, as_found = (
        coco_results(*given, protocol)[0] for protocol in (EvaluationProtocol(), EvaluationProtocol(clip_boxes=False))
    )
    np.testing.assert_allclose(clipped["bbox"], [106.66656, 0, 213.33344, 200], atol=1e-3)
    np.testing.assert_allclose(as_found["bbox"], [106.66656, -50, 213.33344, 350], atol=1e-3)
    rounded = coco_results(*given, ToHundredths())[0]
    assert rounded["bbox"] == [106.67, 0.0, 213.33, 200.0] and rounded["score"] == 0.12


def test_metric_names_its_code():
    assert METRIC.startswith("pycocotools 2.")


def test_published_detections_give_their_published_metrics(shared):
    """Detections of a real YOLOv4-tiny on real images, scored before by pycocotools' own summary."""
    with open(shared / "assets" / "coco_val" / "instances_val2017_80.json", encoding="utf-8") as file:
        truth = json.load(file)
    with open(shared / "golden" / "coco_val" / "yolov4-tiny_opencv.json", encoding="utf-8") as file:
        result = evaluate_coco(truth, json.load(file))
    assert result["AP"] == pytest.approx(0.2289, abs=6e-5)
    assert result["AP50"] == pytest.approx(0.4012, abs=6e-5)
