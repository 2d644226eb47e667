"""Readers of COCO JSON and VOC XML, and the data set they become."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from configs.data import CocoSource, VocSource
from dataloaders.reading.annotations import DataError
from dataloaders.reading.sources import open_source

CLASSES = ("cell", "dot")


def _object(name, corners, difficult=0):
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def _voc(root, entries):
    """entries: name -> body of the XML (objects)."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for name, body in entries.items():
        Image.new("RGB", (40, 24)).save(root / "JPEGImages" / f"{name}.jpg")
        size = "<size><width>40</width><height>24</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{body}</annotation>")
    (root / "ImageSets" / "Main" / "train.txt").write_text("\n".join(entries) + "\n")
    return VocSource(root=str(root), split="train")


def test_coco_classes_by_name_crowd_and_ground_truth(folder):
    folder.image(20, 24, 40)
    folder.image(4, 30, 20)
    folder.box(4, [1.5, 2, 3.25, 4], category=3, area=9.5, iscrowd=0)
    folder.box(20, [2, 3, 4, 5], category=7, iscrowd=1)
    folder.box(20, [10.1, 3.7, 4.3, 5.9], category=7)
    dataset = open_source(folder.source, CLASSES, "fail", 5)
    assert dataset.category_ids == (7, 3) and dataset.classes.tolist() == [0, 0, 1]
    assert dataset.splits.tolist() == [0, 2, 3] and dataset.image_sizes.tolist() == [[24, 40], [30, 20]]
    assert dataset.trained.tolist() == [False, True, True] and dataset.ignored.tolist() == [True, False, False]
    truth = dataset.ground_truth()
    assert [a["iscrowd"] for a in truth["annotations"]] == [1, 0, 0]
    assert [a["category_id"] for a in truth["annotations"]] == [7, 7, 3]
    assert [a["image_id"] for a in truth["annotations"]] == [20, 20, 4]
    assert [a["area"] for a in truth["annotations"]] == [20, 4.3 * 5.9, 9.5]
    assert truth["annotations"][1]["bbox"] == [10.1, 3.7, 4.3, 5.9] and truth["annotations"][0]["id"] == 1
    assert truth["categories"] == [{"id": 7, "name": "cell"}, {"id": 3, "name": "dot"}]
    json.dumps(truth)
    assert dataset.example_name(4).endswith("image_4.jpg") and "no image" in dataset.example_name(5)


def test_relative_boxes_are_rounded_once(folder):
    folder.image(1, 24, 40)
    folder.box(1, [10.1, 3.7, 4.3, 5.9])
    dataset = open_source(folder.source, CLASSES, "fail", 5)
    x, y, width, height = 10.1 / 40, 3.7 / 24, 4.3 / 40, 5.9 / 24
    expected = {
        "cxcywh": (x + width / 2, y + height / 2, width, height),
        "yxyx": (y, x, y + height, x + width),
    }
    for form, box in expected.items():
        np.testing.assert_array_equal(dataset.boxes_in(form), np.array([box]).astype(np.float32))


def test_coco_without_sizes_takes_the_files(folder):
    folder.image(1, 24, 40)
    del folder.images[0]["height"], folder.images[0]["width"]
    folder.box(1, [1, 1, 3, 3])
    assert open_source(folder.source, CLASSES, "fail", 5).image_sizes.tolist() == [[24, 40]]


def test_no_boxes_at_all(folder):
    folder.image(1)
    dataset = open_source(folder.source, CLASSES, "fail", 5)
    assert dataset.boxes_in("cxcywh").shape == (0, 4) and dataset.ground_truth()["annotations"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [],\n "annotations": [}', r"instances.json, line 2, column 18: not valid JSON"),
        ("[1]", "expected an object with images"),
        ('{"images": []}', "a list under 'categories', it is missing; keys there: images"),
        ('{"images": [], "categories": {}, "annotations": []}', "under 'categories', got an object"),
        ('{"images": [{"id": "a", "file_name": "b"}]}', r"images\[0\]: expected 'id' to be an integer, got 'a'"),
        ('{"images": [{"id": 1}]}', r"images\[0\]: expected 'file_name' to be text, it is missing"),
        ('{"images": [3]}', r"images\[0\]: expected an object, got 3"),
    ],
)
def test_malformed_coco(tmp_path, content, message):
    (tmp_path / "instances.json").write_text(content)
    source = CocoSource(annotations=str(tmp_path / "instances.json"), images=str(tmp_path))
    with pytest.raises(DataError, match=message):
        open_source(source, CLASSES, "skip", 5)


def test_missing_coco_file_and_class(folder):
    folder.image(1)
    with pytest.raises(FileNotFoundError, match="COCO annotation file /nowhere/a"):
        open_source(CocoSource(annotations="/nowhere/a.json", images="/nowhere"), CLASSES, "skip", 5)
    with pytest.raises(DataError, match=r"no category is named 'cel' .*did you mean 'cell'\?; it has: cell, dot"):
        open_source(folder.source, ("cel", "dot"), "skip", 5)
    with pytest.raises(DataError, match="names a class twice"):
        open_source(folder.source, ("dot", "dot"), "skip", 5)


def test_voc_counts_pixels_from_one_and_keeps_difficult_objects_for_training(tmp_path):
    body = _object("dot", (1, 1, 40, 24)) + _object("cell", (11, 6, 20, 12), difficult=1)
    dataset = open_source(_voc(tmp_path, {"b": body, "a": ""}), CLASSES, "fail", 5)
    assert dataset.image_ids.tolist() == [1, 2] and dataset.example_name(2).endswith("JPEGImages/a.jpg")
    assert dataset.pixel_boxes.tolist() == [[0, 0, 40, 24], [10, 5, 10, 7]]
    assert dataset.classes.tolist() == [1, 0] and dataset.category_ids == (1, 2)
    assert dataset.trained.tolist() == [True, True] and dataset.ignored.tolist() == [False, True]
    assert [a["area"] for a in dataset.ground_truth()["annotations"]] == [960, 70]


def test_voc_files_that_count_from_zero_are_clipped(tmp_path):
    dataset = open_source(_voc(tmp_path, {"a": _object("dot", (0, 0, 10, 12))}), CLASSES, "fail", 5)
    np.testing.assert_array_equal(dataset.boxes_in("yxyx"), np.float32([[0, 0, 12 / 24, 10 / 40]]))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (_object("dot", (7, 3, 7, 3)), "zero_area_box"),
        (_object("dot", (9, 3, 7, 8)), "inverted_box"),
        (_object("dog", (1, 3, 7, 8)), "unknown_category: the box's category is not in data.classes: 'dog' \\(1\\)"),
        (_object("dot", (1, "", 7, 8)), "non_finite_box"),
    ],
)
def test_voc_boxes_at_the_door(tmp_path, body, kind):
    with pytest.raises(DataError, match=f"1 x {kind}"):
        open_source(_voc(tmp_path, {"a": body}), CLASSES, "fail", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<size>\n</annotation>", r"a.xml, line 3, column 3: not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', r"a.xml: declares a document type"),
        ("<annotation><object><name>dot</name></object></annotation>", r"a.xml: object 1: expected <name>"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_malformed_xml(tmp_path, text, message, encoding):
    source = _voc(tmp_path, {"a": ""})
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=message):
        open_source(source, CLASSES, "skip", 5)


def test_a_voc_split_file_that_is_not_utf_8(tmp_path):
    source = _voc(tmp_path, {"a": ""})
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes(b"a\nb\xfcrste\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: not UTF-8 text .*save the file as UTF-8"):
        open_source(source, CLASSES, "skip", 5)


def test_voc_missing_files_are_named(tmp_path):
    source = _voc(tmp_path, {"a": ""})
    with pytest.raises(FileNotFoundError, match="splits there: train"):
        open_source(VocSource(root=source.root, split="vall"), CLASSES, "skip", 5)
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"VOC annotation file .*a.xml"):
        open_source(source, CLASSES, "skip", 5)


def test_bccd(shared, caplog):
    root = str(shared / "assets" / "bccd" / "BCCD")
    classes = ("RBC", "WBC", "Platelets")
    with caplog.at_level(logging.WARNING):
        train = open_source(VocSource(root=root, split="trainval"), classes, "skip", 100)
    (finding,) = train.report.findings
    assert (len(train), finding.kind, finding.count) == (292, "zero_area_box", 2)
    assert finding.names == ("BloodImage_00338.jpg", "BloodImage_00343.jpg")
    test = open_source(VocSource(root=root, split="test"), classes, "fail", 100)
    assert len(test) == 72 and len(train.classes) + len(test.classes) == 4155 + 372 + 361 - 2


def test_coco_val(shared):
    path = shared / "assets" / "coco_val" / "instances_val2017_80.json"
    content = json.loads(path.read_text())
    classes = tuple(category["name"] for category in content["categories"])
    source = CocoSource(annotations=str(path), images=str(path.parent / "images"))
    dataset = open_source(source, classes, "fail", 100)
    assert dataset.report.findings == () and len(dataset) == 80 and len(dataset.classes) == 772
    assert dataset.category_ids[-1] == 90 and int(dataset.trained.sum()) == 764
    truth = {(a["image_id"], a["category_id"], *a["bbox"], a["area"]) for a in dataset.ground_truth()["annotations"]}
    assert truth == {(a["image_id"], a["category_id"], *a["bbox"], a["area"]) for a in content["annotations"]}
