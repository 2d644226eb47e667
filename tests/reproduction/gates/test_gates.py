"""What a gate's verdict is: passed, failed, without inputs; also when the gate itself breaks."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.experiment import Experiment
from losses.yolo import autodiff
from official.core.config_io import load_config
from official.core.errors import UserError
from reproduction import gates
from reproduction.experiment.subject import Subject, SubjectError, subject_of
from reproduction.gates import BEFORE_TRAINING, GATES, numbers_in, pass_through, run
from reproduction.originals import with_original
from reproduction.traces.case import Case, Row
from reproduction.traces.check import Check
from reproduction.traces.result import NoInputsError, Table, first_divergence
from tests.conftest import EXPERIMENTS, SUBSETS

OK = Row(case="one", quantity="a", outcome="pass", error=0.1, bound=1.0)
BAD = Row(case="one", quantity="b", outcome="fail", error=2.0, bound=1.0)
SKIPPED = Row(case="one", quantity="c", outcome="skip", note="not recorded")


def raising(*items: Row, error: Exception) -> Callable[[Subject], Iterator[Row]]:
    def check(case: Case, subject: Subject) -> Iterator[Row]:
        yield from items
        raise error

    return check


@pytest.fixture
def as_gate(monkeypatch) -> Callable[[int, Callable], None]:
    """Puts a check of the test's own in the place of those of a gate."""
    checks: list[Check] = []
    monkeypatch.setattr(gates, "checks_of", lambda subject: tuple(checks))

    def put(number: int, check: Callable[[Case, Subject], Iterator]) -> None:
        checks[:] = [one for one in checks if one.gate != number]
        checks.append(Check(f"check {number}", "", number, check))

    return put


@pytest.fixture(scope="module")
def yolo() -> Experiment:
    return load_config(str(EXPERIMENTS / "yolov4_tiny_coco.yaml"), Experiment, [])


@pytest.fixture(scope="module")
def centernet() -> Experiment:
    return load_config(str(EXPERIMENTS / "centernet_resdcn18_coco.yaml"), Experiment, [])


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ((OK,), "pass"),
        ((OK, SKIPPED), "pass"),
        ((OK, BAD, OK), "fail"),
        ((SKIPPED,), "no_inputs"),
        ((), "fail"),  # a check that compared nothing
        ((Table(title="t", head=("a",), rows=()),), "no_inputs"),
    ],
)
def test_a_verdict_is_that_of_the_rows(as_gate, items, outcome):
    as_gate(3, lambda case, subject: iter(items))
    assert pass_through(3, Subject()).outcome == outcome


def test_a_gate_that_lacks_inputs_says_so_and_does_not_pass_but_keeps_what_it_compared(as_gate):
    as_gate(3, raising(OK, error=NoInputsError("needs x: give --x")))
    result = pass_through(3, Subject())
    assert (result.outcome, result.note) == ("no_inputs", "needs x: give --x")
    assert [row.quantity for row in result.rows] == [OK.quantity]
    as_gate(3, raising(BAD, error=NoInputsError("needs x: give --x")))
    assert pass_through(3, Subject()).outcome == "fail"  # what was compared did differ


@pytest.mark.parametrize("error", [ValueError("broken"), UserError("broken"), OSError("broken"), KeyError("broken")])
def test_a_gate_that_breaks_has_failed_and_hides_no_other(as_gate, error):
    as_gate(2, raising(OK, error=error))
    as_gate(3, lambda case, subject: iter([BAD]))
    as_gate(5, lambda case, subject: iter([OK]))
    broken, failed, passed = run(Subject(), [2, 3, 5])
    assert (broken.outcome, failed.outcome, passed.outcome) == ("fail", "fail", "pass")
    assert broken.rows[0].quantity == OK.quantity and "broken" in broken.rows[1].note
    gate, row = first_divergence((broken, failed, passed))
    assert gate.number == 2 and row is broken.rows[1]
    assert first_divergence((passed, failed)) == (failed, failed.rows[0])


@pytest.mark.parametrize(
    "number",  # 3 exports, 9 trains
    [pytest.param(number, marks=pytest.mark.slow if number in (3, 9) else ()) for number in sorted(set(GATES) - {10})],
)
@pytest.mark.parametrize("family", ["yolo", "centernet"])
def test_without_any_input_no_gate_passes_and_each_says_what_it_needs(family, number, request, tmp_path):
    """Gate 1 alone may: CenterNet's options are in the experiment itself. Gate 10 is in tests/test_reproduce.py."""
    experiment = request.getfixturevalue(family)
    result = pass_through(number, with_original(Subject(experiment, traces=(tmp_path,), assets=tmp_path)))
    if (family, number) == ("centernet", 1):
        assert result.outcome == "pass"
        return
    assert result.outcome == "no_inputs", [row.note for row in result.rows if row.outcome == "fail"]
    assert len(result.note) > 20


@pytest.mark.parametrize(
    ("number", "name", "quantity"),
    [
        (6, "loss/ciou_v4tiny.npz", "train/L009_cost"),
        (7, "optim/sgd_v4tiny_cudnn_emulated.npz", "it0/after/L001_weights"),
    ],
)
def test_recorded_cases_pass_and_a_changed_number_is_the_first_divergence(yolo, number, name, quantity, tmp_path):
    case = Path(name).stem
    result = pass_through(number, with_original(Subject(yolo, (SUBSETS / "golden",), cases=(case,))))
    assert result.outcome == "pass" and result.counts()["pass"] > 1 and result.first_divergence is None
    arrays = dict(np.load(SUBSETS / "golden" / name))
    arrays[quantity] = arrays[quantity] + np.float32(1)
    changed = tmp_path / name
    changed.parent.mkdir()
    np.savez(changed, **arrays)
    found = pass_through(number, with_original(Subject(yolo, (tmp_path,))))
    assert found.outcome == "fail"
    assert (found.first_divergence.case, found.first_divergence.quantity) == (case, quantity)


def test_a_file_that_is_no_trace_fails_its_gate(yolo, tmp_path):
    """It is not left out in silence."""
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    shutil.copy(SUBSETS / "golden" / "loss" / "ciou_v4tiny.npz", tmp_path / "loss")
    result = pass_through(5, with_original(Subject(yolo, (tmp_path,))))
    assert result.outcome == "fail" and result.counts()["pass"] > 0
    assert any("cut.npz" in row.note for row in result.rows if row.outcome == "fail")


def test_foreign_cases_do_not_count(yolo, centernet):
    """A region head proves nothing about a YOLOv4 one; Darknet's traces nothing about CenterNet."""
    traces = (SUBSETS / "golden",)
    assert pass_through(5, with_original(Subject(yolo, traces, cases=("region*",)))).outcome == "no_inputs"
    assert pass_through(5, with_original(Subject(centernet, traces))).outcome == "no_inputs"


def test_two_files_of_one_name_are_not_chosen_between(yolo, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "yolov4-tiny.weights").touch()
    with pytest.raises(SubjectError, match=r"there are a/yolov4-tiny.weights, b/yolov4-tiny.weights; name more of it"):
        with_original(Subject(yolo, assets=tmp_path)).find("yolov4-tiny.weights")
    assert (
        with_original(Subject(yolo, assets=tmp_path)).find("a/yolov4-tiny.weights")
        == tmp_path / "a" / "yolov4-tiny.weights"
    )


@pytest.mark.parametrize(("text", "numbers"), [("1-9", list(BEFORE_TRAINING)), ("7, 2,2-3", [2, 3, 7]), ("12", [12])])
def test_numbers_of_gates(text, numbers):
    assert numbers_in(text) == numbers


@pytest.mark.parametrize("text", ["", ",", "0-99", "0", "13", "x", "3-", "-3", "9-1", "1.5"])
def test_numbers_of_gates_that_are_not_there(text):
    with pytest.raises(UserError, match="gates"):
        numbers_in(text)


def test_folders_that_are_not_there_are_named(yolo, tmp_path):
    for what in ("traces", "assets", "run"):
        named = {"traces": [], "assets": None, "run": None, "cases": []}
        named[what] = [f"{tmp_path}/no"] if what == "traces" else f"{tmp_path}/no"
        with pytest.raises(SubjectError, match=f"no: no such folder; expected one for {what}"):
            subject_of(yolo, **named)


class TestTheExperimentsOwnLoss:
    """Gates 5 and 6 run the loss that will be trained, on recordings where its options agree, and say where not."""

    @pytest.fixture(scope="class")
    def automatic(self) -> Experiment:
        return load_config(str(EXPERIMENTS / "yolov4_tiny_coco.yaml"), Experiment, ["task.loss.gradient=autodiff"])

    def test_an_exception_in_it_is_not_passed(self, automatic, monkeypatch):
        def broken(*arguments):
            raise RuntimeError("the loss is broken")

        monkeypatch.setattr(autodiff, "_level", broken)
        for number in (5, 6):
            result = pass_through(number, with_original(Subject(automatic, cases=("own_*",))))
            assert result.outcome == "fail" and result.ran == {}
            assert {row.note for row in result.rows} == {"RuntimeError: the loss is broken"}

    def test_of_the_automatic_gradient_the_terms_that_are_darknets_are_compared_and_the_rest_is_named(self, automatic):
        result = pass_through(
            6, with_original(Subject(automatic, (SUBSETS / "golden",), cases=("ciou_v4tiny", "mse_v3")))
        )
        assert result.outcome == "pass"
        compared = {row.quantity for row in result.rows if row.outcome == "pass"}
        assert {"train/L009_loss_delta: objectness", "train/L009_loss_delta: classes"} <= compared
        skipped = {row.quantity: row.note for row in result.rows if row.outcome == "skip"}
        assert "own_loss compares it" in skipped["train/L009_loss_delta: its boxes"]
        assert "ignore_thresh 0.5, here 0.7" in skipped["options"]

    def test_a_recording_with_an_option_that_it_has_not_is_skipped_and_says_which(self, automatic):
        result = pass_through(
            6, with_original(Subject(automatic, (SUBSETS / "golden",), cases=("ciou_v4_heads_differ_scale",)))
        )
        assert result.outcome == "no_inputs"
        assert "max_delta: no meaning with gradient: autodiff" in result.note

    @pytest.mark.parametrize("change", [lambda array: array.astype(np.int32), lambda array: array[:, :-1]])
    def test_arrays_of_another_type_or_shape_fail_by_name(self, yolo, tmp_path, change):
        arrays = dict(np.load(SUBSETS / "golden" / "loss" / "ciou_v4tiny.npz"))
        arrays["train/L008_output"] = change(arrays["train/L008_output"])
        (tmp_path / "loss").mkdir()
        np.savez(tmp_path / "loss" / "case.npz", **arrays)
        result = pass_through(6, with_original(Subject(yolo, (tmp_path,), cases=("case",))))
        assert result.outcome == "fail" and "train/L008_output" in result.first_divergence.note
