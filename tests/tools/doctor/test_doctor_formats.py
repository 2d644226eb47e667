"""Box formats and category ids that were mistaken: written wrongly on purpose, recognised by name."""

import numpy as np
import pytest

from configs.data import DarknetSource, VocSource
from tests.tools.doctor.conftest import experiment_of, noise, only
from tools.doctor.diagnosis import diagnose
from tools.doctor.formats import READINGS

HEIGHT, WIDTH = 48, 80


def _boxes(seed, count=30):
    """x, y, width, height in pixels, everywhere in the image, a third at one of its edges."""
    random = np.random.default_rng(seed)
    size = random.uniform(6, 30, (count, 2))
    place = random.uniform(0, 1, (count, 2)).round(random.integers(0, 3)) * ([WIDTH, HEIGHT] - size)
    return np.concatenate([place, size], axis=1)


WRITERS = {
    "xywh": lambda x, y, w, h: (x, y, w, h),
    "xyxy": lambda x, y, w, h: (x, y, x + w, y + h),
    "cxcywh": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
    "yxyx": lambda x, y, w, h: (y, x, y + h, x + w),
    "yxhw": lambda x, y, w, h: (y, x, h, w),
    "cycxhw": lambda x, y, w, h: (y + h / 2, x + w / 2, h, w),
}


def _write_coco(folder, first_id, write):
    for image_id in range(first_id, first_id + 3):
        folder.image(image_id, HEIGHT, WIDTH)
        for number, box in enumerate(_boxes(image_id)):
            folder.box(image_id, list(write(*box)), category=7 if number % 2 else 3)


def _write_voc(root, split, seed, write):
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    names = [f"{split}{number}" for number in range(3)]
    for number, name in enumerate(names):
        noise(seed + number, HEIGHT, WIDTH).save(root / "JPEGImages" / f"{name}.jpg")
        objects = ""
        for index, box in enumerate(_boxes(seed + number)):
            corners = zip(("xmin", "ymin", "xmax", "ymax"), write(*box), strict=True)
            parts = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
            objects += f"<object><name>{('cell', 'dot')[index % 2]}</name><bndbox>{parts}</bndbox></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return VocSource(root=str(root), split=split)


def _write_darknet(root, write, first_class=0):
    (root / "images").mkdir()
    (root / "x.names").write_text("cell\ndot\n")
    options = ["classes = 2", f"names = {root}/x.names"]
    for split, seed in (("train", 10), ("valid", 20)):
        paths = [root / "images" / f"{split}{number}.jpg" for number in range(3)]
        for number, path in enumerate(paths):
            noise(seed + number, HEIGHT, WIDTH).save(path)
            rows = [(index % 2 + first_class, *write(*box)) for index, box in enumerate(_boxes(seed + number))]
            path.with_suffix(".txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
        (root / f"{split}.txt").write_text("\n".join(map(str, paths)) + "\n")
        options.append(f"{split} = {root}/{split}.txt")
    (root / "x.data").write_text("\n".join(options) + "\n")
    return DarknetSource(data=str(root / "x.data"), split="train"), DarknetSource(data=f"{root}/x.data", split="valid")


def _relative(write):
    """Numbers of a format with x first, divided by the image's sides."""
    return lambda *box: np.array(write(*box)) / ([WIDTH, HEIGHT] * 2)


def _suspects(diagnosis, split="train"):
    return {
        finding.kind: finding
        for finding in diagnosis.findings
        if finding.kind.startswith("suspected") and split in finding.split
    }


@pytest.mark.parametrize("written", WRITERS)
def test_coco(two_folders, written):
    train, validation = two_folders
    _write_coco(train, 10, WRITERS[written])
    _write_coco(validation, 20, WRITERS["xywh"])
    diagnosis = diagnose(experiment_of(train.source, validation.source))
    assert not _suspects(diagnosis, "validation")
    _check(_suspects(diagnosis), written, "xywh")


def _check(suspects, written, expected):
    """Exactly the suspicion that `written` stands where `expected` is read."""
    assert set(suspects) == (set() if written == expected else {"suspected_format"})
    if suspects:
        finding = suspects["suspected_format"]
        names = READINGS[written].name, READINGS[expected].name
        assert finding.cause == "looks like {}, written where {} is expected".format(*names)
        assert finding.severity == "fault" and f"read as {names[0]}, 0 % do not" in finding.what
        assert len(finding.where) == 3


@pytest.mark.parametrize("written", WRITERS)
def test_voc(tmp_path, written):
    def write(x, y, w, h):  # VOC counts from 1
        return WRITERS[written](*np.add(((x, y, w, h)), (1, 1, -1, -1)))

    sources = [_write_voc(tmp_path, split, seed, write) for split, seed in (("train", 10), ("val", 20))]
    _check(_suspects(diagnose(experiment_of(*sources))), written, "xyxy")


@pytest.mark.parametrize("written", ["xywh", "xyxy", "cxcywh"])
def test_darknet(tmp_path, written):
    suspects = _suspects(diagnose(experiment_of(*_write_darknet(tmp_path, _relative(WRITERS[written])))))
    _check(suspects, written, "cxcywh")


def test_the_share_of_exchanged_corners_is_told(two_folders):
    """Width and height where x2 and y2 are expected."""
    for folder, first in zip(two_folders, (10, 20), strict=True):
        _write_coco(folder, first, WRITERS["xyxy"])
    boxes = np.concatenate([_boxes(seed) for seed in (10, 11, 12)])
    beyond = ((boxes[:, :2] * 2 + boxes[:, 2:]) > [WIDTH + 1.5, HEIGHT + 1.5]).any(1)
    finding = _suspects(diagnose(experiment_of(*(folder.source for folder in two_folders))))["suspected_format"]
    assert finding.count == beyond.sum()
    assert f"{100 * beyond.mean():.0f} % reach beyond the right or bottom edge" in finding.what


def test_relative_values_in_place_of_pixels(two_folders):
    for folder, first in zip(two_folders, (10, 20), strict=True):
        _write_coco(folder, first, _relative(WRITERS["xywh"]))
    suspects = _suspects(diagnose(experiment_of(*(folder.source for folder in two_folders))))
    assert set(suspects) == {"suspected_units"}
    finding = suspects["suspected_units"]
    assert finding.severity == "fault" and finding.count == 90 and "relative values were written" in finding.cause


def test_pixels_in_place_of_relative_values(tmp_path):
    suspects = _suspects(diagnose(experiment_of(*_write_darknet(tmp_path, WRITERS["cxcywh"]))))
    assert set(suspects) == {"suspected_units"} and "pixels were written" in suspects["suspected_units"].cause


def test_a_few_boxes_in_other_units_are_a_warning(patient):
    for image_id in (101, 102, 103):
        patient.train.box(image_id, [0.1, 0.2, 0.3, 0.4])
    finding = patient.finds("suspected_units")
    assert (finding.severity, finding.count) == ("warning", 3)


def test_voc_that_counts_from_zero(tmp_path):
    sources = [_write_voc(tmp_path, split, seed, WRITERS["xyxy"]) for split, seed in (("train", 10), ("val", 20))]
    finding = _suspects(diagnose(experiment_of(*sources)))["suspected_origin"]
    touching = sum(int((_boxes(seed)[:, :2].min(1) == 0).sum()) for seed in (10, 11, 12))
    assert finding.severity == "warning" and finding.count == touching > 3 and "from 0" in finding.cause


def test_coco_that_counts_from_one(two_folders):
    for folder, first in zip(two_folders, (10, 20), strict=True):
        _write_coco(folder, first, lambda x, y, w, h: (x + 1, y + 1, w, h))
    finding = _suspects(diagnose(experiment_of(*(folder.source for folder in two_folders))))["suspected_origin"]
    assert finding.severity == "warning" and "from 1" in finding.cause


@pytest.mark.parametrize("step", [-1, 1])
def test_category_ids_off_by_one(patient, step):
    for folder in (patient.train, patient.validation):
        folder.categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "dot"}]
        for entry in folder.annotations:
            entry["category_id"] = {7: 1, 3: 2}[entry["category_id"]] + step
    suspects = _suspects(patient.diagnose())
    assert f"{-step:+d} is added" in suspects["suspected_category_ids"].cause
    assert suspects["suspected_category_ids"].count == 12


def test_class_numbers_of_label_files_off_by_one(tmp_path):
    sources = _write_darknet(tmp_path, _relative(WRITERS["cxcywh"]), first_class=1)
    assert "-1 is added" in _suspects(diagnose(experiment_of(*sources)))["suspected_category_ids"].cause


OFFICIAL = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


@pytest.mark.parametrize(
    ("declared", "used", "cause"),
    [
        (list(range(1, 81)), OFFICIAL, "boxes have COCO's own ids"),
        (OFFICIAL, list(range(1, 81)), "boxes are numbered without gaps"),
        (OFFICIAL, list(range(80)), "boxes are numbered without gaps"),
        (list(range(1, 81)), list(range(80)), "+1 is added"),
    ],
)
def test_91_and_80_categories(two_folders, declared, used, cause):
    for folder, first in zip(two_folders, (10, 20), strict=True):
        folder.categories = [{"id": number, "name": f"class{place}"} for place, number in enumerate(declared)]
        for place, number in enumerate(used):
            image_id = first + place // 20
            if place % 20 == 0:
                folder.image(image_id, HEIGHT, WIDTH)
            folder.box(image_id, [place % 20, 3, 20, 12], category=number)
    classes = ", ".join(f"class{place}" for place in range(80))
    experiment = experiment_of(*(folder.source for folder in two_folders), f"task.data.classes=[{classes}]")
    assert cause in _suspects(diagnose(experiment))["suspected_category_ids"].cause


def test_sloppy_boxes_are_no_format_mistake(patient):
    """They reach out of their image in any reading."""
    for image_id in range(100, 104):
        patient.train.box(image_id, [60, 20, 30, 10])
        patient.train.box(image_id, [-12, 20, 30, 10])
    diagnosis = patient.diagnose()
    assert not _suspects(diagnosis) and only(diagnosis, "partly_outside_box").count == 8
