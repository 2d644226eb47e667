"""The command: exit codes, the page with its pictures, JSON, and errors in one line."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from official.core.config_io import dump_config
from tools.doctor.__main__ import main
from tools.doctor.report import as_text


def _run(monkeypatch, patient, tmp_path, *arguments):
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_config(patient.experiment()))
    monkeypatch.setattr(sys, "argv", ["doctor", "--config", str(path), *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_clean_data(monkeypatch, capsys, patient, tmp_path):
    output = tmp_path / "report"
    assert _run(monkeypatch, patient, tmp_path, "--output", output, "--json", tmp_path / "a.json") == 0
    out, err = capsys.readouterr()
    assert "0 faults, 0 warnings, 0 notes" in out and "decoding train: 12/12" in err
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads((output / "report.json").read_text())
    page = (output / "index.md").read_text()
    pictures = {"boxes.png", "classes.png", "samples_train.jpg", "samples_validation.jpg"}
    assert all(f"({name})" in page for name in pictures) and "| cell | 12 | 12 | 10 | 10 |" in page
    for name in pictures:
        pixels = np.asarray(Image.open(output / name).convert("RGB"))
        assert min(pixels.shape[:2]) >= 200 and pixels.std() > 10
    assert np.asarray(Image.open(output / "samples_train.jpg")).shape == (3 * 68 - 4, 4 * 100 - 4, 3)


def test_a_fault(monkeypatch, capsys, patient, tmp_path):
    for number in range(7):
        patient.train.box(100 + number, [10, 10, -4, 5])
    assert _run(monkeypatch, patient, tmp_path, "--json", tmp_path / "a.json") == 1
    out = capsys.readouterr().out
    assert out.startswith("FAULT    train: inverted_box (7)") and "and 2 more" in out and "1 fault, " in out
    report = json.loads((tmp_path / "a.json").read_text())
    (finding,) = [one for one in report["findings"] if one["kind"] == "inverted_box"]
    assert len(finding["where"]) == 7 and finding["severity"] == "fault" and report["counts"]["fault"] == 1
    assert report["splits"]["train"]["boxes"] == 24 and report["anchors"]["k_means"]["yaml"].startswith("anchors: [[")


def test_faults_of_everything_still_make_a_report(monkeypatch, patient, tmp_path):
    for folder in (patient.train, patient.validation):
        for entry in folder.images:
            (folder.root / "images" / entry["file_name"]).write_bytes(b"no image")
    output = tmp_path / "report"
    assert _run(monkeypatch, patient, tmp_path, "--output", output) == 1
    assert "Not examined" in (output / "index.md").read_text() and (output / "boxes.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "task.data.train.source.annotations=nowhere.json"], "nowhere.json"),
        (["--set", "task.data.clases=[a]"], "did you mean 'classes'"),
        (["--set", "task.data.classes=[cell, cell]"], "names a class twice"),
        (["--anchors", "0"], "--anchors 0: expected at least 1"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, patient, tmp_path, arguments, message):
    assert _run(monkeypatch, patient, tmp_path, *arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_the_text_names_the_levels(patient):
    text = as_text(patient.diagnose())
    assert "levels[0] (30 x 22, 40 x 36, 60 x 50): the best for 12 of 24 boxes" in text
