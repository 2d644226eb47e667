import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from official.core.errors import UserError
from serving.formats.folder import METADATA_FILE
from serving.predict import BadImageError, detect_files, detect_image, find_images, load_detector


def test_pictures_and_json_of_a_folder(exported, photos, tmp_path):
    summary = detect_files(exported.directory, [str(photos)], tmp_path / "out", score_threshold=0.002)
    assert summary["images"] == 3 and summary["skipped"] == [] and summary["detections"] > 3
    written = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [(entry["id"], entry["height"], entry["width"]) for entry in written["images"]] == [
        (1, 120, 90), (2, 50, 130), (3, 64, 64)
    ]  # fmt: skip
    assert written["categories"][2] == {"id": 90, "name": "square"}
    assert [entry["id"] for entry in written["annotations"]] == list(range(1, summary["detections"] + 1))
    for entry in written["annotations"]:
        image = written["images"][entry["image_id"] - 1]
        left, top, width, height = entry["bbox"]
        assert min(left, top, width, height) >= 0
        assert left + width <= image["width"] + 1e-3 and top + height <= image["height"] + 1e-3
        assert entry["score"] >= 0.002 and entry["category_id"] in (3, 7, 90)
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["a.jpg", "b.jpg", "c.jpg"]
    assert Image.open(pictures[0]).size == (90, 120)


def test_json_agrees_with_the_signature(exported, photos, tmp_path):
    path = photos / "a.jpg"
    detect_files(exported.directory, [str(path)], tmp_path / "out", score_threshold=0.0)
    annotations = json.loads((tmp_path / "out" / "detections.json").read_text())["annotations"]
    encoded = tf.saved_model.load(str(exported.directory)).signatures["encoded"]
    outputs = encoded(contents=tf.constant([path.read_bytes()]))
    boxes = outputs["detection_boxes"].numpy()[0, : int(outputs["num_detections"][0])]
    expected = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=-1)
    assert len(boxes) > 2
    np.testing.assert_allclose([entry["bbox"] for entry in annotations], expected, atol=1e-3)


def test_threshold_leaves_out_what_is_below(exported, photos):
    detector = load_detector(exported.directory)
    everything = detect_image(detector, photos / "a.jpg", 0.0)
    threshold = float(everything.scores[2])
    some = detect_image(detector, photos / "a.jpg", threshold)
    np.testing.assert_array_equal(some.scores, everything.scores[everything.scores >= threshold])
    assert len(detect_image(detector, photos / "a.jpg", 1.0).boxes) == 0


def test_a_protocol_with_words_of_one_family_is_read(exported, tmp_path):
    """Those of today's CenterNet, and those that every export had."""
    shutil.copytree(exported.directory, tmp_path / "model")
    path = tmp_path / "model" / METADATA_FILE
    metadata = json.loads(path.read_text())
    metadata["protocol"] |= {"flip_test": False, "scales": [1.0], "decimals": 2}
    path.write_text(json.dumps(metadata))
    protocol = load_detector(tmp_path / "model").protocol
    assert protocol.model_dump(mode="json") == metadata["protocol"] and protocol.nms == exported.protocol.nms


def test_inputs_are_files_folders_and_globs(photos):
    names = [path.name for path in find_images([str(photos / "c.JPEG"), str(photos / "*.*"), str(photos)])]
    assert names == ["c.JPEG", "a.jpg", "b.png"]
    with pytest.raises(FileNotFoundError, match="no input"):
        find_images([])


@pytest.mark.parametrize("name", ["missing.jpg", "*.gif", "empty"])
def test_input_without_images(photos, name):
    (photos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"\.jpg"):
        find_images([str(photos / name)])


def test_images_of_the_same_name_do_not_overwrite_each_other(exported, photos, tmp_path):
    other = photos / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes((photos / "c.JPEG").read_bytes())
    detect_files(exported.directory, [str(photos / "a.jpg"), str(other)], tmp_path / "out", 0.5)
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == ["a.jpg", "a_2.jpg"]


def test_corrupt_image_is_skipped_and_listed(exported, photos, tmp_path):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "a2.jpg").write_bytes(whole[:60])
    (photos / "empty.png").touch()
    summary = detect_files(exported.directory, [str(photos)], tmp_path / "out", 0.5)
    assert summary["images"] == 3 and len(summary["skipped"]) == 2
    assert "a2.jpg" in summary["skipped"][0] and "empty.png" in summary["skipped"][1]
    written = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["id"] for entry in written["images"]] == [1, 2, 3]
    with pytest.raises(BadImageError, match=r"a2\.jpg"):
        detect_image(load_detector(exported.directory), photos / "a2.jpg", 0.5)


def test_folders_that_are_no_export(exported, photos, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_detector(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"not an export \(no detector\.json in it\)"):
        load_detector(photos)
    (photos / "detector.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        load_detector(photos)
    description = json.loads((exported.directory / "detector.json").read_text())
    (photos / "detector.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="not a SavedModel"):
        load_detector(photos)
    (photos / "detector.json").write_text(json.dumps(description | {"written_as": "clay"}))
    with pytest.raises(ValueError, match=r"detector\.json: no format 'clay'; expected one of saved_model"):
        load_detector(photos)
    with pytest.raises(ValueError, match=r"threshold 1\.5"):
        detect_files(exported.directory, [str(photos)], tmp_path / "out", 1.5)


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_export_is_one_clear_error(exported, tmp_path, part, kept):
    copy = tmp_path / "copy"
    shutil.copytree(exported.directory, copy)
    (copy / part).write_bytes((copy / part).read_bytes()[:kept])
    with pytest.raises(UserError, match=r"copy: a damaged SavedModel .*; export again"):
        load_detector(copy)


def test_remote_paths_are_refused_by_what_they_say(exported, photos, tmp_path):
    with pytest.raises(UserError, match=r"^gs://b/model: expected a local path; copy the export to a local"):
        load_detector("gs://b/model")
    with pytest.raises(UserError, match=r"^gs://b/a.jpg: .*copy the images"):
        detect_files(exported.directory, ["gs://b/a.jpg"], tmp_path / "out", 0.5)
    with pytest.raises(UserError, match=r"^gs://b/out: .*write to a local folder, then copy"):
        detect_files(exported.directory, [str(photos)], "gs://b/out", 0.5)
