"""The [region] loss against the restated one, and what its slots are asked for."""

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import RegionHead
from configs.yolo.losses import RegionLoss
from losses.yolo.darknet.region import region_heads
from official.core.task import Moment
from reproduction.yolo.restated import region
from tests.losses.yolo.cases import CASES, CLASSES, SIZE, as_truth

GRID = (6, 8)
ANCHORS = ((0.8, 1.2), (2.5, 2.0), (4.5, 3.0))


def random_raw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.7, (2, *GRID, len(ANCHORS), 5 + CLASSES)).astype(np.float32)


def head_loss(raw, truth, rules: RegionLoss, *, softmax: bool = True, step: int = 1):
    head = RegionHead(anchors=ANCHORS, softmax=softmax)
    (got,) = region_heads([tf.constant(raw)], as_truth(truth), head, rules, Moment(tf.constant(step, tf.int64), SIZE))
    return got


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("bias_match", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_restated_gradient(case, bias_match, rescore, softmax):
    scales = {"coord_scale": 1.5, "object_scale": 5, "noobject_scale": 0.8, "class_scale": 2}
    rules = RegionLoss(bias_match=bias_match, rescore=rescore, thresh=0.3, prior_steps=4, **scales)
    raw, head = random_raw(1), RegionHead(anchors=ANCHORS, softmax=softmax)
    for step in (4, 5):
        got = head_loss(raw, CASES[case], rules, softmax=softmax, step=step)
        (expected,) = region.darknet_deltas([raw], as_truth(CASES[case]), head, rules, step).deltas
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
