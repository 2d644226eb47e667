import json
import math

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.traces.compare import (
    Absolute,
    AbsoluteAndRelative,
    CompareError,
    Exact,
    Metrics,
    OfAbsmax,
    Relative,
    SameSet,
    Tolerance,
    judge,
    measure,
    measure_rows,
)

NAN, INF = math.nan, math.inf


def again(metrics: Metrics) -> Metrics:
    """Through strict JSON and back, as a stored measurement goes."""
    text = metrics.model_dump_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    return Metrics.model_validate_json(text)


def pair(seed: int, shape=(3, 4, 5)):
    generator = np.random.default_rng(seed)
    expected = generator.normal(size=shape) * 10.0 ** generator.integers(-6, 3, shape)
    expected[generator.random(shape) < 0.1] = 0
    error = generator.normal(size=shape) * 10.0 ** generator.integers(-9, -2, shape)
    error[generator.random(shape) < 0.3] = 0
    return (expected + error).astype(np.float32), expected.astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), absolute=st.integers(-9, -1), relative=st.integers(-9, 1), factor=st.floats(1, 9))
def test_stored_metrics_judge_every_tolerance_as_the_elements_would(seed, absolute, relative, factor):
    ours, expected = pair(seed)
    stored = again(measure("x", ours, expected))
    error, size = np.abs(ours.astype(float) - expected), np.abs(expected.astype(float))
    a, r = factor * 10.0**absolute, factor * 10.0**relative
    assert judge(stored, Absolute(bound=a)).passed == (error <= a).all()
    assert judge(stored, Relative(bound=r)).passed == (error <= r * size).all()
    assert judge(stored, OfAbsmax(bound=r)).passed == (error <= r * size.max()).all()
    assert judge(stored, AbsoluteAndRelative(absolute=a, relative=r)).passed == (error <= a + r * size).all()


def test_each_tolerance_reports_its_own_measure_and_the_place():
    expected = np.array([[100.0, 1.0, 0.01], [0.0, -4.0, 2.0]])
    ours = expected + [[0.5, 0.1, 0.002], [0.0, 0.0, 0.0]]
    metrics = measure("x", ours, expected)
    assert metrics.max_abs == 0.5 and metrics.absmax == 100 and metrics.different == 3
    assert metrics.max_of_absmax == 0.005 and metrics.max_relative == pytest.approx(0.2)
    verdict = judge(metrics, AbsoluteAndRelative(absolute=0.01, relative=0.04))
    assert not verdict.passed
    assert verdict.error == pytest.approx(0.1) and verdict.bound == pytest.approx(0.05)
    assert verdict.note == "at [0, 1]: ours 1.1, expected 1"
    assert judge(metrics, Relative(bound=0.1)).note == "at [0, 2]: ours 0.012, expected 0.01"
    assert judge(metrics, Absolute(bound=0.1)).note == "at [0, 0]: ours 100.5, expected 100"
    assert metrics.rms == pytest.approx(math.sqrt((0.25 + 0.01 + 4e-6) / 6))
    assert metrics.quantiles["0.5"] == pytest.approx(0.001)


def test_equal_arrays_pass_everything():
    ours, _ = pair(0)
    metrics = again(measure("x", ours, ours))
    for tolerance in (Absolute(bound=0), OfAbsmax(bound=0), Relative(bound=0), Exact(), SameSet(bound=0)):
        assert judge(metrics, tolerance) == judge(measure("x", ours, ours), tolerance)
        assert judge(metrics, tolerance).passed
    assert metrics.frontier == () and metrics.cosine == pytest.approx(1)


def test_a_zero_that_is_missed_is_infinitely_wrong_relatively():
    metrics = again(measure("x", np.array([1e-9, 1.0]), np.array([0.0, 1.0])))
    assert metrics.max_relative == INF and not judge(metrics, Relative(bound=1e9)).passed
    assert judge(metrics, Absolute(bound=1e-9)).passed
    zero = again(measure("x", np.array([1e-9]), np.array([0.0])))
    assert zero.max_of_absmax == INF and not judge(zero, OfAbsmax(bound=1e9)).passed
    assert zero.cosine == 0


@pytest.mark.parametrize(
    ("ours", "expected"), [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, INF), (INF, -INF), (NAN, INF), (-INF, NAN)]
)
@pytest.mark.parametrize("tolerance", [Absolute(bound=1e30), OfAbsmax(bound=1e30), Relative(bound=1e30), Exact()])
def test_not_finite_in_one_only_fails(ours, expected, tolerance):
    metrics = again(measure("x", np.array([[0.0, 2.0], [ours, 3.0]]), np.array([[0.0, 2.0], [expected, 3.0]])))
    verdict = judge(metrics, tolerance)
    assert not verdict.passed
    assert "1 NaN or infinite in one only, first at [1, 0]" in verdict.note


@pytest.mark.parametrize("tolerance", [Absolute(bound=0), OfAbsmax(bound=0), Relative(bound=0), Exact()])
def test_nan_in_both_passes_and_is_said_equal_infinity_is_equal(tolerance):
    values = np.array([NAN, 1.0, INF, -INF, NAN])
    verdict = judge(again(measure("x", values, values.copy())), tolerance)
    assert verdict.passed and verdict.note == "NaN in both at 2 places"


@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 12), (1, 2, 3, 4), (2, 3, 1), (24,), ()])
def test_shapes_that_differ_are_never_transposed_or_broadcast(shape):
    with pytest.raises(CompareError, match=r"x: expected shape \(2, 3, 4\), ours is") as error:
        measure("x", np.ones(shape), np.ones((2, 3, 4)))
    assert ("another layout" in str(error.value)) == (shape == (2, 4, 3))


def test_text_and_objects_are_refused():
    for values in (np.array(["a"]), np.array([{}], object), np.array([1j])):
        with pytest.raises(CompareError, match="x: expected an array of numbers"):
            measure("x", np.ones(1), values)


def test_integers_are_compared_as_integers():
    metrics = measure("x", np.array([2**60, 5]), np.array([2**60 + 1, 5]))
    assert not judge(metrics, Exact()).passed and judge(metrics, Exact()).error == 1
    assert judge(measure("x", np.array([True, False]), np.array([1, 0])), Exact()).passed


def test_scalars_and_nothing():
    verdict = judge(measure("x", np.float32(2), np.float32(3)), Relative(bound=0.1))
    assert not verdict.passed and verdict.note == "at []: ours 2, expected 3"
    verdict = judge(again(measure("x", np.zeros((0, 4)), np.zeros((0, 4)))), Absolute(bound=0))
    assert verdict.passed and verdict.note == "no element to compare"


def test_extreme_numbers_do_not_overflow():
    big = np.array([1e308, -1e308, 1e-320])
    metrics = again(measure("x", -big, big))
    assert metrics.max_abs == INF and metrics.cosine == pytest.approx(-1)
    assert not judge(metrics, Absolute(bound=1e300)).passed


def test_frontier_stays_small():
    ours, expected = pair(1, (1000, 300))
    assert len(measure("x", ours, expected).frontier) < 100


class TestRows:
    expected = np.array([[0.1, 0.2, 3], [0.5, 0.6, 1], [0.5, 0.6, 1], [0.9, 0.9, 7]])

    def test_order_means_nothing(self):
        ours = self.expected[[2, 0, 3, 1]] + 1e-6
        assert judge(again(measure_rows("x", ours, self.expected)), SameSet(bound=2e-6)).passed
        assert not judge(measure_rows("x", ours, self.expected), SameSet(bound=1e-7)).passed

    @pytest.mark.parametrize(
        ("ours", "note"),
        [
            (expected[:3], "0 rows are ours only, 1 the original's only"),
            (expected[[0, 1, 1, 2, 3]], "1 rows are ours only, 0 the original's only"),
            (expected[:0], "0 rows are ours only, 4 the original's only; no element to compare"),
        ],
    )
    def test_a_row_without_a_partner_fails(self, ours, note):
        verdict = judge(again(measure_rows("x", ours, self.expected)), SameSet(bound=100))
        assert not verdict.passed and verdict.note == note

    def test_equal_counts_with_another_row_fail_by_its_error(self):
        ours = self.expected.copy()
        ours[3, 2] = 6
        verdict = judge(measure_rows("x", ours, self.expected), SameSet(bound=1e-3))
        assert not verdict.passed and verdict.error == 1 and "ours 6, expected 7" in verdict.note

    def test_nan_row_pairs_with_nothing_good(self):
        ours = self.expected.copy()
        ours[0, 0] = NAN
        assert not judge(again(measure_rows("x", ours, self.expected)), SameSet(bound=100)).passed

    def test_none_and_none(self):
        assert judge(measure_rows("x", np.zeros((0, 3)), np.zeros((0, 3))), SameSet(bound=0)).passed

    def test_other_columns(self):
        with pytest.raises(CompareError, match="x: expected rows"):
            measure_rows("x", np.zeros((2, 4)), self.expected)


def test_tolerances_are_configuration():
    adapter = pydantic.TypeAdapter(Tolerance)
    for tolerance in (AbsoluteAndRelative(absolute=1e-6, relative=2e-6), Exact(), SameSet(bound=1e-4)):
        assert adapter.validate_json(adapter.dump_json(tolerance)) == tolerance
    for bad in ({"type": "absolute", "bound": -1}, {"type": "absolute", "bound": NAN}, {"type": "near", "bound": 1}):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(bad)
