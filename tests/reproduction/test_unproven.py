"""Nothing passes by omission: a part that a check lists was run by it, and every option belongs to a part."""

import pytest

from configs.experiment import Experiment
from configs.style import StyleConfig
from dataloaders.schedule import sizes
from losses.yolo import autodiff
from losses.yolo.darknet import yolo as yolo_darknet
from modeling.yolo import network
from modeling.yolo.heads import yolo as yolo_heads
from official.core import layer_rules, trainer
from official.core.checkpoint import CheckpointFolder
from official.core.config import Config
from official.core.config_io import load_config
from official.core.step import TrainStep
from official.optimization import moving_average, optimizers, schedules
from official.vision import detect
from reproduction.experiment.parts import NO_PART, parts_of, unproven
from reproduction.experiment.subject import Subject
from reproduction.gates import GATES, checks_of, pass_through
from reproduction.originals import original_of, with_original
from reproduction.seeded import updates
from serving.formats import saved_model
from tasks.yolo import task
from tests.conftest import EXPERIMENTS

WITH_EVERYTHING = (
    "trainer.micro_batches=2",
    "trainer.freeze=[backbone_conv00*]",
    "trainer.layers=[{name: head_*, learning_rate: 0.5}]",
    "task.data.train.multi_scale={sizes: 3}",
)
# What is replaced for each part: (where, name), an attribute or a key.
PLACES = {
    "task.loss": [(task.LOSSES, "yolo")],
    "label assignment": [(autodiff, "assign"), (yolo_darknet, "assign")],
    "task.model.head": [(module, "decode_level") for module in (autodiff, yolo_darknet, yolo_heads)],
    "pixels": [(task, "apply_colour")],
    "inference network": [(task, "fold_into")],
    "task.evaluation": [(detect, "select")],
    "export": [(saved_model, "_build_signatures")],
    "training step": [(TrainStep, "_differentiate")],
    "resume": [(CheckpointFolder, "restore")],
    "trainer.optimizer": [(optimizers._UPDATES, "adamw")],
    "trainer.schedule": [(schedules, "build_schedule")],
    "trainer.clip_global_norm": [(TrainStep, "_clip")],
    "trainer.moving_average": [(moving_average, "build_average")],
    "trainer.micro_batches": [(TrainStep, "_micro_batches")],
    "trainer.layers": [(layer_rules, "weight_rules")],
    "trainer.freeze": [(updates, "freeze"), (trainer, "freeze")],
    "task.data.train.multi_scale": [(sizes.SizePlan, "at")],
}
SEEDED = (
    *("own_inference", "own_decoding", "own_detections", "own_export", "own_assignment", "own_loss", "own_rates"),
    *("own_updates", "own_sizes", "own_pixels", "own_steps"),
)


def subject(*cases: str) -> Subject:
    """The demo with every option of the trainer that makes a part."""
    experiment = load_config(str(EXPERIMENTS / "demo.yaml"), Experiment, list(WITH_EVERYTHING))
    return with_original(Subject(experiment, cases=cases))


def ran(subject: Subject) -> dict[str, set[str]]:
    """By check that passed: the parts that it ran."""
    results = [pass_through(number, subject) for number in GATES if number < 10]
    return {check: set(parts) for result in results for check, parts in result.ran.items()}


def replaced(monkeypatch, part: str) -> None:
    """Every implementation of the part raises."""

    def broken(*arguments, **named):
        raise RuntimeError(f"{part} is broken")

    for where, name in PLACES[part]:
        (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, name, broken)


def check_part(monkeypatch, part: str, cases: tuple[str, ...]) -> None:
    """Each check that lists the part fails once it is broken, and none lists it then."""
    listing = {check for check, parts in ran(subject(*cases)).items() if part in parts}
    assert listing, f"no check runs {part}"
    replaced(monkeypatch, part)
    results = [pass_through(number, subject(*cases)) for number in GATES if number < 10]
    assert all(part not in parts for result in results for parts in result.ran.values())
    failing = {row.check for result in results for row in result.rows if row.outcome == "fail"}
    assert listing <= failing


def test_a_part_that_raises_fails_every_check_that_lists_it(monkeypatch):
    check_part(monkeypatch, "label assignment", ("own_assignment", "own_decoding"))


@pytest.mark.slow
@pytest.mark.parametrize("part", PLACES)
def test_any_part_that_raises_fails_every_check_that_lists_it(monkeypatch, part):
    check_part(monkeypatch, part, SEEDED)


@pytest.mark.slow
def test_a_network_that_raises_is_not_proven(monkeypatch, shared):
    experiment = load_config(str(EXPERIMENTS / "yolov4_tiny_coco.yaml"), Experiment, [])
    whole = with_original(
        Subject(experiment, (shared / "golden",), shared / "assets", cases=("yolov4-tiny*", "cfg_network"))
    )
    listing = pass_through(2, whole).ran
    checks = {check for check, parts in listing.items() if "task.model.backbone" in parts}
    assert checks == {"own_network", "cfg_network"}

    def broken(*arguments, **named):
        raise RuntimeError("the backbone is broken")

    monkeypatch.setitem(network.BACKBONES, "yolov4_tiny", broken)
    result = pass_through(2, with_original(Subject(experiment, whole.traces, whole.assets, cases=whole.cases)))
    failing = {row.check for row in result.rows if row.outcome == "fail"}
    assert {"own_network", "cfg_network"} <= failing and not result.ran


def test_every_part_of_the_demo_has_a_place_where_it_is_replaced():
    demo = subject()
    parts = set(parts_of(demo.experiment, demo.original))
    assert parts - set(PLACES) == {"task.model.backbone", "task.model.decoder", "input stream"}


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_belongs_to_a_part(path):
    """A key of the configuration is below a part's, or listed as none: a new option cannot be forgotten."""
    experiment = load_config(str(path), Experiment, [])
    parts = (
        *parts_of(experiment, original_of(experiment)),
        *NO_PART,
        "task.data.train",
    )  # the input stream's, and what pixels are made of
    optional = {f"trainer.{name}" for name in ("clip_global_norm", "moving_average", "freeze", "layers", "initialise")}
    optional |= {"trainer.micro_batches", "runtime.precision"}
    # Of the network's parts.
    optional |= {f"task.model.{name}" for name in ("decoder", "mean", "std", *StyleConfig.model_fields)}
    for key in keys(experiment):
        assert key.startswith((*parts, *optional)), key


def keys(config: Config, where: str = "") -> list[str]:
    found = []
    for name in type(config).model_fields:
        value = getattr(config, name)
        key = f"{where}{name}"
        found += keys(value, f"{key}.") if isinstance(value, Config) else [key]
    return found


def test_what_no_check_ran_is_left_with_its_reason():
    demo = subject()
    left = unproven(demo.experiment, demo.original, {"task.loss": None, "pixels": None})
    assert "task.loss" not in left and "resume" in left
    assert all(len(part.unproven) > 20 and part.what for part in left.values())
    assert all(check.name for check in checks_of(subject()))
