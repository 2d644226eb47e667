"""Where float32's own rounding comes near a bound, float64 decides; and networks can be computed in float64 at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.darknet.build import build_network
from modeling.darknet.cfg import parse_cfg
from modeling.darknet.loading import values_of
from modeling.darknet.weights import network_records
from reproduction.experiment.subject import Subject
from reproduction.report.html import page
from reproduction.report.markdown import markdown
from reproduction.report.model import Report
from reproduction.traces import case as module
from reproduction.traces.case import Case
from reproduction.traces.causes import Clue
from reproduction.traces.compare import AbsoluteAndRelative, OfAbsmax, SameSet
from reproduction.traces.result import GateResult
from reproduction.traces.trace import write_trace
from reproduction.yolo.layers import _passed_by, training
from tests.reproduction import proving as asked

BOUND = OfAbsmax(bound=1e-5)
EXPECTED = np.linspace(-2, 1, 12).reshape(3, 4)


@pytest.fixture
def case(tmp_path) -> Case:
    write_trace(tmp_path / "case.npz", {"a": EXPECTED})
    return Case(tmp_path / "case.npz")


def off(share: float) -> np.ndarray:
    """An array that is this share of the bound beside what is expected."""
    array = EXPECTED.copy()
    array[1, 2] += share * 1e-5 * np.abs(EXPECTED).max()
    return array


def never() -> np.ndarray:
    raise AssertionError("float64 was computed, which takes time")


@pytest.mark.parametrize(
    ("single", "double", "outcome", "error", "noise"),
    [
        (1.5, 0.1, "pass", 0.1, 1.4),  # beyond the bound by rounding alone
        (0.6, 0.1, "pass", 0.1, 0.5),
        (0.6, 1.5, "fail", 1.5, 0.9),  # within the bound by rounding alone
        (2.5, 1.5, "fail", 1.5, 1.0),
        (0.5, 0.4, "pass", 0.5, 0.1),  # rounding is small: float32 decides
        (1.5, 1.4, "fail", 1.5, 0.1),
        (1.1, 0.9, "pass", 0.9, 0.2),  # small, but enough for another verdict
    ],
)
def test_which_of_both_decides(case, single, double, outcome, error, noise):
    row = case.compare("a", off(single), BOUND, exact=lambda: off(double))
    assert (row.outcome, row.bound) == (outcome, 1e-5)
    assert (row.error, row.noise) == (pytest.approx(error * 1e-5), pytest.approx(noise * 1e-5))
    assert ("decided in float64" in row.note) == (error == double)


def test_float64_is_asked_only_near_the_bound(case):
    assert case.compare("a", off(0.3), BOUND, exact=never).noise is None
    not_a_number = off(0.9)
    not_a_number[0, 0] = np.nan  # not rounding
    row = case.compare("a", not_a_number, BOUND, exact=never)
    assert row.outcome == "fail" and row.noise is None
    assert case.compare("a", off(0.9), BOUND).noise is None


def test_of_two_tolerances_the_noise_is_in_the_same_measure(case):
    tolerance = AbsoluteAndRelative(absolute=1e-6, relative=1e-6)
    row = case.compare("a", EXPECTED + 4e-6, tolerance, exact=lambda: EXPECTED + 1e-7)
    assert row.outcome == "pass" and row.noise == pytest.approx(3.9e-6) and row.error == pytest.approx(1e-7)


def test_a_row_that_rounding_lifts_over_a_threshold(case):
    more = np.concatenate([EXPECTED, [[9.0, 9, 9, 9]]])
    assert case.compare("a", more, SameSet(bound=1e-4), exact=lambda: EXPECTED).outcome == "pass"
    row = case.compare("a", more, SameSet(bound=1e-4), exact=lambda: more)
    assert row.outcome == "fail" and row.note.startswith("1 rows are ours only")


def test_a_failure_in_float64_is_explained_by_its_own_numbers(case):
    row = case.compare("a", off(0.9), BOUND, None, Clue("gradient"), lambda: -EXPECTED)
    assert row.outcome == "fail" and row.hints[0].cause == "gradient_sign"


def test_the_report_shows_the_noise(case):
    row = case.compare("a", off(2.5), BOUND, exact=lambda: off(1.5))
    gate = GateResult(number=2, name="layers", outcome="fail", rows=(row,))
    made = Report(title="", made="", gates=(gate,), environment={}, provenance={})
    for text in (page(made), markdown(made)):
        assert "1e-05" in text and "at most 1 of a bound" in text and "decided in float64" in text
    (again,) = Report.model_validate_json(made.model_dump_json()).gates[0].rows
    assert again.noise == row.noise


FILES = {
    "layers_eval": ["layers/conv_groups2.npz"],
    "layers_train": [
        *("layers_cudnn_emulated/conv_groups2.npz", "layers_cudnn_emulated/conv_dilation2.npz"),
        *("layers_cudnn_emulated/conv_share_index.npz", "layers/connected_bn.npz"),
    ],
    "gradients": ["loss_cudnn_emulated/region_v2_seen_small.npz", "loss_cudnn_emulated/ciou_v4.npz"],
    "optimiser": ["optim/sgd_v4tiny_cudnn_emulated.npz"],
    "updates": ["optim/sgd_v4tiny_cudnn_emulated.npz"],
}
NOT_IN_FLOAT64 = {"lr"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FILES.items() for name in names])
def test_every_recorded_quantity_of_a_network_can_be_told_in_float64(golden, monkeypatch, kind, name):
    monkeypatch.setattr(module, "NEAR", -1.0)  # everything is near
    path = golden(name)
    check = asked.NAMED[kind]
    rows = list(check.run(Case(path), Subject()))
    compared = [row for row in rows if row.outcome != "skip" and row.quantity.rpartition("/")[2] not in NOT_IN_FLOAT64]
    assert compared and {row.outcome for row in compared} == {"pass"}
    assert [row.quantity for row in compared if row.noise is None or row.noise >= row.bound] == []
    # What float64 gives is no copy of float32.
    assert any(row.noise > 1e-8 for row in compared)


def test_a_mistake_in_the_network_is_one_in_float64_too(golden, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "NEAR", -1.0)
    name = "grad/L000_weight_updates"
    with np.load(golden("loss_cudnn_emulated/region_v2_seen_small.npz")) as file:
        arrays = {key: file[key] for key in file.files}
    arrays[name] = arrays[name] * 1.001
    np.savez(tmp_path / "case.npz", **arrays)
    rows = list(asked.NAMED["gradients"].run(Case(tmp_path / "case.npz"), Subject()))
    assert [row.quantity for row in rows if row.outcome == "fail"] == [name]


CONVOLUTION = "[convolutional]\nfilters=4\nsize=3\npad=1\nactivation=linear\n"
NET = "[net]\nwidth=12\nheight=8\nchannels=3\n"


def pool(size: int) -> str:
    return f"[maxpool]\nstride=1\nsize={size}\n"


def route(layers: str) -> str:
    return f"[route]\nlayers={layers}\n"


SPP = CONVOLUTION + pool(3) + route("-2") + pool(5) + route("-4") + pool(7) + route("-1,-3,-5,-6")


@pytest.mark.parametrize(
    ("sections", "passed_by"),
    [
        (SPP, {2, 4}),
        (CONVOLUTION + route("-1") + CONVOLUTION, set()),  # nothing reads the source but the route
        (CONVOLUTION + route("-1") + route("-1") + CONVOLUTION, set()),
        (CONVOLUTION + CONVOLUTION + route("-2") + CONVOLUTION, {2}),
        (CONVOLUTION * 2 + route("-2") + route("-1") + CONVOLUTION + route("-1,-3"), {2, 3}),
        (CONVOLUTION + "[dropout]\nprobability=0\n" + CONVOLUTION + "[shortcut]\nfrom=-3\n", set()),
        (CONVOLUTION + "[empty]\n" + CONVOLUTION + "[shortcut]\nfrom=-3\n", set()),
        (CONVOLUTION + "[dropout]\nprobability=0\n" + route("-2") + CONVOLUTION + "[shortcut]\nfrom=-3\n", {2}),
        (CONVOLUTION + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + CONVOLUTION + "[route]\nlayers=-1,-3\n", set()),
        (CONVOLUTION + CONVOLUTION + route("-2"), {2}),
    ],
)
def test_sections_past_which_others_read(sections, passed_by):
    assert _passed_by(build_network(parse_cfg(NET + sections, "test"), seed=0)) == passed_by


def nchw(images) -> np.ndarray:
    return np.transpose(images, (0, 3, 1, 2))


def test_deltas_of_an_spp_block_as_darknet_keeps_them(tmp_path):
    """A route's delta was compared with its source's, which has the total."""
    network = parse_cfg(NET + SPP, "test")
    graph = build_network(network, seed=3)
    random = np.random.default_rng(0)
    image = random.normal(size=(2, 8, 12, 3)).astype(np.float32)
    pools = [keras.layers.MaxPool2D(size, 1, "same") for size in (3, 5, 7)]
    with tf.GradientTape() as tape:
        given = tf.constant(image)
        tape.watch(given)
        first = graph.model.layers[1](given)
        seen = [tf.identity(first) for _ in range(3)]  # by the first pool, and by two routes
        parts = [one(part) for one, part in zip(pools, seen, strict=True)]
        outputs = [first, parts[0], seen[1], parts[1], seen[2], parts[2], tf.concat([*parts[::-1], first], -1)]
    upstream = random.normal(size=outputs[-1].shape).astype(np.float32)
    variables = graph.model.trainable_variables
    found = tape.gradient(outputs[-1], [given, *outputs, *variables], tf.constant(upstream))
    arrays = {"meta/cfg": NET + SPP, "X": nchw(image), "upstream_delta": nchw(upstream), "input_delta": nchw(found[0])}
    values = next(iter(values_of(graph.model, network_records(network)).values()))
    arrays |= {f"init/L000_{name}": value for name, value in values.items()}
    arrays |= {f"train/L{index:03d}_output": nchw(output) for index, output in enumerate(outputs)}
    arrays |= {f"delta_after_backward/L{index:03d}": nchw(found[1 + index]) for index in range(len(outputs))}
    of = {variable.name: gradient for variable, gradient in zip(variables, found[-2:], strict=True)}
    arrays["grad/L000_weight_updates"] = np.transpose(of["kernel"], (3, 2, 0, 1))
    arrays["grad/L000_bias_updates"] = of["bias"].numpy()
    write_trace(tmp_path / "spp.npz", arrays)
    rows = list(training(Case(tmp_path / "spp.npz")))
    assert [row.quantity for row in rows if row.outcome == "fail"] == []
    deltas = {row.quantity: row for row in rows if row.quantity.startswith("delta_after_backward/")}
    assert len(deltas) == 7
    skipped = [name for name, row in deltas.items() if row.outcome == "skip"]
    assert skipped == ["delta_after_backward/L002", "delta_after_backward/L004"]
    assert "ours is the total" in deltas[skipped[0]].note
    one, other = (arrays[f"delta_after_backward/{name}"] for name in ("L000", "L002"))
    assert np.abs(one - other).max() > 0.1  # the mistake would show
