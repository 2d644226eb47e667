"""A format is a module and a line of FORMATS; tests/extending walks the checklist of a new one."""

import json

import pytest

from official.core.errors import UserError
from serving import formats
from serving.formats import load_detector, write_export
from serving.predict import detect_files
from tests.extending.format.serving.formats import abacus as format_of_the_walk


@pytest.fixture
def abacus(monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "abacus", format_of_the_walk)


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
