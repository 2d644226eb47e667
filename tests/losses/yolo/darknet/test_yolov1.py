import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import DetectionHead
from configs.yolo.losses import DetectionLoss
from losses.yolo.darknet.yolov1 import cell_truth, detection_heads
from modeling.yolo.heads.yolov1 import split_row
from reproduction.yolo.restated import yolov1
from tests.losses.yolo.cases import CASES, CLASSES, MOMENT, as_truth

SIDE = 4


@pytest.mark.parametrize("case", CASES)
def test_the_first_truth_of_a_cell_has_it(case):
    boxes, _, valid = CASES[case]
    cells = cell_truth(as_truth(CASES[case]), SIDE, CLASSES)
    object_, classes, places = yolov1.cell_truths(as_truth(CASES[case]), SIDE, CLASSES)
    np.testing.assert_array_equal(cells.object, object_)
    np.testing.assert_array_equal(cells.classes, classes)
    np.testing.assert_allclose(cells.boxes, places, atol=1e-6)
    assert case != "crowded" or object_.sum() < np.count_nonzero(valid & (boxes[..., 2] > 0))


def test_tiny_truths_and_classes_out_of_range():
    boxes = np.full((2, 2, 4), 0.3, np.float32)
    boxes[:, 0, 2] = 0.0009
    truth = as_truth((boxes, np.full((2, 2), CLASSES, np.int32), np.ones((2, 2), bool)))
    cells = cell_truth(truth, SIDE, CLASSES)
    assert np.argwhere(cells.object).tolist() == [[0, 1, 1], [1, 1, 1]]
    np.testing.assert_allclose(cells.boxes[0, 1, 1, 2], 0.3)  # of the second: the first is too small
    assert not np.any(cells.classes)


@pytest.mark.parametrize("sqrt", [True, False])
@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_restated_gradient(case, rescore, sqrt):
    head = DetectionHead(side=SIDE, num=3, sqrt=sqrt)
    rules = DetectionLoss(coord_scale=5, object_scale=1.5, noobject_scale=0.5, class_scale=2, rescore=rescore)
    raw = np.random.default_rng(3).uniform(0, 0.8, (2, SIDE**2 * (CLASSES + 15))).astype(np.float32)
    (got,) = detection_heads([tf.constant(raw)], as_truth(CASES[case]), head, rules, MOMENT)
    (expected,) = yolov1.darknet_deltas([raw], as_truth(CASES[case]), head, rules).deltas
    np.testing.assert_allclose(got.delta, expected, rtol=1e-5, atol=2e-6)
    asked = np.any(yolov1.cells_of(expected, head).boxes != 0, axis=-1)
    np.testing.assert_array_equal(got.targets.responsible, asked)
    assert asked.any() == (case != "none")


def test_where_no_box_overlaps_the_nearest_is_asked():
    head = DetectionHead(side=2, num=2)
    raw = np.zeros((1, 4 * (CLASSES + 10)), np.float32)
    boxes = raw[:, -4 * 8 :].reshape(4, 2, 4)  # a view: [cells, boxes, x y w h]
    boxes[:, 0] = 0.9, 0.9, 0.01, 0.01
    boxes[:, 1] = 0.4, 0.4, 0.01, 0.01
    truth = (np.array([[[0.1, 0.1, 0.05, 0.05]]], np.float32), np.zeros((1, 1), np.int32), np.ones((1, 1), bool))
    (got,) = detection_heads([tf.constant(raw)], as_truth(truth), head, DetectionLoss(), MOMENT)
    assert np.argwhere(got.targets.responsible).tolist() == [[0, 0, 0, 1]]


def test_a_row_of_another_length_is_one_clear_error():
    with pytest.raises(
        ValueError, match=r"raw has shape \(2, 100\); expected \[batch, 7 \* 7 \* \(classes \+ 2 \* 5\)\]"
    ):
        split_row(tf.zeros([2, 100]), DetectionHead(side=7, num=2))
