"""The embedded data set: reproducible bytes, and the promises about its objects that the demo's figures rest on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from official.core.errors import UserError
from tools.demo_data import FINER, IMAGE_SIZES, KINDS, Scene, draw_object, draw_scene, write_synthetic

TRAIN, VAL = 9, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    assert write_synthetic(folder, TRAIN, VAL, seed=3, workers=2)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng(number)) for number in range(80)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_gives_same_bytes_for_any_number_of_workers(folder: Path, tmp_path: Path):
    assert write_synthetic(tmp_path / "one", TRAIN, VAL, seed=3, workers=1)
    assert contents(tmp_path / "one") == contents(folder)
    assert len(contents(folder)) == TRAIN + VAL + 3
    assert [path.name for path in tmp_path.iterdir()] == ["one"], "the temporary folder must be gone"


def test_seed_and_split_change_every_image(folder: Path, tmp_path: Path):
    write_synthetic(tmp_path / "other", TRAIN, VAL, seed=4, workers=1)
    images = [data for root in (folder, tmp_path / "other") for name, data in contents(root).items() if "jpg" in name]
    assert len(set(images)) == 2 * (TRAIN + VAL)


def test_pycocotools_reads_it(folder: Path, capsys: pytest.CaptureFixture):
    for split, count in (("train", TRAIN), ("val", VAL)):
        coco = COCO(folder / f"instances_{split}.json")
        assert {one["id"]: one["name"] for one in coco.dataset["categories"]} == {
            kind.category_id: name for name, kind in KINDS.items()
        }
        assert len(coco.getImgIds()) == count and coco.getAnnIds()
        for image in coco.loadImgs(coco.getImgIds()):
            with Image.open(folder / split / image["file_name"]) as picture:
                assert picture.format == "JPEG" and picture.mode == "RGB"
                assert (picture.height, picture.width) == (image["height"], image["width"])
        for one in coco.loadAnns(coco.getAnnIds()):
            assert one["iscrowd"] == 0 and 0 < one["area"] <= one["bbox"][2] * one["bbox"][3]


def test_category_ids_have_gaps():
    ids = [kind.category_id for kind in KINDS.values()]
    assert len(set(ids)) == 6 and ids != list(range(min(ids), min(ids) + 6))


def test_jpeg_quality_varies(folder: Path):
    tables = {json.dumps(Image.open(path).quantization) for path in folder.rglob("*.jpg")}
    assert len(tables) > 3


def test_images_are_of_all_sizes_and_classes_and_some_are_empty(scenes: list[Scene]):
    assert {scene.image.shape[:2] for scene in scenes} == set(IMAGE_SIZES)
    assert any(h > w for h, w in IMAGE_SIZES) and all(h != w for h, w in IMAGE_SIZES)
    assert {len(scene.annotations) for scene in scenes} == set(range(9))
    seen = [one["category_id"] for scene in scenes for one in scene.annotations]
    counts = [seen.count(kind.category_id) for kind in KINDS.values()]
    assert sum(counts) == len(seen) and min(counts) > 0.5 * max(counts)


def test_boxes_are_within_size_and_image(scenes: list[Scene]):
    sides = []
    for scene in scenes:
        height, width, _ = scene.image.shape
        for one in scene.annotations:
            x, y, w, h = one["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
            sides.append(np.array([w, h]) / min(height, width))
    assert 0.08 <= np.min(sides) < 0.1 and 0.47 < np.max(sides) <= 0.5


def test_no_object_is_covered_more_than_half_and_some_nearly(scenes: list[Scene]):
    covered = []
    for scene in scenes:
        assert scene.owner.shape == tuple(FINER * side for side in scene.image.shape[:2])
        for number, one in enumerate(scene.annotations, 1):
            covered.append(1 - (scene.owner == number).sum() / (one["area"] * FINER**2))
    assert min(covered) == 0 and 0.4 < max(covered) <= 0.5


def test_box_is_tight_around_what_is_drawn(scenes: list[Scene]):
    """Objects that nothing covers: the box touches their cells on all four sides."""
    tight = 0
    for scene in scenes:
        for number, one in enumerate(scene.annotations, 1):
            rows, columns = np.nonzero(scene.owner == number)
            if len(rows) == one["area"] * FINER**2:
                first, last = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
                np.testing.assert_array_equal(one["bbox"], [*first / FINER, *(last - first + 1) / FINER])
                tight += 1
    assert tight > 50


def test_objects_are_seen_where_they_are_said_to_be(scenes: list[Scene]):
    """A cross is of one colour: where `owner` has one, the image varies by noise and blurred edges alone."""
    spreads = []
    for scene in scenes:
        height, width, _ = scene.image.shape
        for number, one in enumerate(scene.annotations, 1):
            owned = (scene.owner == number).reshape(height, FINER, width, FINER).all((1, 3))  # [height, width]
            if one["category_id"] == KINDS["cross"].category_id and owned.any():
                spreads.append(scene.image[owned].std(0).mean())
    assert len(spreads) > 20 and max(spreads) < 20


def test_classes_differ_in_shape():
    """Whatever the colours: masks of any two classes, scaled to one box, disagree on a tenth of it or more."""
    masks = {}
    for name, kind in KINDS.items():
        drawn = [draw_object(np.random.default_rng(seed), kind, 480)[0] for seed in range(20)]
        masks[name] = np.mean([Image.fromarray(mask).resize((32, 32)) for mask in drawn], axis=0)
    names = list(masks)
    for position, one in enumerate(names):
        for other in names[:position]:
            assert abs(masks[one] - masks[other]).mean() > 0.1, (one, other)


def test_a_complete_folder_is_left_alone(folder: Path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not write_synthetic(folder, TRAIN, VAL, seed=3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_with_something_else_is_an_error(folder: Path, tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has no synthetic\.json.*another folder"):
        write_synthetic(tmp_path, TRAIN, VAL)
    with pytest.raises(UserError, match=r'"seed": 5.*"seed": 3'):
        write_synthetic(folder, TRAIN, VAL, seed=5)
    with pytest.raises(UserError, match=r"at least one image, not 0 \(train\)"):
        write_synthetic(tmp_path / "none", 0, VAL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_incomplete_folder_is_an_error(tmp_path: Path):
    write_synthetic(tmp_path, 1, 1, workers=1)  # an empty folder may exist beforehand
    (tmp_path / "val" / "000001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of its 4 files \(val/000001\.jpg\)"):
        write_synthetic(tmp_path, 1, 1)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(pool, folder: Path, *rest):
        folder.mkdir(parents=True)
        raise OSError("disk full")

    monkeypatch.setattr("tools.demo_data.write_split", fail)
    with pytest.raises(OSError, match="disk full"):
        write_synthetic(tmp_path / "set", TRAIN, VAL)
    assert not list(tmp_path.iterdir())
