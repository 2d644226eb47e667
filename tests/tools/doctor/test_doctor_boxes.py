"""Boxes too small for the network, repeated boxes, classes, and the statistics."""

import pytest

from tests.tools.doctor.conftest import only


def test_a_box_below_one_pixel_of_the_input(patient):
    """Images of 480 x 800 in an input of 64 x 96, letterboxed: 0.12 times as large."""
    patient.train.image(1, 480, 800)
    patient.train.box(1, [100, 100, 8.3, 40])  # 0.996 pixels wide
    patient.train.box(1, [200, 100, 8.4, 40])  # 1.008
    finding = patient.finds("below_one_pixel")
    assert (finding.severity, finding.split, finding.count) == ("warning", "train", 1)
    # Stretched, a height of 480 becomes 64: 0.133 times.
    patient.train.box(1, [300, 100, 40, 8])
    assert patient.finds("below_one_pixel").count == 2
    assert patient.finds("below_one_pixel", "task.evaluation.resize=stretch").count == 1


def test_a_repeated_box(patient):
    box = [4, 5, 16, 12]
    for category in (7, 7, 3, 7):
        patient.validation.box(200, box, category)
    finding = patient.finds("repeated_box")
    assert (finding.severity, finding.split, finding.count) == ("warning", "validation", 2)
    assert finding.where[0].endswith("image_200.jpg")


def test_images_without_boxes(patient):
    for image_id in (1, 2):
        patient.train.image(image_id)
    finding = patient.finds("images_without_boxes")
    assert (finding.severity, finding.count) == ("note", 2) and "14 %" in finding.what
    patient.train.annotations.clear()
    finding = patient.finds("images_without_boxes")
    assert (finding.severity, finding.count) == ("fault", 14)


@pytest.mark.parametrize(
    ("train", "validation", "kind", "split"),
    [
        (0, 0, "class_never_seen", "train, validation"),
        (0, 3, "class_not_trained", "train"),
        (20, 0, "class_not_validated", "train, validation"),
        (3, 1, "rare_class", "train"),
    ],
)
def test_classes(patient, train, validation, kind, split):
    for folder, first, count in ((patient.train, 100, train), (patient.validation, 200, validation)):
        folder.categories.append({"id": 9, "name": "rod"})
        for number in range(count):
            folder.box(first + number % 10, [3, 20 + number // 10, 10, 10], category=9)
    diagnosis = patient.diagnose("task.data.classes=[cell, dot, rod]")
    finding = only(diagnosis, kind)
    assert (finding.severity, finding.split, finding.count) == ("warning", split, 1) and "rod" in finding.where[0]
    assert [other.kind for other in diagnosis.findings if "class" in other.kind] == [kind]


def test_statistics(patient):
    """12 images of 48 x 80 with boxes of 16 x 12.5 (cell) and 33.5 x 30 (dot); the input shows 1.2 times the width."""
    patient.train.image(1)
    train, validation = patient.diagnose().statistics
    assert (train.images, train.boxes, train.images_without_boxes) == (13, 24, 1)
    assert (validation.images, validation.boxes) == (10, 20)
    assert train.width["5 %"] == pytest.approx(19.2, abs=0.01) and train.width["95 %"] == pytest.approx(40.2, abs=0.01)
    assert train.height["5 %"] == pytest.approx(12.5 * 57 / 48, abs=0.01) and train.aspect["95 %"] == pytest.approx(
        16 / 12.5 * 1.2 / (57 / 48), abs=0.01
    )
    assert train.boxes_of_an_image == {"5 %": 1.2, "25 %": 2, "median": 2, "75 %": 2, "95 %": 2}
    assert train.sizes == {"small": 24, "medium": 0, "large": 0}
    assert [(one.name, one.boxes, one.images) for one in train.classes] == [("cell", 12, 12), ("dot", 12, 12)]
