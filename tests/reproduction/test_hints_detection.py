"""The formulas that hints compute with are the originals': without a mistake they give what was recorded."""

import numpy as np
import pytest

from reproduction.golden import centernet_targets, losses
from reproduction.golden.case import Case
from reproduction.hints.assignment import assignment_alternatives
from reproduction.hints.box_loss import BoxLoss, box_loss_alternatives
from reproduction.hints.centernet import Placed, original_radius, radius_alternatives, target_alternatives
from reproduction.hints.decoding import YoloHead
from reproduction.hints.images import placement_alternatives
from reproduction.hints.overlaps import derivative, family, suppressed
from reproduction.hints.scores import Scores
from reproduction.hints.training import moved_alternatives

KINDS = {"default": "per_class_iou", "greedynms": "greedynms", "diounms": "diounms"}


def test_overlaps_are_darknets(golden):
    trace = Case(golden("misc/iou.npz")).trace
    assert np.allclose(family(trace["pred"], trace["truth"]), trace["iou_giou_diou_ciou"], atol=1e-5)


def test_derivative_is_half_of_darknets_by_width_and_height(golden):
    trace = Case(golden("misc/iou.npz")).trace
    overlap = trace["iou_giou_diou_ciou"][:, 0]
    touching = (overlap > 0.05) & (overlap < 0.99)  # where they are the same, it is that of one side
    ours = derivative(trace["pred"], trace["truth"], "iou") * [1, 1, 2, 2]
    assert np.allclose(ours[touching], trace["dx_dy_dw_dh_iou"][touching], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_suppression_is_darknets(golden, kind):
    trace = Case(golden("misc/nms.npz")).trace
    given, after = trace["case1/in"].astype(float), trace[f"case1/{kind}_0.45"][:, 1:]
    x, y, w, h = given[:, :4].T
    boxes = np.column_stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
    left = suppressed(boxes, given[:, 5:], KINDS[kind], 0.45, 0.0)
    rows, columns = np.nonzero(after)
    expected = np.column_stack([boxes[rows], columns, after[rows, columns]])
    assert sorted(left.round(5).tolist()) == sorted(expected.round(5).tolist())


@pytest.mark.parametrize("name", ["ciou_v4tiny", "mse_v3"])
def test_assignment_is_darknets(golden, name):
    case = Case(golden(f"loss/{name}.npz"))
    for layer in case.heads:
        right = losses._rule(case, layer)
        recorded = case.trace[f"train/L{layer.index:03d}_class_ids"]
        assert np.array_equal(right.class_ids().ravel(), recorded.ravel())
        others = assignment_alternatives(right)
        assert {cause.partition(" ")[0] for cause in others} >= {"anchor_mask", "padded_rows_scatter", "box_format"}


def test_gradient_of_boxes_is_darknets(shared):
    """Of plain IoU, which Darknet differentiates rightly but for the factor of width and height."""
    case = Case(shared / "golden" / "loss" / "iou_plain.npz")
    for layer in case.heads:
        arrays = [case.trace[f"train/L{number:03d}_{what}"] for number, what in _around(layer.index)]
        raw, delta = (array.reshape(len(array), len(layer.mask), -1, *array.shape[2:]) for array in arrays)
        size = case.network.net.height, case.network.net.width
        head = YoloHead(layer.anchors, layer.mask, size, layer.scale_x_y)
        one = BoxLoss(head, losses._rule(case, layer), "iou", layer.iou_normalizer, raw, delta)
        again = one.with_slopes("iou", lambda exp, anchor: 2 * exp)
        differs = ~np.isclose(again[:, :, :4], delta[:, :, :4], rtol=1e-3, atol=1e-4)
        positives = (delta[:, :, :4] != 0).any(axis=2).sum()
        assert positives
        assert differs.any(axis=2).sum() <= positives / 4  # where boxes are apart, Darknet's formula has no meaning
        assert "iou_kind giou" in box_loss_alternatives(one)


def _around(index: int) -> list[tuple[int, str]]:
    return [(index - 1, "output"), (index, "loss_delta")]


@pytest.mark.parametrize("part", ["s0", "s3"])
def test_centernets_targets(golden_centernet, part):
    trace = Case(golden_centernet("targets_small_val.npz"), part).trace
    classes, *grid = trace[f"{part}/hm"].shape
    room = len(trace[f"{part}/reg_mask"])
    given = centernet_targets.truth(trace, part, room)
    count = int(given.valid.numpy().sum())
    placed = Placed(given.boxes.numpy()[0, :count], given.classes.numpy()[0, :count], tuple(grid), classes, room)
    for name, array in placed.targets().items():
        assert np.allclose(array, trace[f"{part}/{name}"], atol=1e-5), name
    assert set(target_alternatives(placed)) == set(placed.targets())


def test_centernets_radius(golden_centernet):
    trace = Case(golden_centernet("gaussian.npz"), "radius").trace
    sizes = np.ceil(trace["radius/height_width"]).astype(float)
    ours = [max(0, int(original_radius(*size))) for size in sizes]
    assert np.array_equal(ours, trace["radius/int_overlap0.7"])
    assert all((one() != ours).any() for one in radius_alternatives(sizes).values())


def test_moving_statistics():
    start, batch = np.array([1.0, 2.0]), np.array([5.0, -3.0])
    others = moved_alternatives(start, 0.9 * start + 0.1 * batch, 0.9)
    assert np.allclose(others["batch_norm_momentum 0.1"](), 0.1 * start + 0.9 * batch)


def test_boxes_taken_back_from_a_letterboxed_input():
    """A box that fills the image fills the middle of a wide input; taken for a stretched one it is narrow."""
    rows = np.array([[0.5, 0.5, 1.0, 1.0, 0.9]])
    others = placement_alternatives(rows, (40, 40), (40, 80), "letterbox")
    assert np.allclose(others["letterbox_or_stretch"](), [[0.5, 0.5, 0.5, 1.0, 0.9]])


def test_scores_with_a_mistake():
    truth = {
        "images": [{"id": 1, "width": 100, "height": 60}],
        "categories": [{"id": number, "name": str(number)} for number in (1, 2, 4)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [10, 10, 30, 20], "area": 600}],
    }
    found = [{"image_id": 1, "category_id": 4, "bbox": [10, 10, 30, 20], "score": 0.15}]
    others = Scores(truth, found).alternatives("AP")
    assert others["score_floor 0.1"]() == pytest.approx(1.0)
    assert others["score_floor 0.2"]() == pytest.approx(0.0)
    assert others["class_ids_shifted plus 1"]() == pytest.approx(0.0)
    assert others["metric_protocol Darknet's mAP for AP"]() > 0
