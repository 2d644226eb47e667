"""No gate fails a shipped experiment, nor one with other options: beside recordings, and beside the stated formulas."""

from pathlib import Path

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from reproduction.experiment.subject import Subject
from reproduction.gates import BEFORE_TRAINING, OF_EVERY_EXPERIMENT, pass_through
from reproduction.originals import with_original
from reproduction.traces.case import Row
from reproduction.traces.check import run_check
from reproduction.yolo.recipe import darknet_experiment
from tests.conftest import EXPERIMENTS

ALL = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
CLAIMING = [name for name in ALL if "\nreproduces:" in (EXPERIMENTS / f"{name}.yaml").read_text()]
OWN = {check.name: check for check in OF_EVERY_EXPERIMENT if check.name.startswith("own_")}
QUICK = ("own_decoding", "own_assignment", "own_loss", "own_rates", "own_updates", "own_pixels")
EVERY = tuple(OWN)

# Options that no shipped experiment has: (experiment, overrides, the checks that they concern).
OPTIONS = {
    "box loss mse": ("demo", ["task.loss.iou_loss=mse"], ("own_assignment", "own_loss")),
    "box loss iou": ("demo", ["task.loss.iou_loss=iou"], ("own_assignment", "own_loss")),
    "box loss giou": ("demo", ["task.loss.iou_loss=giou"], ("own_assignment", "own_loss")),
    "box loss diou": ("demo", ["task.loss.iou_loss=diou"], ("own_assignment", "own_loss")),
    **{
        f"Darknet's {kind}": (
            "demo",
            ["task.loss.gradient=darknet", f"task.loss.iou_loss={kind}"],
            ("own_assignment", "own_loss"),
        )
        for kind in ("mse", "iou", "giou", "diou", "ciou")
    },
    "Darknet's clipped gradient": (
        "demo",
        ["task.loss.gradient=darknet", "task.loss.label_smoothing=0.1", "task.loss.max_delta=2"],
        ("own_assignment", "own_loss"),
    ),
    "several sizes": ("demo", ["task.data.train.multi_scale={sizes: 3}"], ("own_decoding", "own_loss")),
    "adam": ("demo", ["trainer.optimizer={type: adam}"], ("own_updates",)),
    "a drawn rate": ("demo", ["trainer.schedule={type: random, learning_rate: 0.01}"], ("own_rates", "own_updates")),
    "no augmentation": ("demo", ["task.data.train.augmentation=null"], ("own_pixels",)),
    "sgd, constant": (
        "demo",
        ["trainer.optimizer={type: sgd, nesterov: true}", "trainer.schedule={type: constant, learning_rate: 0.01}"],
        ("own_rates", "own_updates"),
    ),
    "exp": ("demo", ["trainer.schedule={type: exp, learning_rate: 0.01, gamma: 0.999}"], ("own_rates",)),
    "poly": ("demo", ["trainer.schedule={type: poly, learning_rate: 0.01}"], ("own_rates",)),
    "sigmoid": (
        "demo",
        ["trainer.schedule={type: sigmoid, learning_rate: 0.01, gamma: 0.01, middle: {steps: 200}}"],
        ("own_rates",),
    ),
    "sgdr": ("demo", ["trainer.schedule={type: sgdr, learning_rate: 0.01, cycle: {steps: 100}}"], ("own_rates",)),
    "step": (
        "demo",
        ["trainer.schedule={type: step, learning_rate: 0.01, every: {steps: 70}, scale: 0.5}"],
        ("own_rates",),
    ),
    "average that replaces the weights": (
        "demo",
        [
            "trainer.micro_batches=4",
            "trainer.moving_average={decay: 0.995, start: {steps: 100}, replaces_weights_at: {steps: 400}}",
        ],
        ("own_updates",),
    ),
    "affine": ("demo", ["task.data.train.augmentation={type: affine}"], ("own_pixels",)),
    "CenterNet's smooth L1": (
        "demo_centernet",
        ["task.loss.reg_loss=sl1", "task.evaluation.flip_test=true"],
        ("own_assignment", "own_loss", "own_detections"),
    ),
    "CenterNet's sizes by class": (
        "demo_centernet",
        ["task.model.head.cat_spec_wh=true", "task.model.head.reg_offset=false"],
        ("own_decoding", "own_assignment", "own_loss", "own_detections"),
    ),
    "CenterNet's dense sizes": ("demo_centernet", ["task.loss.dense_wh=true"], ("own_assignment", "own_loss")),
}
CFGS = ("Gaussian_yolov3_BDD.cfg", "tiny-yolo-voc.cfg", "yolov1/tiny-yolo.cfg")


def failures(name: str, number: int, shared: Path) -> list[str]:
    experiment = load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, [])
    traces = (shared / "golden", shared / "golden_centernet")
    result = pass_through(number, with_original(Subject(experiment, traces, shared / "assets")))
    return [f"{row.case} {row.quantity}: {row.note}" for row in result.rows if row.outcome == "fail"]


def assert_none_fails(experiment: Experiment, checks: tuple[str, ...]) -> None:
    """No row of these checks fails, and what is skipped says why."""
    subject = with_original(Subject(experiment))
    for name in checks:
        rows = [row for row in run_check(OWN[name], subject) if isinstance(row, Row)]
        assert [f"{name} {row.quantity}: {row.note}" for row in rows if row.outcome == "fail"] == []
        assert rows and all(row.note for row in rows if row.outcome == "skip")


@pytest.mark.parametrize("name", CLAIMING)
def test_no_recipe_is_called_another(shared, name):
    assert failures(name, 1, shared) == []


@pytest.mark.parametrize("check", QUICK)
@pytest.mark.parametrize("name", ["demo", "demo_centernet"])
def test_no_formula_fails_the_demo(name, check):
    assert_none_fails(load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, []), (check,))


@pytest.mark.parametrize("options", OPTIONS)
def test_no_formula_fails_other_options(options):
    name, overrides, checks = OPTIONS[options]
    assert_none_fails(load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, overrides), checks)


@pytest.mark.slow
@pytest.mark.parametrize("check", EVERY)
@pytest.mark.parametrize("name", [name for name in ALL if name not in CLAIMING])
def test_no_formula_fails(name, check):
    """The others have all their gates asked, in test_no_gate_fails."""
    assert_none_fails(load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, []), (check,))


@pytest.mark.slow
@pytest.mark.parametrize("cfg", CFGS)
def test_no_formula_fails_a_cfg(shared, cfg):
    """Their heads, which no shipped experiment has. The data are placeholders that nothing reads."""
    assert_none_fails(darknet_experiment(str(shared / "assets" / "darknet" / "cfg" / cfg), None, []), EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("number", BEFORE_TRAINING[1:])
@pytest.mark.parametrize("name", CLAIMING)
def test_no_gate_fails(shared, name, number):
    assert failures(name, number, shared) == []
