"""A format is a module and a line of FORMATS; tests/extending walks the checklist of a new one."""

import json
import types

import numpy as np
import pytest

from official.core.errors import UserError
from serving import formats
from serving.formats import load_detector, write_export
from serving.predict import detect_files


def write(graph, folder):
    folder.mkdir()
    (folder / "counted.json").write_text(json.dumps({"classes": len(graph.classes)}))


def read(folder):
    """A detector that sees one object of the last class in every image, which fills its upper half."""
    last = json.loads((folder / "counted.json").read_text())["classes"] - 1

    def run(images):
        count, height, width = images.shape[:3]
        return {
            "detection_boxes": np.full((count, 1, 4), [0, 0, height / 2, width], np.float32),
            "detection_scores": np.full((count, 1), 0.75, np.float32),
            "detection_classes": np.full((count, 1), last, np.int32),
            "num_detections": np.ones(count, np.int32),
        }

    return run


@pytest.fixture
def abacus(monkeypatch):
    module = types.ModuleType("abacus")
    module.write, module.read = write, read
    monkeypatch.setitem(formats.FORMATS, "abacus", module)


def test_a_format_is_written_and_detected_with(abacus, graph, photos, tmp_path):
    folder = write_export(graph, "abacus", tmp_path / "counted")
    assert load_detector(folder).classes == graph.classes
    done = detect_files(folder, [str(photos)], tmp_path / "found", 0.5)
    found = json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"]
    assert done["detections"] == len(found) == done["images"] > 1
    assert {one["category_id"] for one in found} == {graph.category_ids[-1]}


def test_an_unknown_format_is_named(graph, tmp_path):
    with pytest.raises(UserError, match="--format: no format 'abacus'; expected one of saved_model"):
        write_export(graph, "abacus", tmp_path / "counted")
    assert not list(tmp_path.iterdir())
