"""The restated hand-written gradients, costs and assignments against what Darknet itself computed."""

import numpy as np
import pytest

from reproduction.yolo.loss import COST, DELTA
from reproduction.yolo.restated import boxes, gaussian_yolo, yolo, yolov1
from reproduction.yolo.restated.common import DarknetResult
from reproduction.yolo.restated.heads import LOSS
from tests.losses.yolo.traces import Case, load

YOLO = [
    *("mse_v3", "mse_v3_iounorm1", "mse_v3_show_details0", "mse_multianchor", "mse_new_coords", "mse_truth_thresh"),
    *("iou_plain", "giou_plain", "diou_plain", "ciou_plain", "ciou_v4", "ciou_v4tiny", "ciou_v4_heads_differ_scale"),
    *("ciou_max_delta_small", "ciou_focal", "ciou_counters_per_class", "ciou_label_smooth", "ciou_objectness_smooth"),
    *("ciou_csp_new_coords", "ciou_iou_thresh_kind_giou", "ciou_iou_thresh_kind_diou", "ciou_iou_thresh_kind_ciou"),
]
GAUSSIAN = ["gaussian_bdd", "gaussian_ciou"]
OTHERS = ["region_v2_seen_small", "region_v2_seen_large", "detection_v1"]
CASES = YOLO + GAUSSIAN + OTHERS
SMOOTH = ("ciou_objectness_smooth", "ciou_csp_new_coords")  # ignored slots have a delta of their own


def restated(case: Case) -> DarknetResult:
    outputs = [raw.numpy() for raw in case.outputs]
    if case.head.type == "detection":
        cells = yolov1.CellTruths(*(part.numpy() for part in case.truth))
        return yolov1.cell_deltas(outputs[0], cells, case.head, case.loss)
    size, step = case.moment.input_size, int(case.moment.step)
    return LOSS[case.head.type, "darknet"](outputs, case.truth, case.head, case.loss, size, step)


def in_darknets_order(delta: np.ndarray) -> np.ndarray:
    return (delta.transpose(0, 3, 4, 1, 2) if delta.ndim == 5 else delta).ravel()


@pytest.mark.parametrize("name", CASES)
def test_delta_and_cost_of_each_head_and_of_the_network(golden, name):
    case = load(golden, name)
    found = restated(case)
    costs = []
    for delta, cost, recorded in zip(found.deltas, found.costs, case.deltas(), strict=True):
        assert np.count_nonzero(recorded)
        np.testing.assert_allclose(delta, recorded, rtol=DELTA.relative, atol=DELTA.absolute)
        squares = np.square(in_darknets_order(delta).astype(np.float32))
        exact = float(squares.sum(dtype=np.float64))
        # Darknet adds the squares up in one float32, in which what is small beside the sum so far is lost.
        lost = float(np.cumsum(squares)[-1]) - exact
        costs.append(cost + (lost if np.isclose(cost, exact, rtol=1e-6) else 0))
    np.testing.assert_allclose(costs, case.recorded("cost"), rtol=COST.bound)
    np.testing.assert_allclose(np.mean(costs), case.arrays["train/network_cost"], rtol=COST.bound)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_made_of_cost_and_delta(golden, name):
    case = load(golden, name)
    found, batch = restated(case), len(case.arrays["truth"])
    for gradient, delta in zip(found.gradients, found.deltas, strict=True):
        np.testing.assert_array_equal(gradient, delta / -batch)
    np.testing.assert_allclose(found.value, np.mean(found.costs) / batch, rtol=1e-12)
    np.testing.assert_allclose(found.value, sum(found.parts.values()), rtol=1e-12)


@pytest.mark.parametrize("name", YOLO + GAUSSIAN)
def test_assignment(golden, name):
    case = load(golden, name)
    restated_assign = yolo.assign if case.head.type == "yolo" else gaussian_yolo.assign
    smoothing, total, claimed = case.loss.label_smoothing / 2, 0, 0
    for number, (raw, delta) in enumerate(zip(case.outputs, case.deltas(), strict=True)):
        level, end = case.head.levels[number], 8 if name in GAUSSIAN else 4
        rules = level.loss or case.loss
        found = restated_assign(raw.numpy(), case.truth, case.head, level, rules, case.moment.input_size)
        total += len(found.matches)
        claimed += np.count_nonzero(found.object)
        if name in YOLO:
            classes = np.full(found.object.shape, -1)
            classes[tuple(found.matches[found.best, :4].T)] = found.labels[found.best]  # the last of a slot counts
            class_ids = case.recorded("class_ids")[number]
            np.testing.assert_array_equal(classes.transpose(0, 3, 1, 2).ravel(), class_ids)
        if name == "mse_truth_thresh":  # where slots that overlap are asked, too
            assert np.all(found.object <= np.any(delta[..., :end] != 0, axis=-1))
            continue
        np.testing.assert_array_equal(found.object, np.any(delta[..., :end] != 0, axis=-1))
        np.testing.assert_array_equal(found.classes, delta[..., end + 1 :] > smoothing)
        if name not in SMOOTH:
            np.testing.assert_array_equal(found.ignored, delta[..., end] == 0)
            assert found.ignored.any() or number
    if name in YOLO and name != "mse_truth_thresh":
        np.testing.assert_array_equal([total, total - claimed], case.arrays["train/total_bbox_rewritten"])


def test_overlaps_and_their_slopes_are_darknets(golden):
    """Within what float32 leaves of edges as far out as 2, and of a union that is a small difference of large areas."""
    trace = np.load(golden("misc/iou.npz"))
    predicted, true = trace["pred"], trace["truth"]
    smallest = np.minimum(predicted[:, 2:], true[:, 2:]).min(axis=1)
    shared = np.prod(boxes.shared_sides(predicted, true), axis=0)
    areas = boxes.area(predicted) + boxes.area(true)
    cancelled = ((areas + np.abs(shared)) / np.abs(areas - shared))[:, np.newaxis]
    assert np.quantile(cancelled, 0.8) < 10
    for column, (kind, overlap) in enumerate(boxes.DARKNET_KINDS.items()):
        error = np.abs(overlap(predicted, true) - trace["iou_giou_diou_ciou"][:, column])
        assert np.all(error < 1e-6 + 4 * 2.0**-24 / smallest)
        slopes, recorded = boxes.darknet_slopes(predicted, true, kind), trace[f"dx_dy_dw_dh_{kind}"]
        assert np.all(np.abs(slopes - recorded) < 1e-5 + 1e-5 * np.abs(recorded) * cancelled)


def test_a_damaged_recording_is_told(golden):
    """Guards the comparison above: a single wrong number of a delta is seen."""
    case = load(golden, "mse_v3")
    delta = case.deltas()[0].copy()
    delta[0, 0, 0, 0, 4] += 1e-5
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(restated(case).deltas[0], delta, rtol=DELTA.relative, atol=DELTA.absolute)
