"""Darknet's mean average precision on cases worked out by hand, one for each rule (validate_detector_map)."""

import numpy as np
import pytest

from official.vision.darknet_map import Labelled, box_iou, darknet_map

LEFT, RIGHT = [0.25, 0.5, 0.4, 0.4], [0.75, 0.5, 0.4, 0.4]  # apart
FAR = [0.5, 0.9, 0.1, 0.1]  # over neither


def shifted(box, x):
    """The box moved by a share of its width: IoU (1 - x) / (1 + x) with where it was."""
    return [box[0] + x * box[2], *box[1:]]


def labelled(rows):
    """Rows of (image, class, box)."""
    images, classes, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Labelled(np.array(images, int), np.array(classes, int), np.array(boxes, np.float32).reshape(-1, 4))


def score(truth, found, classes=1, **options):
    """`found`: rows of (image, class, box, probability)."""
    probabilities = np.array([row[3] for row in found], np.float32)
    return darknet_map(labelled(truth), labelled([row[:3] for row in found]), probabilities, classes, **options)


def means(result):
    return [result[name] for name in ("auc", "11", "101")]


def test_all_found_is_one():
    result = score([(7, 0, LEFT), (9, 0, RIGHT)], [(7, 0, LEFT, 0.9), (9, 0, RIGHT, 0.3)])
    assert means(result) == [1, 1, 1]
    expected = {"TP": 2, "FP": 0, "FN": 0, "precision": 1, "recall": 1, "F1": 1, "average_iou": 1}
    assert result["at_0.25"] == pytest.approx(expected, abs=1e-6)


def test_curve_area_and_points():
    """By rank: true, false, true, of 4 objects. Recall 1/4, 1/4, 1/2 at precision 1, 1/2, 2/3."""
    truth = [(image, 0, LEFT) for image in range(4)]
    found = [(0, 0, LEFT, 0.9), (1, 0, FAR, 0.8), (2, 0, LEFT, 0.7)]
    # The area: 1/4 at 1, then 1/4 at 2/3, the best precision at that recall or beyond.
    # 11 points: recalls 0, .1, .2 at precision 1, recalls .3, .4, .5 at 2/3, five at 0.
    # 101 points: 0 to .25 are 26, .26 to .5 are 25. A recall that is met exactly counts.
    expected = [1 / 4 + 1 / 4 * 2 / 3, (3 + 3 * 2 / 3) / 11, (26 + 25 * 2 / 3) / 101]
    assert means(score(truth, found)) == pytest.approx(expected, rel=1e-14)


def test_precision_is_the_best_at_that_recall_or_beyond():
    """By rank: false, true, true of 2: precision 0, 1/2, 2/3, so 2/3 from the first recall on."""
    found = [(0, 0, FAR, 0.9), (0, 0, LEFT, 0.8), (1, 0, LEFT, 0.7)]
    assert means(score([(0, 0, LEFT), (1, 0, LEFT)], found)) == pytest.approx([2 / 3] * 3, rel=1e-14)


def test_the_mean_counts_classes_without_objects_as_zero():
    result = score([(0, 1, LEFT)], [(0, 1, LEFT, 0.9), (0, 2, LEFT, 0.8)], classes=4)
    assert means(result) == [1 / 4] * 3
    for values in result["per_class"].values():
        assert values.tolist() == [0, 1, 0, 0]


def test_iou_must_be_above_the_threshold():
    """Half of the box, exactly in float32: IoU 0.5 is not more than 0.5."""
    truth, half = [0.5, 0.5, 0.5, 0.5], [0.5, 0.375, 0.5, 0.25]
    assert box_iou(np.float32(truth), np.float32(half)) == 0.5
    assert score([(0, 0, truth)], [(0, 0, half, 0.9)])["auc"] == 0
    assert score([(0, 0, truth)], [(0, 0, half, 0.9)], iou_threshold=0.49)["auc"] == 1
    more = [0.5, 0.376, 0.5, 0.252]
    assert score([(0, 0, truth)], [(0, 0, more, 0.9)])["auc"] == 1


def test_only_truth_of_the_class_and_image_matches():
    truth = [(0, 0, LEFT), (1, 1, LEFT)]
    result = score(truth, [(0, 1, LEFT, 0.9), (1, 0, LEFT, 0.8)], classes=2)
    assert means(result) == [0, 0, 0]
    assert (result["at_0.25"]["TP"], result["at_0.25"]["FP"], result["at_0.25"]["FN"]) == (0, 2, 2)


def test_repeats_are_false():
    """By rank: true, the same truth again, true."""
    truth = [(0, 0, LEFT), (0, 0, RIGHT)]
    found = [(0, 0, LEFT, 0.9), (0, 0, shifted(LEFT, 0.05), 0.8), (0, 0, RIGHT, 0.7)]
    assert score(truth, found)["auc"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3, rel=1e-14)


def test_each_takes_its_best_truth_though_a_better_detection_has_it():
    """Both detections overlap the first truth most; the second truth, which the other also overlaps, stays missed.

    COCO's matching would give it the second truth.
    """
    first, second = LEFT, shifted(LEFT, 0.3)
    truth = [(0, 0, first), (0, 0, second)]
    found = [(0, 0, first, 0.9), (0, 0, shifted(first, 0.1), 0.8)]  # IoU 9/11 with the first, 8/12 with the second
    result = score(truth, found)
    assert means(result) == pytest.approx([1 / 2, 6 / 11, 51 / 101], rel=1e-14)
    assert result["at_0.25"]["FN"] == 1


def test_of_equal_overlaps_the_first_truth():
    """Two truths at one place: both detections match the first."""
    found = [(0, 0, LEFT, 0.9), (0, 0, LEFT, 0.8)]
    assert score([(0, 0, LEFT), (0, 0, LEFT)], found)["auc"] == 1 / 2


def test_rank_is_by_probability_over_all_images():
    """The most probable of a truth's detections is the true one, in whatever order they come."""
    truth = [(0, 0, LEFT), (1, 0, LEFT)]
    found = [(1, 0, LEFT, 0.5), (0, 0, shifted(LEFT, 0.05), 0.4), (0, 0, LEFT, 0.9), (0, 0, FAR, 0.7)]
    # True .9, false .7, true .5, repeat .4.
    assert score(truth, found)["auc"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3, rel=1e-14)


def test_equal_probabilities_rank_in_order():
    truth = [(0, 0, LEFT)]
    assert score(truth, [(0, 0, FAR, 0.5), (0, 0, LEFT, 0.5)])["auc"] == 1 / 2
    assert score(truth, [(0, 0, LEFT, 0.5), (0, 0, FAR, 0.5)])["auc"] == 1


def test_classes_have_their_own_curves():
    """Another class's mistakes between two detections change nothing."""
    truth = [(0, 0, LEFT), (0, 0, RIGHT), (1, 1, LEFT)]
    found = [(0, 0, LEFT, 0.9), (1, 1, FAR, 0.8), (1, 1, LEFT, 0.7), (0, 0, RIGHT, 0.6)]
    result = score(truth, found, classes=2)
    assert result["per_class"]["auc"].tolist() == [1, 1 / 2] and result["auc"] == 3 / 4


def test_probability_at_the_floor_is_no_detection():
    truth = [(0, 0, LEFT)]
    assert score(truth, [(0, 0, LEFT, 0.005)])["auc"] == 0
    assert score(truth, [(0, 0, LEFT, 0.00501)])["auc"] == 1
    assert score(truth, [(0, 0, FAR, 0.005), (0, 0, LEFT, 0.004)])["at_0.25"]["FN"] == 1


def test_counts_at_a_confidence():
    """Of 3 objects one is found surely, one improbably; a false alarm is sure, and a repeat. 0.25 is not above 0.25."""
    truth = [(0, 0, LEFT), (0, 0, RIGHT), (1, 0, LEFT)]
    near = shifted(LEFT, 1 / 9)  # IoU 0.8
    found = [(0, 0, near, 0.9), (0, 0, LEFT, 0.8), (0, 0, FAR, 0.3), (0, 0, RIGHT, 0.25)]
    result = score(truth, found)["at_0.25"]
    assert result == pytest.approx(
        {"TP": 1, "FP": 2, "FN": 2, "precision": 1 / 3, "recall": 1 / 3, "F1": 1 / 3, "average_iou": 0.8 / 3}, abs=1e-6
    )


def test_counts_give_a_truth_to_its_first_detection_however_improbable():
    """In the order of the rows, not of rank: the sure detection behind it is a repeat. The mean goes by rank."""
    result = score([(0, 0, LEFT)], [(0, 0, LEFT, 0.1), (0, 0, LEFT, 0.9)])
    assert result["auc"] == 1
    assert (result["at_0.25"]["TP"], result["at_0.25"]["FP"], result["at_0.25"]["FN"]) == (0, 1, 1)


@pytest.mark.parametrize("truth", [[], [(0, 0, LEFT)]])
@pytest.mark.parametrize("found", [[], [(3, 0, LEFT, 0.9)]])
def test_nothing_there_or_nothing_found(truth, found):
    result = score(truth, found, classes=2)
    assert means(result) == [0, 0, 0]
    counts = result["at_0.25"]
    assert (counts["TP"], counts["FP"], counts["FN"]) == (0, len(found), len(truth))
    assert counts["precision"] == counts["recall"] == counts["F1"] == counts["average_iou"] == 0


def test_boxes_are_not_clipped_and_empty_ones_match_nothing():
    """Half of the detection lies outside the image: clipped it would be the truth, as it is it has IoU 0.5."""
    truth = [(0, 0, [0.125, 0.5, 0.25, 0.5])]
    assert score(truth, [(0, 0, [0.0, 0.5, 0.5, 0.5], 0.9)])["auc"] == 0
    empty = [0.5, 0.5, 0.0, 0.0]
    assert score([(0, 0, empty)], [(0, 0, empty, 0.9)])["auc"] == 0


@pytest.mark.parametrize(("truth", "found"), [([(0, 2, LEFT)], []), ([], [(0, -1, LEFT, 0.9)])])
def test_a_class_that_there_is_not(truth, found):
    with pytest.raises(ValueError, match=r"boxes of class (2|-1); expected 0 to 1"):
        score(truth, found, classes=2)


def test_ious_are_darknets(golden):
    recorded = np.load(golden("misc/iou.npz"))
    ours = box_iou(recorded["pred"], recorded["truth"])
    np.testing.assert_array_equal(ours, recorded["iou_giou_diou_ciou"][:, 0])


def straight_loop(truth, found, probabilities, classes):
    """validate_detector_map as one goes down its ranks, for random cases."""
    rows = []
    for image, class_id, box, probability in zip(*found, probabilities, strict=True):
        best, overlap = -1, np.float32(0)
        for row, (other, of_class, object_box) in enumerate(zip(*truth, strict=True)):
            iou = box_iou(box, object_box)
            if other == image and of_class == class_id and iou > np.float32(0.5) and iou > overlap:
                best, overlap = row, iou
        rows.append((probability, class_id, best))
    rows.sort(key=lambda row: -row[0])
    taken, curves = set(), {number: ([], []) for number in range(classes)}
    counts = {number: [0, 0] for number in range(classes)}
    for _, class_id, best in rows:
        counts[class_id][0 if best >= 0 and best not in taken else 1] += 1
        taken.add(best)
        for number, (true, false) in counts.items():
            objects = int((truth.classes == number).sum())
            curves[number][0].append(true / objects if objects else 0)
            curves[number][1].append(true / (true + false) if true + false else 0)
    result = []
    for recall, precision in curves.values():
        points = [max([p for r, p in zip(recall, precision, strict=True) if r >= k / 10], default=0) for k in range(11)]
        area, before = 0, 0
        for rank, value in enumerate(recall):
            area += (value - before) * max(precision[rank:])
            before = value
        result.append((area, sum(points) / 11))
    return result


def test_random_cases_equal_the_loop():
    generator = np.random.default_rng(3)
    for _ in range(20):
        truth, found = (
            Labelled(
                generator.integers(0, 4, count),
                generator.integers(0, 3, count),
                generator.uniform(0.3, 0.5, (count, 4)).astype(np.float32),
            )
            for count in (12, 40)
        )
        probabilities = generator.uniform(0.01, 1, 40).astype(np.float32)
        result = darknet_map(truth, found, probabilities, 3)
        expected = np.array(straight_loop(truth, found, probabilities, 3))
        np.testing.assert_allclose(result["per_class"]["auc"], expected[:, 0], rtol=1e-12)
        np.testing.assert_allclose(result["per_class"]["11"], expected[:, 1], rtol=1e-12)
        assert result["auc"] == pytest.approx(expected[:, 0].mean(), rel=1e-12)
