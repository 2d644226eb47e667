"""Stored comparisons under other tolerances, by kind and precision, without the arrays."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from official.core.config_io import ConfigError, load_config
from reproduction.report.model import Report
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import OfAbsmax
from reproduction.traces.judge import JudgeError, judge_again, read_rows, read_tolerances
from reproduction.traces.result import GateResult
from reproduction.traces.trace import write_trace
from tests.conftest import EXPERIMENTS
from tools import judge as command

TIGHT = OfAbsmax(bound=1e-6)
TOLERANCES = """
layer: {float32: {type: of_absmax, bound: 1.0e-2}, bfloat16: {type: absolute, bound: 0.05}}
gradient: {float64: {type: relative, bound: 1.0e-9}}
"""


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    """A layer in float32 that is 1e-3 off, the same in bfloat16, a gradient 1e-7 off in float64, one of no kind."""
    single = np.linspace(1, 2, 6, dtype=np.float32).reshape(2, 3)
    write_trace(tmp_path / "case.npz", {"a": single, "g": single.astype(np.float64)})
    case = Case(tmp_path / "case.npz")
    rounded = tf.cast(single * 1.001, tf.bfloat16).numpy()
    return [
        case.compare("a", single * np.float32(1.001), TIGHT, clue=Clue("layer")),
        case.compare("a", rounded, TIGHT, clue=Clue("layer")),
        case.compare("g", case.trace["g"] * (1 + 1e-7), TIGHT, clue=Clue("gradient")),
        case.compare("a", single * np.float32(1.001), TIGHT),
        case.skip("b", "not recorded"),
    ]


@pytest.fixture
def tolerances(tmp_path):
    (tmp_path / "t.yaml").write_text(TOLERANCES)
    return tmp_path / "t.yaml"


def test_each_kind_and_precision_has_its_own(rows, tolerances):
    assert [(row.kind, row.precision, row.outcome) for row in rows] == [
        ("layer", "float32", "fail"),
        ("layer", "bfloat16", "fail"),
        ("gradient", "float64", "pass"),
        ("", "float32", "fail"),
        ("", "", "skip"),
    ]
    again = [judge_again(row, read_tolerances(tolerances)) for row in rows]
    assert [row.outcome for row in again] == ["pass", "pass", "fail", "fail", "skip"]
    assert again[0].bound == 1e-2 and again[0].error == pytest.approx(1e-3, rel=1e-3)
    assert again[2].bound == 1e-9 and again[2].error == pytest.approx(1e-7, rel=1e-3)
    assert again[3] is rows[3] and again[4] is rows[4]


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["judge", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_code:
        command.main()
    return int(exit_code.value.code or 0)


def test_a_stored_report_and_a_stored_table(rows, tolerances, tmp_path, monkeypatch, capsys):
    gate = GateResult(number=2, name="layers", outcome="fail", rows=tuple(rows))
    report = Report(title="t", made="now", gates=(gate,), environment={}, provenance={})
    (tmp_path / "report.json").write_text(report.model_dump_json(exclude_none=True))
    stored = [json.loads(row.model_dump_json(exclude_none=True)) for row in rows[:2]]
    (tmp_path / "golden.json").write_text(json.dumps({"kinds": {"layers": {"rows": stored}}}))
    assert run(monkeypatch, tmp_path / "report.json", "--tolerances", tolerances) == 1
    shown = capsys.readouterr().out
    assert "case a: fail -> pass (layer, float32: 0.001, bound 0.01)" in shown
    assert "case g: pass -> fail (gradient, float64:" in shown
    assert "3 of 5 rows judged again: 2 pass, 2 fail, 1 skip" in shown
    assert run(monkeypatch, tmp_path / "golden.json", "--tolerances", tolerances) == 0
    assert read_rows(tmp_path / "report.json") == [row.model_copy(update={"maps": None}) for row in rows]


def test_an_experiment_has_its_own(rows, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [json.loads(rows[0].model_dump_json())]}))
    config = str(EXPERIMENTS / "yolov4_tiny_coco.yaml")
    key = "reproduces.tolerances={layer: {float32: {type: of_absmax, bound: 0.01}}}"
    changed = load_config(config, Experiment, [key])
    monkeypatch.setattr(command, "load_config", lambda *_: changed)
    assert run(monkeypatch, tmp_path / "rows.json", "--config", config) == 0
    for word, other in (("float32", "float31"), ("layer", "lair")):
        with pytest.raises(ConfigError, match=other):
            load_config(config, Experiment, [key.replace(word, other)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lair: {float32: {type: exact}}", "lair.*Input should be 'image', 'layer'"),
        ("layer: {float31: {type: exact}}", "layer.float31"),
        ("layer: {float32: {type: near, bound: 1}}", "layer.float32"),
        ("[", "not YAML"),
    ],
)
def test_what_is_no_tolerance_is_named(tmp_path, text, message):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(JudgeError, match=message):
        read_tolerances(tmp_path / "t.yaml")


def test_what_is_no_result_is_named(tmp_path, tolerances, monkeypatch, capsys):
    (tmp_path / "r.json").write_text("{}")
    assert run(monkeypatch, tmp_path / "r.json", "--tolerances", tolerances) == 1
    assert "has no rows of results" in capsys.readouterr().err
    (tmp_path / "r.json").write_text('{"rows": [{"outcome": "maybe"}]}')
    with pytest.raises(JudgeError, match="not a row"):
        read_rows(tmp_path / "r.json")
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(JudgeError, match="not JSON"):
        read_rows(tmp_path / "r.json")
