"""Darknet's data: `.data`, `.names`, image lists and label files, good and bad."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from configs.data import DarknetSource
from dataloaders.reading.annotations import DataError
from dataloaders.reading.darknet import class_names, label_path, read_data_file, read_image_list, read_names
from dataloaders.reading.sources import open_source

CLASSES = ("cell", "dot")


class DarknetFolder:
    """Writes a data set in Darknet's layout: images and labels in `images/`, lists, `.names` and `.data` above it."""

    def __init__(self, root):
        self.root, self.names = root, ["cell", "dot"]
        (root / "images").mkdir()
        self.lists = {"train": [], "valid": []}

    def image(self, name, labels=None, split="train", size=(40, 24)):
        path = self.root / "images" / name
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
        self.lists[split].append(str(path))
        if labels is not None:
            path.with_suffix(".txt").write_text(labels)
        return path

    def source(self, split="train", more=""):
        (self.root / "x.names").write_text("\n".join(self.names) + "\n")
        lines = [f"classes = {len(self.names)}", f"names = {self.root}/x.names", "backup = backup/"]
        for name, images in self.lists.items():
            (self.root / f"{name}.txt").write_text("\n".join(images) + "\n")
            lines.append(f"{name} = {self.root}/{name}.txt")
        (self.root / "x.data").write_text("\n".join([*lines, more]) + "\n")
        return DarknetSource(data=str(self.root / "x.data"), split=split)

    def open(self, split="train", on_bad="fail", classes=CLASSES, more=""):
        return open_source(self.source(split, more), classes, on_bad, 5)


@pytest.fixture
def folder(tmp_path):
    return DarknetFolder(tmp_path)


def float32(*rows):
    return np.array(rows, np.float32)


def test_images_boxes_classes_and_ids(folder):
    folder.image("a.jpg", "1 0.5 0.25 0.1 0.2\n0 0.1234567 0.7654321 0.05 0.0625\n")
    folder.image("b.png", "")
    folder.lists["train"].insert(1, "")  # an empty line counts as a line, but names nothing
    dataset = folder.open()
    assert dataset.image_ids.tolist() == [1, 3] and dataset.splits.tolist() == [0, 2, 2]
    assert dataset.classes.tolist() == [1, 0] and dataset.category_ids == (0, 1)
    assert dataset.image_sizes.tolist() == [[24, 40], [24, 40]]
    x, y, width, height = 0.1234567, 0.7654321, 0.05, 0.0625
    expected = [(x - width / 2) * 40, (y - height / 2) * 24, width * 40, height * 24]
    np.testing.assert_allclose(dataset.pixel_boxes[1], expected, rtol=1e-6)
    assert dataset.trained.all() and not dataset.ignored.any() and dataset.report.findings == ()
    truth = dataset.ground_truth()
    assert [entry["category_id"] for entry in truth["annotations"]] == [1, 0]


def test_the_truth_is_as_read_to_the_bit(folder):
    """No round trip through pixels or corners: each of six decimals is the float32 that scanf reads."""
    random = np.random.default_rng(0)
    size = random.uniform(0.01, 0.5, (500, 2))
    centre = random.uniform(size / 2, 1 - size / 2)
    lines = [" ".join(f"{number:.6f}" for number in row) for row in np.concatenate([centre, size], 1)]
    folder.image("a.jpg", "".join(f"0 {line}\n" for line in lines), size=(641, 357))
    dataset = open_source(folder.source(), CLASSES, "fail", 500)
    read = np.array([line.split() for line in lines], np.float64).astype(np.float32)
    np.testing.assert_array_equal(dataset.boxes_in("cxcywh"), read)
    x, y, width, height = read.astype(np.float64).T
    corners = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], 1)
    np.testing.assert_allclose(dataset.boxes_in("yxyx"), corners, rtol=0, atol=1e-7)


def test_boxes_at_the_border_are_clipped_as_darknet_clips(folder):
    folder.image("a.jpg", "0 0.01 0.5 0.04 0.2\n0 0.5 0.5 1 1\n0 0.9 0.9 0.2 0.2\n")
    boxes = folder.open().boxes_in("cxcywh")
    np.testing.assert_allclose(boxes[0], [0.015, 0.5, 0.03, 0.2], atol=1e-7)  # left -0.01 -> 0
    np.testing.assert_array_equal(boxes[1:], float32([0.5, 0.5, 1, 1], [0.9, 0.9, 0.2, 0.2]))  # as read


def test_a_subset_of_the_names_is_matched_by_name(folder):
    folder.names = ["dot", "star", "cell"]
    folder.image("a.jpg", "2 0.5 0.5 0.1 0.2\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n")
    dataset = folder.open(on_bad="skip")
    assert dataset.category_ids == (2, 0) and dataset.classes.tolist() == [0, 1]
    assert dataset.report.findings[0].kind == "unknown_category" and "'star' (1)" in str(dataset.report)
    with pytest.raises(DataError, match=r"x\.names: no class is named 'cel' \(data.classes\); did you mean 'cell'"):
        folder.open(classes=("cel", "dot"))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train2017/a.jpg", "/d/labels/train2017/a.txt"),
        ("/d/images/val2014/a.jpeg", "/d/labels/val2014/a.txt"),
        ("VOC/JPEGImages/a.JPG", "VOC/labels/a.txt"),
        ("JPEGImages/a.jpg", "JPEGImages/a.txt"),  # the rule wants the slash before it
        ("/d/images/a.jpg", "/d/images/a.txt"),  # "/images/" alone is not rewritten
        ("/d/images/train2017/images/train2017/a.png", "/d/labels/train2017/images/train2017/a.txt"),  # first only
        ("/JPEGImages/images/val2017/a.jpg", "/labels/labels/val2017/a.txt"),  # both rules apply
        (r"C:\d\images\val2017\a.bmp", r"C:\d\labels\val2017\a.txt"),
        ("/d/a.jpg.png", "/d/a.jpg.txt"),  # the ending only
        ("/d/jpg.jpg/a.tiff", "/d/jpg.jpg/a.txt"),
        (" /d/a.PPM\t", "/d/a.txt"),
        ("/d/a.JpG", "/d/a.JpG"),  # Darknet tells endings by their very letters
    ],
)
def test_the_label_file_of_an_image_is_darknets(image, label):
    assert label_path(image) == label


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"a\.txt:2: expected `class cx cy width height`, five numbers; got '0 0.5 0.5 0.1'"),
        ("0 0.5 0.5 0.1 0.2 0.9", r"a\.txt:2: expected `class cx cy width height`"),
        ("0 0.5 half 0.1 0.2", r"a\.txt:2: expected `class cx cy width height`"),
        ("0 0.5 nan 0.1 0.2", r"a\.txt:2: expected `class cx cy width height`"),
        ("0 0.5 1_0 0.1 0.2", r"a\.txt:2: expected `class cx cy width height`"),
        ("cell 0.5 0.5 0.1 0.2", r"a\.txt:2: expected a class number first"),
        ("1.0 0.5 0.5 0.1 0.2", r"a\.txt:2: expected a class number first"),
        ("2 0.5 0.5 0.1 0.2", r"a\.txt:2: class 2, but .*x\.names has 2 names: expected 0 to 1"),
        ("-1 0.5 0.5 0.1 0.2", r"a\.txt:2: class -1"),
        ("9" * 5000 + " 0.5 0.5 0.1 0.2", r"a\.txt:2: class 999"),
        ("0 0.5 0.5 1e300 0.2", r"a\.txt:2: a number is beyond float32"),
    ],
)
def test_a_malformed_line_is_named_or_dropped(folder, caplog, line, message):
    folder.image("a.jpg", f"0 0.5 0.5 0.1 0.2\n{line}\n1 0.25 0.25 0.1 0.2\n")
    with pytest.raises(DataError, match=message):
        folder.open()
    with caplog.at_level(logging.WARNING):
        dataset = folder.open(on_bad="skip")
    assert dataset.classes.tolist() == [0, 1] and "a.txt:2" in caplog.text
    assert dataset.report.as_dict()["boxes"] == {"found": 3, "kept": 2, "dropped": 1}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0 0.2", "zero_area_box"),
        ("0 0.5 0.5 -0.1 0.2", "inverted_box"),
        ("0 1.5 0.5 0.1 0.2", "outside_box"),
        ("0 0.9 0.5 0.5 0.2", "partly_outside_box"),
        ("0 0 0 0.5 0.5", "partly_outside_box"),
    ],
)
def test_weird_boxes_are_reported_at_the_door(folder, line, kind):
    folder.image("a.jpg", f"{line}\n")
    with pytest.raises(DataError, match=f"1 x {kind}"):
        folder.open()
    dataset = folder.open(on_bad="skip")
    kept = kind == "partly_outside_box"
    assert len(dataset.classes) == kept
    corners = dataset.boxes_in("yxyx")
    assert (corners >= 0).all() and (corners <= 1).all()
    if kept:
        y1, x1, y2, x2 = corners[0]
        centred = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        np.testing.assert_allclose(dataset.boxes_in("cxcywh")[0], centred, atol=1e-6)


def test_an_image_without_label_file_has_no_objects_and_is_reported(folder, caplog):
    folder.image("a.jpg", "0 0.5 0.5 0.1 0.2\n")
    folder.image("b.jpg")
    dataset = folder.open()
    assert dataset.splits.tolist() == [0, 1, 1]
    assert [(f.kind, f.image_ids) for f in dataset.report.findings] == [("no_label_file", (2,))]
    assert "1 x no_label_file" in caplog.text and "kept, as one without objects" in caplog.text


def test_a_label_file_that_is_there_but_cannot_be_read_is_no_missing_one(folder):
    folder.image("a.jpg", "1 0.5 0.25 0.1 0.2\n")
    folder.image("b.jpg").with_suffix(".txt").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*b\.txt"):
        folder.open()


def test_no_label_file_at_all_is_an_error_that_tells_the_rule(folder):
    folder.image("a.jpg")
    folder.image("b.jpg")
    with pytest.raises(
        DataError, match=r"none of its 2 images has a label file; for .*/images/a\.jpg that is .*a\.txt"
    ):
        folder.open()


def test_missing_images_and_a_binary_label_file(folder):
    folder.image("a.jpg", "0 0.5 0.5 0.1 0.2\n")
    folder.lists["train"].append(str(folder.root / "images" / "none.jpg"))
    with pytest.raises(DataError, match=r"1 x missing_image.*none\.jpg"):
        folder.open()
    (folder.root / "images" / "a.txt").write_bytes(b"0 0.5 0.5 0.1 0.2\n\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8"):
        folder.open()


def test_crlf_byte_order_mark_and_blank_lines(folder):
    path = folder.image("a.jpg", "")
    path.with_suffix(".txt").write_bytes(b"\xef\xbb\xbf0 .5 0.5 1e-1 +0.2\r\n\r\n")
    dataset = folder.open()
    np.testing.assert_array_equal(dataset.boxes_in("cxcywh"), float32([0.5, 0.5, 0.1, 0.2]))


def test_difficult_objects_are_ignored_in_validation(folder, tmp_path):
    folder.image("a.jpg", "0 0.5 0.5 0.1 0.2\n", split="valid")
    folder.image("b.jpg", "", split="valid")
    hard = tmp_path / "hard"
    hard.mkdir()
    (hard / "b.txt").write_text("1 0.25 0.5 0.1 0.2\n")
    (tmp_path / "hard.txt").write_text(f"{hard}/a.jpg\n{hard}/b.jpg\n")
    dataset = folder.open("valid", more=f"difficult = {tmp_path}/hard.txt")
    assert dataset.ignored.tolist() == [False, True] and dataset.trained.tolist() == [True, False]
    assert [entry["iscrowd"] for entry in dataset.ground_truth()["annotations"]] == [0, 1]
    (tmp_path / "hard.txt").write_text(f"{hard}/a.jpg\n")
    with pytest.raises(DataError, match=r"hard\.txt: names 1 images, but .*valid\.txt names 2"):
        folder.open("valid", more=f"difficult = {tmp_path}/hard.txt")


def test_data_file_grammar(tmp_path):
    path = tmp_path / "x.data"
    path.write_text(
        "# comment\n; another\n\n cl asses=\t3 \ntrain  = data/a b.txt\r\ntrain = other.txt\nnames=x.names#c\n"
    )
    data = read_data_file(str(path))
    assert data.options == {"classes": "3", "train": "data/ab.txt", "names": "x.names#c"}  # blanks go; the first wins
    with pytest.raises(
        DataError, match=r"x\.data: no `valid = …` in this \.data file \(it has: classes, train, names\)"
    ):
        data["valid"]
    for line, number in (("train", 1), ("\ntrain =", 2), ("= 3", 1)):
        path.write_text(line)
        with pytest.raises(DataError, match=rf"x\.data:{number}: expected `key = value`"):
            read_data_file(str(path))
    with pytest.raises(FileNotFoundError, match=r"cannot read the \.data file .*none\.data"):
        read_data_file(str(tmp_path / "none.data"))


def test_names(tmp_path):
    path = tmp_path / "x.names"
    path.write_text("traffic light\r\ncat \n\n\n")
    assert read_names(str(path)) == ("traffic light", "cat")
    for text, message in (
        ("a\n\nb\n", r"x\.names:2: an empty line in place of the name of class 1"),
        ("a\nb\na\n", r"x\.names:3: 'a' is the name of class 0 too"),
        ("\n", "no class names in it"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_names(str(path))


def test_as_many_names_as_classes(tmp_path):
    (tmp_path / "x.names").write_text("a\nb\n")
    (tmp_path / "x.data").write_text("classes = 3\nnames = x.names\n")
    with pytest.raises(DataError, match=r"x\.data: classes = 3, but .*x\.names has 2 names"):
        class_names(read_data_file(str(tmp_path / "x.data")))


def test_relative_paths_from_here_or_else_beside(folder, tmp_path, monkeypatch):
    """Darknet takes them from the current directory; beside the file that names them is the second choice."""
    folder.image("a.jpg", "0 0.5 0.5 0.1 0.2\n")
    folder.source()
    (tmp_path / "x.data").write_text("names = x.names\ntrain = train.txt\n")
    (tmp_path / "train.txt").write_text("images/a.jpg\n")
    source = DarknetSource(data=str(tmp_path / "x.data"), split="train")
    assert open_source(source, CLASSES, "fail", 5).image_paths == [str(tmp_path / "images" / "a.jpg")]
    monkeypatch.chdir(tmp_path)
    assert open_source(source, CLASSES, "fail", 5).image_paths == ["images/a.jpg"]
    os.mkdir("other")
    monkeypatch.chdir("other")
    (tmp_path / "other" / "x.names").write_text("dot\ncell\n")
    assert class_names(read_data_file(source.data)) == ("dot", "cell")  # the one in the current directory
    with pytest.raises(FileNotFoundError, match=r"the list of images none\.txt"):
        read_image_list(read_data_file(source.data)._replace(options={"train": "none.txt"}).file("train"))


def test_lists(tmp_path):
    path = tmp_path / "train.txt"
    for text, message in (("", "no images in it"), ("\na.jpg\nb.gif\n", r"train\.txt:3: 'b\.gif' is no image file")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_image_list(str(path))
