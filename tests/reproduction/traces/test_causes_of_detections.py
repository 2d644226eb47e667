"""The formulas that hints compute with are the originals': without a mistake they give what was recorded."""

import numpy as np
import pytest

from reproduction.centernet import targets
from reproduction.centernet.mistakes import radius_alternatives, target_alternatives
from reproduction.traces.case import Case
from reproduction.traces.causes.images import placement_alternatives
from reproduction.traces.causes.numbers import moved_alternatives
from reproduction.traces.causes.scores import Scores
from reproduction.yolo import loss
from reproduction.yolo.case import heads_of
from reproduction.yolo.mistakes.heads import assignment_alternatives, delta_alternatives
from reproduction.yolo.mistakes.scores import OTHER_SCORES


@pytest.mark.parametrize("name", ["ciou_v4tiny", "mse_v3"])
def test_assignment_is_darknets(golden, name):
    case = Case(golden(f"loss/{name}.npz"))
    for layer in heads_of(case):
        right = loss._rule(case, layer)
        recorded = case.trace[f"train/L{layer.index:03d}_class_ids"]
        assert np.array_equal(right.class_ids().ravel(), recorded.ravel())
        others = assignment_alternatives(right)
        assert {cause.partition(" ")[0] for cause in others} >= {"anchor_mask", "padded_rows_scatter", "box_format"}


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_gradient_of_boxes_with_a_mistake(golden, kind):
    """Each is another than what was recorded, which the formulas give without one."""
    case = Case(golden(f"loss/{kind}_plain.npz"))
    for layer in heads_of(case):
        right, delta = loss._rule(case, layer), loss.of_slots(case, layer, f"train/L{layer.index:03d}_loss_delta")
        np.testing.assert_allclose(right.delta(), delta, rtol=2e-6, atol=2e-6)
        others = delta_alternatives(right, delta)
        assert f"iou_kind {kind}" not in others
        for name, one in others.items():
            assert one().shape == delta.shape
            assert np.abs(one() - delta).max() > 1e-5, name


@pytest.mark.parametrize("part", ["s0", "s3"])
def test_centernets_targets_with_a_mistake(golden_centernet, part):
    trace = Case(golden_centernet("targets_small_val.npz"), part).trace
    classes, *grid = trace[f"{part}/hm"].shape
    given = targets.truth(trace, part, len(trace[f"{part}/reg_mask"]))
    others = target_alternatives(*(one.numpy()[0] for one in given), tuple(grid), classes)
    for name, of_target in others.items():
        assert all(one().shape == trace[f"{part}/{name}"].shape for one in of_target.values())
    causes = {
        cause
        for name, of_target in others.items()
        for cause, one in of_target.items()
        if np.abs(one() - trace[f"{part}/{name}"]).max() > 1e-3
    }
    assert len(causes) >= (8 if given.valid.numpy().any() else 1)  # without an object only padding can go wrong


def test_radii_with_a_mistake(golden_centernet):
    trace = Case(golden_centernet("gaussian.npz"), "radius").trace
    right = trace["radius/int_overlap0.7"]
    assert all((one() != right).any() for one in radius_alternatives(trace["radius/height_width"]).values())


def test_moving_statistics():
    start, batch = np.array([1.0, 2.0]), np.array([5.0, -3.0])
    others = moved_alternatives(start, batch, 0.9)
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
    others = Scores(truth, found, OTHER_SCORES).alternatives("AP")
    assert others["score_floor 0.1"]() == pytest.approx(1.0)
    assert others["score_floor 0.2"]() == pytest.approx(0.0)
    assert others["class_ids_shifted plus 1"]() == pytest.approx(0.0)
    assert others["metric_protocol Darknet's mAP for AP"]() > 0
