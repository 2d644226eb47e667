"""Fit of anchors and k-means, against Darknet's loops written out again in plain Python."""

import numpy as np
import pytest
import yaml

from configs.centernet.task import CenterNetHead
from configs.yolo.heads import RegionHead, YoloHead
from tests.tools.doctor.conftest import HEAD, only
from tools.doctor.anchors import anchor_findings, examine_anchors, fit, k_means, shape_iou
from tools.doctor.boxes import trained_sides
from tools.doctor.diagnosis import diagnose


def _sides(seed, count=300):
    return np.exp(np.random.default_rng(seed).normal([3, 3.4], [0.8, 0.6], (count, 2)))


def _iou(box, anchor):
    shared = min(box[0], anchor[0]) * min(box[1], anchor[1])
    return shared / (box[0] * box[1] + anchor[0] * anchor[1] - shared)


def _darknet_k_means(boxes, centres):
    """matrix.c do_kmeans from given centres; detector.c sorts them by area."""
    assigned = [0] * len(boxes)
    for _ in range(1000):
        closest = []
        for box in boxes:
            distances = [1 - _iou(box, centre) for centre in centres]
            closest.append(distances.index(min(distances)))
        if closest == assigned:
            break
        assigned = closest
        for number in range(len(centres)):
            mine = [box for box, where in zip(boxes, assigned, strict=True) if where == number]
            if mine:
                centres[number] = [sum(box[axis] for box in mine) / len(mine) for axis in (0, 1)]
    return sorted(centres, key=lambda centre: centre[0] * centre[1])


@pytest.mark.parametrize("count", [2, 5, 9])
def test_k_means_is_darknets(count):
    boxes = _sides(count)
    start = boxes[np.random.default_rng(7).permutation(len(boxes))[:count]]
    expected = _darknet_k_means(boxes.tolist(), start.tolist())
    np.testing.assert_allclose(k_means(boxes, count, seed=7), expected, rtol=1e-9)


def test_k_means_depends_on_the_seed_alone():
    boxes = _sides(0)
    np.testing.assert_array_equal(k_means(boxes, 6, 3), k_means(boxes, 6, 3))
    assert not np.array_equal(k_means(boxes, 6, 3), k_means(boxes, 6, 4))


def test_a_centre_without_boxes_stays():
    boxes = np.array([[10.0, 20], [10, 20], [30, 15]])
    for seed in range(6):  # some of them start from both equal boxes
        assert {tuple(row) for row in k_means(boxes, 3, seed).tolist()} == {(10, 20), (30, 15)}


def test_fit_by_hand():
    boxes = np.array([[10.0, 20], [20, 20], [100, 10], [12, 40]])
    anchors = np.array([[10.0, 20], [24, 20]])
    np.testing.assert_allclose(shape_iou(boxes, anchors)[:2], [[1, 200 / 480], [0.5, 400 / 480]])
    found = fit(boxes, anchors)
    ious = [1, 400 / 480, 240 / 1240, 200 / 480]  # the best of each
    assert found.mean_iou == pytest.approx(np.mean(ious))
    assert found.recall == {"0.25": 0.75, "0.5": 0.5, "0.75": 0.5}
    assert found.ratio_recall == 0.75  # 100 is more than 4 times 24


def test_levels_and_boxes_of_none():
    head = YoloHead(anchors=((10, 20), (20, 20), (40, 40)), levels=({"mask": (2,)}, {"mask": (1,)}))
    boxes = np.array([[39.0, 40], [41, 40], [42, 40], [21, 20], [10, 21]])
    found = examine_anchors(head, boxes, None, 0)
    assert [level.boxes for level in found.levels] == [3, 1] and found.without_level == 1
    assert found.levels[0].anchors == ((40, 40),)
    assert "20 % of the boxes" in only_finding(found, "anchor_of_no_level").what


def only_finding(anchors, kind):
    (finding,) = [one for one in anchor_findings(anchors, "train") if one.kind == kind]
    return finding


def test_an_idle_level_and_anchors_of_another_data_set():
    head = YoloHead(anchors=((10, 20), (400, 400)), levels=({"mask": (1,)}, {"mask": (0,)}))
    boxes = np.array([[30.0, 60], [60, 30], [31, 61], [61, 29]])
    found = examine_anchors(head, boxes, None, 0)
    assert only_finding(found, "idle_level").what.startswith("levels[0]")
    finding = only_finding(found, "anchors_fit_badly")
    assert finding.severity == "warning" and found.gain > 0.5
    pasted = yaml.safe_load(found.yaml)
    assert found.yaml in finding.remedy and pasted == {"anchors": [list(row) for row in found.k_means.anchors]}
    better = YoloHead(**pasted, levels=({"mask": (1,)}, {"mask": (0,)}))
    assert fit(boxes, np.array(better.anchors)).mean_iou == found.k_means.mean_iou > 0.9


@pytest.mark.parametrize(
    ("head", "reason"),
    [(CenterNetHead(), "'centernet' has no anchors"), (RegionHead(anchors=((1, 2),)), "in cells of a grid")],
)
def test_heads_without_anchors_in_pixels(head, reason):
    found = examine_anchors(head, _sides(0), None, 0)
    assert reason in found.skipped and reason in only_finding(found, "anchors_skipped").what
    assert found.as_dict() == {"skipped": found.skipped}


@pytest.mark.parametrize(("resize", "scale"), [("letterbox", (96 / 80, 57 / 48)), ("stretch", (96 / 80, 64 / 48))])
def test_boxes_are_measured_in_the_input(patient, resize, scale):
    diagnosis = patient.diagnose(f"task.evaluation.resize={resize}")
    protocol = patient.experiment(f"task.evaluation.resize={resize}").task.evaluation
    sides = trained_sides(diagnosis.splits[0], (64, 96), protocol)
    np.testing.assert_allclose(sides[:2], np.array([[16, 12.5], [33.5, 30]]) * scale)


def test_boxes_that_training_does_not_see_are_left_out(patient):
    patient.train.box(100, [1, 1, 70, 40], iscrowd=1)
    patient.train.box(100, [1, 1, 0.4, 40])
    assert patient.diagnose().anchors.boxes == 24


def test_boxes_that_reach_out_of_their_image_are_measured_as_training_clips_them(patient):
    patient.train.box(100, [40, 8, 1e9, 1e9])
    diagnosis = patient.diagnose("task.data.train.on_bad=skip", "task.evaluation.resize=stretch")
    protocol = patient.experiment("task.evaluation.resize=stretch").task.evaluation
    sides = trained_sides(diagnosis.splits[0], (64, 96), protocol)
    np.testing.assert_allclose(sides[sides[:, 0].argmax()], [40 * 96 / 80, 40 * 64 / 48])


def test_another_number_of_anchors(patient):
    experiment = patient.experiment()
    assert len(experiment.task.model.head.anchors) == len(HEAD["anchors"])
    assert len(diagnose(experiment, 3).anchors.k_means.anchors) == 3
    assert "too few for 25" in only(diagnose(experiment, 25), "anchors_skipped").what
