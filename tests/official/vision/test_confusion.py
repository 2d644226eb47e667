"""The confusion matrix of cases small enough to count by hand."""

import numpy as np

from official.vision.confusion import confusion_matrix

CATEGORIES = (3, 90)
IMAGES = [{"id": 7, "width": 320, "height": 200}, {"id": 5, "width": 64, "height": 96}]


def matrix(truths, found) -> list[list[int]]:
    """Of (image, category, xywh[, iscrowd]) and (image, category, xywh, score)."""
    annotations = [
        {"image_id": image, "category_id": category, "bbox": box, "iscrowd": int(bool(crowd))}
        for image, category, box, *crowd in truths
    ]
    names = ("image_id", "category_id", "bbox", "score")
    detections = [dict(zip(names, row, strict=True)) for row in found]
    counts = confusion_matrix({"images": IMAGES, "annotations": annotations}, detections, CATEGORIES)
    assert counts.dtype == np.int64
    return counts.tolist()


def test_hits_mistakes_misses_and_false_alarms():
    truths = [(7, 3, [10, 10, 40, 20]), (7, 90, [100, 50, 60, 30]), (5, 90, [0, 0, 20, 40])]
    found = [
        (7, 3, [10, 10, 40, 20], 0.9),  # the cat
        (7, 3, [100, 50, 60, 30], 0.8),  # the dog, taken for a cat
        (7, 90, [12, 10, 40, 20], 0.7),  # the cat again: it is taken
        (5, 90, [0, 20, 20, 40], 0.6),  # IoU 1/3 with the dog
    ]
    assert matrix(truths, found) == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]


def test_the_best_detection_chooses_first_and_low_scores_are_not_shown():
    truths = [(7, 3, [10, 10, 40, 20])]
    found = [(7, 90, [10, 10, 40, 20], 0.3), (7, 3, [11, 10, 40, 20], 0.6), (7, 90, [10, 10, 40, 20], 0.2)]
    assert matrix(truths, found) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_crowd_is_not_missed_and_what_lies_in_it_is_not_false():
    truths = [(7, 3, [0, 0, 100, 100], True)]
    found = [(7, 3, [10, 10, 20, 20], 0.9), (7, 90, [90, 10, 100, 20], 0.9)]
    assert matrix(truths, found) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_nothing_found_and_nothing_there():
    assert matrix([], []) == np.zeros([3, 3], int).tolist()
    assert matrix([(5, 3, [0, 0, 9, 5])], []) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert matrix([], [(5, 90, [0, 0, 9, 5], 0.5)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
