"""Soft-NMS and the merge of test scales against what CenterNet itself computed, and against its plain loop."""

import numpy as np
import pytest

from official.vision.soft_nms import Rows, merge_scales, soft_nms


def test_soft_nms_and_merge_of_scales_as_recorded(as_recorded):
    quantities = {row.quantity for row in as_recorded("centernet_decode", "decode_multiscale_softnms")}
    assert {"soft3/n_keep", "soft3/out_inplace/boxes", "merge/out_class4/scores"} <= quantities


def plain_loop(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """One box at a time, in place: what moves where when a box falls below the least score."""
    rows, count, first = rows.astype(np.float32), len(rows), 0
    for first in range(len(rows)):
        if first >= count:
            break
        best = first + int(np.argmax(rows[first:count, 4]))
        rows[[first, best]] = rows[[best, first]]
        at = first + 1
        while at < count:
            width, height = np.minimum(rows[first, 2:4], rows[at, 2:4]) - np.maximum(rows[first, :2], rows[at, :2]) + 1
            if width > 0 and height > 0:
                areas = [np.prod(rows[k, 2:4] - rows[k, :2] + 1) for k in (first, at)]
                overlap = width * height / (sum(areas) - width * height)
                rows[at, 4] *= np.exp(-(overlap**2) / 0.5)
                if rows[at, 4] < 0.001:
                    rows[at] = rows[count - 1]
                    count -= 1
                    continue
            at += 1
    return rows, count


@pytest.mark.parametrize("seed", range(6))
def test_boxes_that_fall_leave_the_original_s_duplicates(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 40, [60, 2])
    rows = np.concatenate([corners, corners + rng.uniform(5, 60, [60, 2]), rng.uniform(0, 0.01, [60, 1])], axis=1)
    rows = rows.astype(np.float32)
    expected, count = plain_loop(rows)
    assert count < 55
    boxes, scores, running = soft_nms(rows[:, :4], rows[:, 4])
    assert running == count
    np.testing.assert_array_equal(boxes, expected[:, :4])
    np.testing.assert_allclose(scores, expected[:, 4], rtol=1e-5)


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
