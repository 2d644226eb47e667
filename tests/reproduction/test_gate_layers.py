"""Gate 2 in this process: the recorded layers pass; a planted mistake is named where it is, with its cause."""

import numpy as np
import pytest

from modeling.darknet import build as build_module
from reproduction.centernet.model import build, layer_of
from reproduction.centernet.network import _stages, _walk
from reproduction.experiment.subject import Subject
from reproduction.gates import pass_through
from reproduction.traces.case import HINTED, Case
from reproduction.traces.precision import precision
from reproduction.yolo.case import network_of


def subject(golden, *cases: str) -> Subject:
    return Subject(traces=(golden("layers/act_bn_leaky.npz").parents[1],), cases=cases)


def _plant_epsilon(monkeypatch) -> None:
    """Keras's epsilon in every batch-norm that is built."""
    made = build_module.BatchNorm
    monkeypatch.setattr(build_module, "BatchNorm", lambda *rest, **options: made(*rest, **{**options, "epsilon": 1e-3}))


def failing(rows) -> list[str]:
    return [row.quantity for row in rows if row.outcome == "fail"]


def test_recorded_layers_pass_whole_and_alone(golden):
    result = pass_through(2, subject(golden, "act_bn_leaky", "conv_dilation3", "maxpool_3s2_even"))
    assert result.outcome == "pass" and result.first_divergence is None
    names = [row.quantity for row in result.rows if row.case == "maxpool_3s2_even"]
    assert names == ["eval/L000_output", "eval/L001_output", "alone/eval/L000_output", "alone/eval/L001_output"]
    assert {row.kind for row in result.rows} == {"layer"} and {row.precision for row in result.rows} == {"float32"}


def test_an_epsilon_is_named_at_the_layer_that_has_it(golden, monkeypatch):
    _plant_epsilon(monkeypatch)
    result = pass_through(2, subject(golden, "act_bn_leaky", "conv_dilation3", "maxpool_3s2_even"))
    assert result.outcome == "fail"
    first = result.first_divergence
    assert (first.case, first.quantity) == ("act_bn_leaky", "eval/L000_output")
    assert first.hints[0].cause == "batch_norm_epsilon"
    dilated = [row for row in result.rows if row.case == "conv_dilation3" and row.outcome == "fail"]
    assert [row.hints[0].cause for row in dilated] == ["batch_norm_epsilon"] * 2  # whole and alone
    assert not failing(row for row in result.rows if row.case == "maxpool_3s2_even")


@pytest.mark.slow
def test_of_a_whole_detector_the_first_layer_is_explained_and_then_those_alone(golden, shared, monkeypatch):
    _plant_epsilon(monkeypatch)
    name = "yolo-fastest-1.1_96x64_all_layers"
    golden(f"infer/{name}.npz")
    result = pass_through(2, Subject(traces=(shared / "golden",), assets=shared / "assets", cases=(name,)))
    assert result.first_divergence.quantity == "L000_output"
    assert result.first_divergence.hints[0].cause == "batch_norm_epsilon"
    alone = [row for row in result.rows if row.quantity.startswith("alone/") and row.outcome == "fail"]
    assert [row.hints[0].cause for row in alone if row.hints] == ["batch_norm_epsilon"] * HINTED
    layers = network_of(Case(golden(f"infer/{name}.npz"))).layers
    assert {getattr(layers[int(row.quantity[7:10])], "batch_normalize", 0) for row in alone} == {1}


def test_a_stage_of_centernet_answers_for_itself(golden_centernet):
    case = Case(golden_centernet("res18_trace.npz"))
    with precision("float64"):
        model, _ = build(case)
    layers = {stage: layer_of(model, stage) for stage in _stages(case.trace)}
    walk = _walk(case, model, layers)
    assert not failing(walk.alone())
    head = walk.places[-1].tensor._keras_history.operation
    head.kernel.assign(np.asarray(head.kernel) * 1.01)
    stage = layers["deconv_layers.2"]  # a ReLU: what it is computed from has the mistake
    norm = stage.output._keras_history.operation.input._keras_history.operation
    norm.beta.assign(np.asarray(norm.beta) + 0.1)
    assert failing(walk.alone()) == ["alone/eval/stage/deconv_layers.2", f"alone/{walk.places[-1].name}"]


def test_without_records_it_does_not_pass(golden):
    result = pass_through(2, subject(golden, "nothing"))
    assert result.outcome == "no_inputs" and "infer/*.npz" in result.note
