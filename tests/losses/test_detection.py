import numpy as np
import pytest
import tensorflow as tf
from darknet_reference import iou_of
from yolo_cases import CASES, CLASSES, MOMENT, as_truth

from configs.yolo_heads import DetectionHead
from configs.yolo_losses import DetectionLoss
from losses.detection import cell_truth, detection_heads
from modeling.heads.detection import split_row

SIDE = 4


@pytest.mark.parametrize("case", CASES)
def test_the_first_truth_of_a_cell_has_it(case):
    boxes, labels, valid = CASES[case]
    cells = cell_truth(as_truth(CASES[case]), SIDE, CLASSES)
    object_, classes, places = (np.zeros(part.shape) for part in cells)
    for image, number in np.argwhere(valid):
        x, y, w, h = boxes[image, number]
        row, column = min(int(y * SIDE), SIDE - 1), min(int(x * SIDE), SIDE - 1)
        if w < 0.001 or h < 0.001 or object_[image, row, column]:
            continue
        object_[image, row, column] = 1
        classes[image, row, column, labels[image, number]] = 1
        places[image, row, column] = x * SIDE - column, y * SIDE - row, w, h
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
def test_equals_plain_loops(case, rescore, sqrt):
    head = DetectionHead(side=SIDE, num=3, sqrt=sqrt)
    rules = DetectionLoss(coord_scale=5, object_scale=1.5, noobject_scale=0.5, class_scale=2, rescore=rescore)
    raw = np.random.default_rng(3).uniform(0, 0.8, (2, SIDE**2 * (CLASSES + 15))).astype(np.float32)
    cells, predicted = cell_truth(as_truth(CASES[case]), SIDE, CLASSES), split_row(tf.constant(raw), head)
    (got,) = detection_heads([tf.constant(raw)], as_truth(CASES[case]), head, rules, MOMENT)
    delta = [np.zeros(part.shape) for part in predicted]
    nearest = 0
    for where in np.ndindex(2, SIDE, SIDE):
        classes, objectness, boxes = (part[where].numpy().astype(float) for part in predicted)
        delta[1][where] = -0.5 * objectness
        if not cells.object[where]:
            continue
        delta[0][where] = 2 * (cells.classes[where].numpy() - classes)
        true = cells.boxes[where].numpy().astype(float)
        mine = [(x / SIDE, y / SIDE, *((w * w, h * h) if sqrt else (w, h))) for x, y, w, h in boxes]
        aim = (true[0] / SIDE, true[1] / SIDE, *true[2:])
        overlaps = [iou_of(box, aim) for box in mine]
        distances = [np.linalg.norm(np.array(box) - aim) for box in mine]
        best = int(np.argmax(overlaps) if max(overlaps) > 0 else np.argmin(distances))
        nearest += max(overlaps) == 0
        delta[1][where][best] = 1.5 * ((overlaps[best] if rescore else 1) - objectness[best])
        sizes = np.sqrt(true[2:]) if sqrt else true[2:]
        delta[2][where][best] = 5 * (np.array([*true[:2], *sizes]) - boxes[best])
        assert np.argwhere(got.targets.responsible[where]).tolist() == [[best]]
    expected = np.concatenate([part.reshape(2, -1) for part in delta], axis=1)
    np.testing.assert_allclose(got.delta, expected, rtol=1e-5, atol=2e-6)


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
