import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.losses import YoloLoss
from losses.yolo import assignment
from losses.yolo.assignment import Targets, assign, best_overlap, claim
from losses.yolo.darknet import iou
from modeling.yolo.heads.yolo import decode_level, relative_anchors
from reproduction.yolo.restated import yolo
from tests.losses.yolo.cases import CASES, GRIDS, HEAD, SIZE, TRUTH, as_truth, random_outputs


def targets_of(number: int, raw: np.ndarray, truth, rules: YoloLoss) -> Targets:
    level = HEAD.levels[number]
    decoded = decode_level(tf.constant(raw), HEAD.anchors_of(level), level, SIZE)
    table = relative_anchors(HEAD.anchors, SIZE)
    return assign(decoded.boxes, decoded.class_probabilities, as_truth(truth), table, level.mask, rules)


def truths_in_slots(targets: Targets) -> dict[tuple[int, ...], list[int]]:
    """The truths that claim each slot (image, row, column, anchor), in order."""
    found = {}
    claims, shape = targets.claims, targets.object.shape
    for image, number, anchor in zip(*np.nonzero(claims.claimed), strict=True):
        where = np.unravel_index(claims.slot[image, number, anchor].numpy(), shape)
        assert where[0] == image and where[3] == anchor
        found.setdefault(tuple(map(int, where)), []).append(int(number))
    return found


def classes_in_slots(targets: Targets) -> set[tuple[int, ...]]:
    """(image, row, column, anchor, class) of all claims."""
    labels = targets.claims.truth.classes.numpy()
    return {(*w, int(labels[w[0], n])) for w, numbers in truths_in_slots(targets).items() for n in numbers}


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_restated_assignment(case, iou_thresh, seed):
    rules = YoloLoss(iou_thresh=iou_thresh, ignore_thresh=0.3)
    for number, (raw, level) in enumerate(zip(random_outputs(seed), HEAD.levels, strict=True)):
        targets = targets_of(number, raw, CASES[case], rules)
        expected = yolo.assign(raw, as_truth(CASES[case]), HEAD, level, rules, SIZE)
        assert not expected.undecided.any()
        for field in ("object", "ignored"):
            np.testing.assert_array_equal(getattr(targets, field), getattr(expected, field))
        assert expected.ignored.any() or case != "crowded"  # the rule has something to do
        assert classes_in_slots(targets) == {tuple(map(int, at)) for at in np.argwhere(expected.classes)}
        asking: dict[tuple[int, ...], list[int]] = {}
        for *where, truth in expected.matches.tolist():
            asking.setdefault(tuple(where), []).append(truth)
            np.testing.assert_array_equal(targets.claims.cells[where[0], truth], where[1:3])
        assert truths_in_slots(targets) == asking


def test_the_crowded_case_is_crowded():
    """Guards the comparison above: slots with two classes, with a class twice, and truths at several anchors exist."""
    targets = [targets_of(n, raw, TRUTH, YoloLoss(iou_thresh=0.213)) for n, raw in enumerate(random_outputs(0))]
    found = [truths_in_slots(one) for one in targets]
    assert any(len(truths) >= 3 for one in found for truths in one.values())
    assert any(len(classes_in_slots(t)) > len(one) for t, one in zip(targets, found, strict=True))
    assert any(np.max(np.sum(t.claims.claimed, axis=-1)) == 2 for t in targets)


def test_far_border_belongs_to_the_last_cell():
    targets = targets_of(1, random_outputs(0)[1], TRUTH, YoloLoss())
    assert tuple(targets.claims.cells[0, 3].numpy()) == (GRIDS[1][0] - 1, GRIDS[1][1] - 1)
    assert targets.claims.claimed[0, 3].numpy().any()


def test_rows_that_take_no_part_stay_in_range_whatever_they_hold():
    boxes, labels, valid = (part.copy() for part in TRUTH)
    boxes[~valid] = [np.nan, np.inf, -np.inf, 1e30]
    labels[~valid] = -1
    labels[0, -1] = 10**6
    for number, raw in enumerate(random_outputs(0)):
        expected = targets_of(number, raw, TRUTH, YoloLoss(iou_thresh=0.213, ignore_thresh=0.3))
        targets = targets_of(number, raw, (boxes, labels, valid), YoloLoss(iou_thresh=0.213, ignore_thresh=0.3))
        for one, other in zip(tf.nest.flatten(targets), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("label", [-1, 3, 10**6])
def test_a_truth_of_a_class_that_the_head_does_not_have_takes_no_part(label):
    boxes, labels, valid = (part.copy() for part in TRUTH)
    labels[1, 2], without = label, valid.copy()
    without[1, 2] = False
    rules = YoloLoss(iou_thresh=0.213, ignore_thresh=0.3)
    for number, raw in enumerate(random_outputs(0)):
        targets, expected = (targets_of(number, raw, (boxes, labels, rows), rules) for rows in (valid, without))
        for one, other in zip(tf.nest.flatten(targets), tf.nest.flatten(expected), strict=True):
            np.testing.assert_array_equal(one, other)
    claimed = [targets_of(number, raw, TRUTH, rules).claims.claimed for number, raw in enumerate(random_outputs(0))]
    assert any(one[1, 2].numpy().any() for one in claimed)  # otherwise it does


def test_equal_anchors_first_wins():
    head_anchors = ((20.0, 20.0), (20.0, 20.0))
    boxes = np.full((2, 1, 4), 0.2, np.float32)
    truth = as_truth((boxes, np.zeros((2, 1), np.int32), np.ones((2, 1), bool)))
    claims = claim(truth, 1, (3, 4), relative_anchors(head_anchors, SIZE), (0, 1), YoloLoss())
    np.testing.assert_array_equal(claims.claimed[:, 0], [[True, False]] * 2)


@pytest.mark.parametrize("kind", iou.KINDS)
def test_iou_thresh_kind_measures_how_alike_shapes_are(kind):
    """The best anchor is by IoU whatever the kind; the others are those above iou_thresh by the kind itself."""
    table = tf.constant([[0.1, 0.1], [0.1, 0.3], [0.2, 0.2], [0.3, 0.1]])
    size = (0.16, 0.17)
    box = tf.constant([[[0.5, 0.5, *size]]])
    truth = as_truth((box, np.zeros((1, 1)), np.ones((1, 1), bool)))
    pairs = (tf.concat([tf.zeros([4, 2]), table], axis=-1), tf.constant([0.0, 0.0, *size]))
    alike = {name: one(*pairs).numpy() for name, one in iou.KINDS.items()}
    threshold = float(np.sort(alike[kind])[1:3].mean())  # two anchors above it, two below
    rules = YoloLoss(iou_thresh=threshold, iou_thresh_kind=kind)
    expected = (alike[kind] > threshold) | (np.arange(4) == alike["iou"].argmax())
    assert 2 <= expected.sum() < 4
    claims = claim(truth, 1, (1, 1), table, (0, 1, 2, 3), rules)
    np.testing.assert_array_equal(claims.claimed[0, 0], expected)


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
    monkeypatch.setattr(assignment, "TRUTHS_AT_ONCE", 3)
    predicted = tf.random.stateless_uniform([2, 3, 4, 2, 4], [1, 2], 0.1, 0.6)
    for count in (1, 3, 7):
        boxes = np.zeros((2, count, 4), np.float32)
        boxes[:, -1] = 0.4, 0.4, 0.3, 0.3
        alone, _ = best_overlap(predicted, tf.constant(boxes[:, -1:]))
        assert alone.numpy().max() > 0
        overlap, which = best_overlap(predicted, tf.constant(boxes))
        np.testing.assert_array_equal(overlap, alone)
        np.testing.assert_array_equal(which, np.where(alone > 0, count - 1, 0))


def test_order_of_truths_does_not_matter():
    order = np.random.default_rng(3).permutation(8)
    turned = tuple(part[:, order] for part in TRUTH)
    rules = YoloLoss(iou_thresh=0.213, ignore_thresh=0.3)
    for number, raw in enumerate(random_outputs(0)):
        one, other = targets_of(number, raw, TRUTH, rules), targets_of(number, raw, turned, rules)
        for field in ("object", "ignored", "overlap"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert classes_in_slots(one) == classes_in_slots(other)
        np.testing.assert_array_equal(one.claims.claimed.numpy()[:, order], other.claims.claimed)
