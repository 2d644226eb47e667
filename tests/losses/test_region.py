"""The [region] loss against plain loops, written from the description of what Darknet computes."""

import math

import numpy as np
import pytest
import tensorflow as tf
from darknet_reference import iou_of, sigmoid
from yolo_cases import CASES, CLASSES, SIZE, as_truth

from configs.yolo_heads import RegionHead
from configs.yolo_losses import RegionLoss
from losses.region import region_heads
from official.core.task import Moment

GRID = (6, 8)
ANCHORS = ((0.8, 1.2), (2.5, 2.0), (4.5, 3.0))


def random_raw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.7, (2, *GRID, len(ANCHORS), 5 + CLASSES)).astype(np.float32)


def head_loss(raw, truth, rules: RegionLoss, *, softmax: bool = True, step: int = 1):
    head = RegionHead(anchors=ANCHORS, softmax=softmax)
    (got,) = region_heads([tf.constant(raw)], as_truth(truth), head, rules, Moment(tf.constant(step, tf.int64), SIZE))
    return got


def expected_delta(raw, truth, rules: RegionLoss, softmax: bool, early: bool) -> np.ndarray:
    raw, delta = raw.astype(np.float64), np.zeros(raw.shape)
    (rows, columns), (boxes, labels, valid) = GRID, truth

    def box_at(image, row, column, slot):
        x, y, w, h = raw[image, row, column, slot, :4]
        x, y = sigmoid(np.array([x, y])).astype(float)
        anchor = ANCHORS[slot]
        return (
            (column + x) / columns,
            (row + y) / rows,
            math.exp(w) * anchor[0] / columns,
            math.exp(h) * anchor[1] / rows,
        )

    def pull(where, aims, scale):
        now = raw[where][:4].copy()
        now[:2] = sigmoid(now[:2])
        slope = np.array([now[0] * (1 - now[0]), now[1] * (1 - now[1]), 1, 1])
        delta[where][:4] = scale * (np.array(aims) - now) * slope

    for image in range(2):
        kept = [
            (tuple(map(float, box)), int(label))
            for box, label, is_valid in zip(boxes[image], labels[image], valid[image], strict=True)
            if is_valid and box[2] > 0 and box[3] > 0
        ]
        for row, column, slot in np.ndindex(*GRID, len(ANCHORS)):
            where = image, row, column, slot
            objectness = float(sigmoid(raw[where][4]))
            slope = objectness * (1 - objectness)
            best = max((iou_of(box_at(*where), box) for box, _ in kept), default=0)
            delta[where][4] = 0 if best > rules.thresh else -rules.noobject_scale * objectness * slope
            if early:
                pull(where, [0.5, 0.5, 0, 0], 0.01)
        for box, label in kept:
            row, column = min(int(box[1] * rows), rows - 1), min(int(box[0] * columns), columns - 1)
            sizes = [
                (w / columns, h / rows) if rules.bias_match else box_at(image, row, column, slot)[2:]
                for slot, (w, h) in enumerate(ANCHORS)
            ]
            slot = int(np.argmax([iou_of((0, 0, *size), (0, 0, *box[2:])) for size in sizes]))
            where = image, row, column, slot
            logs = [math.log(box[2] * columns / ANCHORS[slot][0]), math.log(box[3] * rows / ANCHORS[slot][1])]
            pull(where, [box[0] * columns - column, box[1] * rows - row, *logs], rules.coord_scale)
            objectness = float(sigmoid(raw[where][4]))
            aim = iou_of(box_at(*where), box) if rules.rescore else 1
            delta[where][4] = rules.object_scale * (aim - objectness) * objectness * (1 - objectness)
            chances = raw[where][5:]
            if softmax:
                chances = np.exp(chances) / np.exp(chances).sum()
            delta[where][5:] = rules.class_scale * (np.eye(CLASSES)[label] - chances)
    return delta


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("bias_match", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equals_plain_loops(case, bias_match, rescore, softmax):
    scales = {"coord_scale": 1.5, "object_scale": 5, "noobject_scale": 0.8, "class_scale": 2}
    rules = RegionLoss(bias_match=bias_match, rescore=rescore, thresh=0.3, prior_steps=4, **scales)
    raw = random_raw(1)
    for step in (4, 5):
        got = head_loss(raw, CASES[case], rules, softmax=softmax, step=step)
        expected = expected_delta(raw, CASES[case], rules, softmax, early=step == 4)
        np.testing.assert_allclose(got.delta, expected, rtol=2e-5, atol=2e-6)
        assert np.any(got.delta.numpy()[..., 4] == 0) == (case != "none")


def test_the_last_truth_of_a_slot_has_it():
    boxes, labels, valid = (part[:, :3].copy() for part in CASES["crowded"])
    boxes[:] = boxes[0, 0]
    labels[:] = 0, 2, 1
    valid[:] = True
    got = head_loss(random_raw(2), (boxes, labels, valid), RegionLoss(bias_match=True))
    assert np.count_nonzero(got.targets.truth.numpy() == 2) == 2  # one in each image
    assert np.count_nonzero(got.targets.truth.numpy() >= 0) == 2
    pulled = np.argwhere(got.delta.numpy()[..., 5:] > 0)
    assert set(pulled[:, -1]) == {1}
