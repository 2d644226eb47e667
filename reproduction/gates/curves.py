"""Gates that judge a training run by its folder: a short one by its loss, a whole one by its score."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from official.core.claims import Expected
from official.core.curve import Comparison, Point, read_curve
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.result import Exhibit, Lines, NoInputsError, Table

LEAST_POINTS = 5  # of a run, inside the original's curve


def short_run(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """The run's loss, as its summaries have it, stays in the band around the original's."""
    curve = subject.need_experiment().reproduces and subject.claims.curve
    if not curve:
        raise NoInputsError("needs the original's loss by step: name its file in reproduces.curve")
    losses = losses_of(_run_folder(subject))
    original = read_curve(curve.file)
    comparison = Comparison(curve, original)
    beside = [at for point in losses if (at := comparison.add(*point))]
    if len(beside) < LEAST_POINTS:
        raise NoInputsError(
            f"{subject.run} has {len(beside)} losses between steps {original[0].step} and {original[-1].step}; "
            f"expected {LEAST_POINTS} or more: train longer, or set trainer.summary_every lower"
        )
    judged = [at for at in beside if at.step >= curve.from_step]
    shares = [abs(at.ours - at.original) / max(abs(at.original), 1e-12) for at in judged]
    left = next((at for at in beside if not at.within), None)
    within = f"within the band to step {beside[-1].step}"
    note = f"left at step {left.step}: {left.ours:.4g}, original {left.original:.4g}" if left else within
    yield Row(
        case=Path(curve.file).stem, quantity="loss", outcome="fail" if left else "pass",
        error=max(shares, default=math.nan), bound=curve.band, note=note,
    )  # fmt: skip
    lines = {
        "ours": tuple((at.step, at.ours) for at in beside),
        "original": tuple((at.step, at.original) for at in beside),
        "band, above": tuple((at.step, at.original * (1 + curve.band)) for at in beside),
        "band, below": tuple((at.step, at.original * (1 - curve.band)) for at in beside),
    }
    yield Lines(title="Running mean of the loss", across="step", up="loss", lines=lines)


def losses_of(run: Path) -> list[Point]:
    """Every `train/loss` that a run has recorded, by step; of a step that was trained again, the last."""
    found: dict[int, float] = {}
    for path in sorted((run / "tensorboard" / "train").glob("events.*"), key=lambda path: path.stat().st_mtime):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    if not found:
        raise NoInputsError(f"{run}: has no recorded loss (tensorboard/train); expected the folder of a training run")
    return [Point(step, found[step]) for step in sorted(found)]


def full_run(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """The score that the run's last evaluation recorded, beside the published one; and the protocols."""
    experiment = subject.need_experiment()
    if not subject.claims.expected:
        raise NoInputsError("needs a published number: name it in reproduces.expected")
    path = _run_folder(subject) / "metrics.json"
    if not path.is_file():
        raise NoInputsError(f"{path}: no such file; evaluate.py writes it")
    metrics = json.loads(path.read_text())
    yield from _protocols(experiment.task.evaluation.model_dump(mode="json"), metrics.get("protocol", {}))
    for expected in subject.claims.expected:
        yield _published(expected, metrics)


def _published(expected: Expected, metrics: dict) -> Row:
    """Better than published passes, too."""
    quantity = expected.metric
    row = {"case": "metrics.json", "quantity": quantity}
    if quantity not in metrics:
        return Row(**row, outcome="fail", note=f"the run has no {quantity}")
    if expected.images not in (None, metrics.get("images")):
        note = f"the published number is of {expected.images} images, the run's of {metrics.get('images')}"
        return Row(**row, outcome="skip", note=note)
    below = expected.value - metrics[quantity]
    note = f"published {expected.value:.4f}, ours {metrics[quantity]:.4f}"
    outcome = "pass" if below <= expected.tolerance else "fail"
    return Row(**row, outcome=outcome, error=max(0.0, below), bound=expected.tolerance, note=note)


def _protocols(asked: dict, recorded: dict) -> Iterator[Row | Exhibit]:
    """Every word of the experiment's protocol is that of the recorded number."""
    differing = {key: recorded.get(key) for key, value in asked.items() if recorded.get(key) != value}
    note = "; ".join(f"{key}: the experiment says {asked[key]}, the run {value}" for key, value in differing.items())
    outcome = "fail" if differing else "pass"
    yield Row(case="metrics.json", quantity="protocol", outcome=outcome, error=len(differing), bound=0, note=note)
    rows = tuple((key, str(value), str(recorded.get(key, ""))) for key, value in asked.items())
    marks = tuple(number for number, row in enumerate(rows) if row[1] != row[2])
    yield Table(title="Protocol", head=("", "experiment", "run"), rows=rows, marks=marks)


def _run_folder(subject: Subject) -> Path:
    if subject.run is None:
        raise NoInputsError("needs the folder of a training run: give --run DIR")
    if not subject.run.is_dir():
        raise NoInputsError(f"--run {subject.run}: no such folder")
    return subject.run
