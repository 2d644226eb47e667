"""What the mistakes planted into a training run are planted in: shipped experiments, compared with formulas alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest import MonkeyPatch

from configs.experiment import Experiment
from official.core.config_io import load_config
from reproduction.experiment.subject import Subject
from reproduction.originals import with_original
from tests.reproduction.known_bugs.bug import Bug

EXPERIMENTS = Path(__file__).parents[3] / "configs" / "experiments"
# The checks of an experiment's own objects that take a second or two, of the gates before a mistake's own.
BEFORE = ("own_decoding", "own_assignment", "own_loss", "own_rates", "own_updates", "own_pixels")


def shipped(name: str, *overrides: str) -> Callable[[Path], Subject]:
    """A shipped experiment with overrides, which claims no original: then no recording is needed."""

    def subject(shared: Path) -> Subject:
        experiment = load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, overrides)
        return with_original(Subject(experiment.model_copy(update={"reproduces": None})))

    return subject


DARKNET = shipped("yolov4_tiny_coco")
AUTODIFF = shipped("yolov4_tiny_coco", "task.loss.gradient=autodiff")
PARTS = shipped("yolov4_tiny_coco", "trainer.micro_batches=2")
SIZES = shipped("yolov4_tiny_coco", "task.data.train.multi_scale={coefficient: 1.4}")
DEMO = shipped("demo")  # autodiff, AdamW, clipping, a moving average, letterboxed
CELLS = shipped("bccd")
CENTERNET = shipped("centernet_resdcn18_coco")


def of_run(
    name: str,
    plant: Callable[[MonkeyPatch], None],
    gate: int,
    check: str,
    first: str,
    cause: str,
    subject: Callable[[Path], Subject],
    **others: Any,
) -> Bug:
    """A mistake of the run's own code, that `check` finds. first: pattern of the quantity."""
    return Bug(name, (), plant, gate, (check,), f"{check}: {first}", cause, subject, BEFORE, **others)
