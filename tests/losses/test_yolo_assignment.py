import numpy as np
import pytest
import tensorflow as tf
from yolo_cases import CASES, GRIDS, HEAD, SIZE, TRUTH, as_truth, random_outputs

from configs.yolo import YoloLevel, YoloLoss
from losses import yolo_assignment
from losses.yolo_assignment import Targets, assign, best_overlap
from modeling.heads.yolo import decode_level
from reproduction.restated import yolo


def targets_of(number: int, raw: np.ndarray, truth, rules: YoloLoss) -> Targets:
    level = HEAD.levels[number]
    decoded = decode_level(tf.constant(raw), HEAD.anchors_of(level), level, SIZE)
    return assign(decoded, as_truth(truth), HEAD.anchors, level.mask, SIZE, rules)


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_restated_assignment(case, iou_thresh, seed):
    rules = YoloLoss(iou_thresh=iou_thresh, ignore_thresh=0.3)
    for number, (raw, level) in enumerate(zip(random_outputs(seed), HEAD.levels, strict=True)):
        targets = targets_of(number, raw, CASES[case], rules)
        expected = yolo.assign(raw, as_truth(CASES[case]), HEAD, level, rules, SIZE)
        assert not expected.undecided.any()
        for field in ("object", "ignored", "classes"):
            np.testing.assert_array_equal(getattr(targets, field), getattr(expected, field))
        assert expected.ignored.any() or case != "crowded"  # the rule has something to do
        pairs = {(image, truth, slot) for image, _, _, slot, truth in expected.matches}
        assert set(zip(*np.nonzero(targets.positive), strict=True)) == pairs
        _, which, counts = np.unique(expected.matches[:, :4], axis=0, return_inverse=True, return_counts=True)
        shares = 1 / counts[which.ravel()] if iou_thresh < 1 else np.ones(len(which))
        for (image, *cell, slot, truth), share in zip(expected.matches, shares, strict=True):
            np.testing.assert_array_equal(targets.cells[image, truth], cell)
            assert targets.share[image, truth, slot] == np.float32(share)


def test_the_crowded_case_is_crowded():
    """Guards the comparison above: slots with two classes, with a class twice, and truths at several anchors exist."""
    targets = [targets_of(n, raw, TRUTH, YoloLoss(iou_thresh=0.213)) for n, raw in enumerate(random_outputs(0))]
    assert any(np.max(np.sum(t.classes, axis=-1)) == 2 for t in targets)
    assert any(np.min(t.share.numpy()[t.positive.numpy()]) <= 1 / 3 for t in targets)
    assert any(np.max(np.sum(t.positive, axis=-1)) == 2 for t in targets)


def test_far_border_belongs_to_the_last_cell():
    targets = targets_of(1, random_outputs(0)[1], TRUTH, YoloLoss())
    assert tuple(targets.cells[0, 3].numpy()) == (GRIDS[1][0] - 1, GRIDS[1][1] - 1)
    assert targets.positive[0, 3].numpy().any()


def test_rows_that_take_no_part_stay_in_range_whatever_they_hold():
    boxes, labels, valid = (part.copy() for part in TRUTH)
    boxes[~valid] = [np.nan, np.inf, -np.inf, 1e30]
    labels[~valid] = -1
    labels[0, -1] = 10**6
    for number, raw in enumerate(random_outputs(0)):
        expected = targets_of(number, raw, TRUTH, YoloLoss(iou_thresh=0.213, ignore_thresh=0.3))
        targets = targets_of(number, raw, (boxes, labels, valid), YoloLoss(iou_thresh=0.213, ignore_thresh=0.3))
        for one, other in zip(targets, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_equal_anchors_first_wins():
    head_anchors = ((20.0, 20.0), (20.0, 20.0))
    boxes = np.full((2, 1, 4), 0.2, np.float32)
    truth = as_truth((boxes, np.zeros((2, 1), np.int32), np.ones((2, 1), bool)))
    raw = tf.zeros([2, 3, 4, 2, 6])
    targets = assign(
        decode_level(raw, head_anchors, YoloLevel(mask=(0, 1)), SIZE), truth, head_anchors, (0, 1), SIZE, YoloLoss()
    )
    np.testing.assert_array_equal(targets.positive[:, 0], [[True, False]] * 2)


def test_ignored_needs_a_class_probability_above_a_quarter_of_whatever_class():
    raw = np.full((2, 3, 4, 2, 8), -5, np.float32)
    raw[..., 0:4] = 0
    boxes = np.zeros((2, 1, 4), np.float32)
    boxes[:, 0] = 1.4 / 4, 1.4 / 3, 60 / 128, 70 / 96  # the cell's own prediction of anchor 3, and near its neighbours
    truth = (boxes, np.zeros((2, 1), np.int32), np.ones((2, 1), bool))
    assert not targets_of(0, raw, truth, YoloLoss(ignore_thresh=0.3)).ignored.numpy().any()
    raw[1, ..., 7] = 0  # class 2, though the truth is of class 0
    ignored = targets_of(0, raw, truth, YoloLoss(ignore_thresh=0.3)).ignored.numpy()
    assert not ignored[0].any()
    assert ignored[1].any()


def test_every_truth_counts_for_the_ignore_rule(monkeypatch):
    """Chunks of truths cover all of them, also when the last chunk is not full."""
    monkeypatch.setattr(yolo_assignment, "TRUTHS_AT_ONCE", 3)
    predicted = tf.random.stateless_uniform([2, 3, 4, 2, 4], [1, 2], 0.1, 0.6)
    for count in (1, 3, 7):
        boxes = np.zeros((2, count, 4), np.float32)
        boxes[:, -1] = 0.4, 0.4, 0.3, 0.3
        alone = best_overlap(predicted, tf.constant(boxes[:, -1:]))
        assert alone.numpy().max() > 0
        np.testing.assert_array_equal(best_overlap(predicted, tf.constant(boxes)), alone)


def test_order_of_truths_does_not_matter():
    order = np.random.default_rng(3).permutation(8)
    turned = tuple(part[:, order] for part in TRUTH)
    rules = YoloLoss(iou_thresh=0.213, ignore_thresh=0.3)
    for number, raw in enumerate(random_outputs(0)):
        one, other = targets_of(number, raw, TRUTH, rules), targets_of(number, raw, turned, rules)
        for field in ("object", "ignored", "classes"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        np.testing.assert_array_equal(one.share.numpy()[:, order], other.share)
