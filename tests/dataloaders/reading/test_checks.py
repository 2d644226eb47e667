"""The door: every kind of fault by name, fatal or skipped."""

import json
import logging
import re

import numpy as np
import pytest

from dataloaders.reading.annotations import DataError
from dataloaders.reading.checks import KINDS
from dataloaders.reading.image_header import look_at_image
from dataloaders.reading.sources import open_source

CLASSES = ("cell", "dot")


def _missing_image(folder):
    folder.image(5).unlink()


def _unreadable_image(folder):
    folder.image(5).write_bytes(b"GIF89a" + bytes(100))


def _truncated_jpeg(folder):
    path = folder.image(5, 400, 600)
    path.write_bytes(path.read_bytes()[:-200])


def _truncated_png(folder):
    path = folder.image(5, ending="png")
    path.write_bytes(path.read_bytes()[:-20])


def _empty_file(folder):
    folder.image(5).write_bytes(b"")


def _swapped_size(folder):
    folder.image(5, 24, 40)
    folder.images[-1].update(height=40, width=24)


def _duplicate_id(folder):
    folder.image(5)
    folder.image(6)
    folder.images[-1]["id"] = 5


def _duplicate_file(folder):
    folder.image(5)
    folder.images.append(folder.images[-1] | {"id": 55})


def _box(*box, image_id=1, category=7):
    return lambda folder: folder.box(image_id, list(box), category)


FAULTS = [
    ("missing_image", _missing_image, 5),
    ("unreadable_image", _unreadable_image, 5),
    ("truncated_image", _truncated_jpeg, 5),
    ("truncated_image", _truncated_png, 5),
    ("truncated_image", _empty_file, 5),
    ("wrong_image_size", _swapped_size, 5),
    ("duplicate_image", _duplicate_id, 5),
    ("duplicate_image", _duplicate_file, 55),
    ("unknown_image", _box(1, 1, 5, 5, image_id=99), 99),
    ("unknown_category", _box(1, 1, 5, 5, category=8), 1),
    ("non_finite_box", _box(1, float("nan"), 5, 5), 1),
    ("non_finite_box", _box(1, 2, 5), 1),
    ("non_finite_box", _box(1, 2, 5, "wide"), 1),
    ("inverted_box", _box(10, 10, -3, 5), 1),
    ("zero_area_box", _box(10, 10, 3, 0), 1),
    ("outside_box", _box(40, 10, 3, 3), 1),
    ("outside_box", _box(-5, 10, 5, 3), 1),
    ("partly_outside_box", _box(35, 10, 10, 5), 1),
    ("partly_outside_box", _box(10, -2, 10, 5), 1),
]


@pytest.mark.parametrize(("kind", "fault", "image_id"), FAULTS)
def test_a_fault_is_fatal_and_named(folder, kind, fault, image_id):
    folder.image(1)
    folder.box(1, [1, 2, 3, 4])
    fault(folder)
    with pytest.raises(DataError) as error:
        open_source(folder.source, CLASSES, "fail", 5)
    message = str(error.value)
    assert f"1 x {kind}" in message and "on_bad: skip" in message and "instances.json" in message
    assert f"image ids {image_id}" in message
    assert re.findall(r"\d+ x (\w+):", message) == [kind] and kind in KINDS


@pytest.mark.parametrize(("kind", "fault", "image_id"), FAULTS)
def test_a_fault_is_skipped_and_reported_once(folder, caplog, kind, fault, image_id):
    folder.image(1)
    folder.box(1, [1, 2, 3, 4])
    fault(folder)
    with caplog.at_level(logging.WARNING):
        dataset = open_source(folder.source, CLASSES, "skip", 5)
    assert [record.message.count(kind) for record in caplog.records] == [1]
    (finding,) = dataset.report.findings
    assert (finding.kind, finding.count, finding.image_ids) == (kind, 1, (image_id,))
    clipped = kind == "partly_outside_box"
    assert len(dataset.classes) == 1 + clipped
    kept_duplicate = kind == "duplicate_image"
    assert dataset.image_ids.tolist() == ([1, 5] if kept_duplicate else [1])
    if clipped:
        x, y, width, height = dataset.pixel_boxes[1]
        assert x >= 0 and y >= 0 and x + width <= 40 and y + height <= 24
        assert dataset.areas[1] == width * height


def test_up_to_one_pixel_outside_is_no_fault_and_keeps_its_numbers_for_evaluation(folder):
    folder.image(1, 24, 40)
    folder.box(1, [-0.5, 3, 41.4, 10], area=7.5)
    dataset = open_source(folder.source, CLASSES, "fail", 5)
    assert dataset.report.findings == ()
    assert dataset.ground_truth()["annotations"][0]["bbox"] == [-0.5, 3, 41.4, 10]
    assert dataset.ground_truth()["annotations"][0]["area"] == 7.5
    np.testing.assert_array_equal(dataset.boxes_in("yxyx"), np.float32([[3 / 24, 0, 13 / 24, 1]]))


def test_more_boxes_than_max_boxes(folder):
    folder.image(1)
    folder.image(2)
    for number in range(6):
        folder.box(2, [number, 1, 5, 5])
    folder.box(1, [1, 1, 5, 5])
    with pytest.raises(DataError, match=r"1 x too_many_boxes.*image ids 2 \(image_2.jpg\)"):
        open_source(folder.source, CLASSES, "fail", 5)
    dataset = open_source(folder.source, CLASSES, "skip", 5)
    assert dataset.trained.tolist() == [True] + [True] * 5 + [False]
    assert len(dataset.ground_truth()["annotations"]) == 7
    assert open_source(folder.source, CLASSES, "fail", 6).trained.all()
    unlimited = open_source(folder.source, CLASSES, "fail", None)
    assert unlimited.trained.all() and unlimited.report.findings == ()


def test_the_report_as_json_names_every_image_of_every_kind(folder):
    for image_id in range(1, 10):
        folder.image(image_id)
        folder.box(image_id, [1, 2, 3, 4])
        folder.box(image_id, [0, 0, 0, 5])
    folder.box(3, [0, 0, 5, 0])
    (folder.root / "images" / "image_9.jpg").unlink()
    report = json.loads(json.dumps(open_source(folder.source, CLASSES, "skip", 5).report.as_dict()))
    assert report["images"] == {"found": 9, "kept": 8, "dropped": 1}
    assert report["boxes"] == {"found": 19, "kept": 8, "dropped": 11}
    missing, empty = report["findings"]
    assert (missing["kind"], missing["count"], missing["image_ids"]) == ("missing_image", 1, [9])
    assert (empty["kind"], empty["count"], empty["image_ids"]) == ("zero_area_box", 10, list(range(1, 10)))
    assert empty["what"] == "the box has no width or no height" and empty["done"] == "box dropped"


def test_faults_are_counted_by_kind_with_the_first_ids_and_how_many_more(folder):
    for image_id in range(1, 9):
        folder.image(image_id)
        folder.box(image_id, [0, 0, 0, 5])
        folder.box(image_id, [0, 0, 5, 0])
    with pytest.raises(DataError, match=r"16 x zero_area_box.* 5 \(image_5.jpg\) and 3 more"):
        open_source(folder.source, CLASSES, "fail", 5)


def test_nothing_left_is_an_error_even_with_skip(folder):
    folder.image(1).unlink()
    with pytest.raises(DataError, match="no image is left"):
        open_source(folder.source, CLASSES, "skip", 5)


def test_look_at_image_finds_the_size_behind_long_metadata_and_the_end_before_padding(folder):
    path = folder.image(1, 24, 40)
    plain = path.read_bytes()
    comment = b"\xff\xfe\xff\xff" + b"\xff\xd9" * 32766 + b"x"  # a comment segment of 65,533 bytes, full of end marks
    path.write_bytes(plain[:2] + comment * 3 + plain[2:] + bytes(100))
    assert look_at_image(str(path)) == ((24, 40), None)
    path.write_bytes(plain[:2] + comment * 3 + plain[2:-300])
    assert look_at_image(str(path)).problem == "truncated_image"


@pytest.mark.parametrize(("ending", "trailer"), [("jpg", 5_000), ("jpg", 100_000), ("png", 5_000)])
def test_look_at_image_finds_the_end_before_a_long_trailer(folder, ending, trailer):
    path = folder.image(1, 24, 40, ending)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(trailer))
    assert look_at_image(str(path)) == ((24, 40), None)
    path.write_bytes(whole[:-20] + bytes(trailer))
    assert look_at_image(str(path)).problem == "truncated_image"


def test_look_at_image_of_a_folder(tmp_path):
    assert look_at_image(str(tmp_path)).problem == "unreadable_image"
