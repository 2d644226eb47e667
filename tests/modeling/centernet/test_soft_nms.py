"""Soft-NMS and the merge of test scales against what CenterNet itself computed, and against its plain loop."""

import numpy as np
import pytest

from modeling.centernet.soft_nms import Rows, merge_scales, soft_nms
from reproduction.restated import nms


def test_soft_nms_and_merge_of_scales_as_recorded(as_recorded):
    quantities = {row.quantity for row in as_recorded("centernet_decode", "decode_multiscale_softnms")}
    assert {"soft3/n_keep", "soft3/out_inplace/boxes", "merge/out_class4/scores"} <= quantities


@pytest.mark.parametrize("seed", range(6))
def test_boxes_that_fall_leave_the_original_s_duplicates(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, [60, 2])
    rows = np.concatenate([corners, corners + rng.uniform(5, 60, [60, 2]), rng.uniform(0, 0.01, [60, 1])], axis=1)
    rows = rows.astype(np.float32)
    expected, lowered, count = nms.soft_nms(rows[:, :4], rows[:, 4])
    assert count < 55
    boxes, scores, running = soft_nms(rows[:, :4], rows[:, 4])
    assert running == count
    np.testing.assert_array_equal(boxes, expected)
    np.testing.assert_allclose(scores, lowered, rtol=1e-5)
    classes = rng.integers(0, 3, 60)
    scales = [[part[some] for part in (rows[:, :4], rows[:, 4], classes)] for some in (slice(30), slice(30, 60))]
    merged = merge_scales([Rows(*scale) for scale in scales], 3, 20)
    for ours, theirs in zip(merged, nms.merge_scales([nms.Kept(*scale) for scale in scales], 3, 20), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_input_is_left_alone_and_nothing_gives_nothing():
    boxes, scores = np.zeros((3, 4), np.float32), np.full(3, 0.5, np.float32)
    soft_nms(boxes, scores)
    np.testing.assert_array_equal(scores, 0.5)
    empty = Rows(boxes[:0], scores[:0], np.zeros(0, np.int64))
    assert soft_nms(*empty[:2])[2] == 0
    assert len(merge_scales([empty, empty], 3, 100).scores) == 0


def test_merge_keeps_equals_of_the_last():
    boxes = np.array([[20 * k, 0, 20 * k + 9, 9] for k in range(6)], np.float32)
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.1], np.float32)
    merged = merge_scales([Rows(boxes, scores, np.array([1, 0, 1, 0, 1, 0]))], 2, 3)
    np.testing.assert_array_equal(merged.classes, [0, 0, 1, 1])
    np.testing.assert_array_equal(merged.scores, scores[[1, 3, 0, 2]])
