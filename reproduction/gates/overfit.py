"""Overfitting eight images: where that fails, something between pixels and weights is broken."""

import math
from collections.abc import Iterator

import tensorflow as tf

from configs.experiment import Experiment
from official.core.config import Trainer
from official.core.config_io import check_config, override
from official.core.errors import UserError, first_line
from official.core.progress import progress
from official.core.task import HostShare
from reproduction.experiment.original import Original
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.result import Exhibit, Lines, NoInputsError
from reproduction.traces.steps import train_step
from tasks import build_task

IMAGES = 8
STEPS = 150
SIDE = 224  # of the network's input, at most: minutes on a laptop
LEFT = 0.15  # of the loss of the first steps
RATE = 1e-3
AVERAGED = 5  # steps at either end


def check(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """The loss of one batch, seen again and again, falls to a small part of what it was."""
    experiment = _of_one_batch(subject.need_experiment(), subject.original)
    task = build_task(experiment)
    try:
        batch = next(iter(task.train_inputs(0, HostShare(), experiment.task.model.input_size)))
    except (UserError, OSError, tf.errors.OpError) as error:
        raise NoInputsError(f"needs {IMAGES} training images: {first_line(error)}") from None
    model = task.build_model()
    step, state = train_step(task, model, _trainer())
    once = tf.function(step, autograph=False)
    losses = []
    with progress("eight images", STEPS) as advance:
        for _ in range(STEPS):
            state, metrics = once(state, batch)
            losses.append(float(metrics.scalars["loss"]))
            advance(1, f"loss {losses[-1]:.4g}")
            if not math.isfinite(losses[-1]):
                break
    first, last = (sum(part) / AVERAGED for part in (losses[:AVERAGED], losses[-AVERAGED:]))
    share = last / first if math.isfinite(last) else math.inf
    note = f"from {first:.4g} to {last:.4g} in {len(losses)} steps of Adam at {RATE}"
    outcome = "pass" if share <= LEFT else "fail"
    yield Row(case="eight images", quantity="loss left", outcome=outcome, error=share, bound=LEFT, note=note)
    curve = tuple((float(number), value) for number, value in enumerate(losses, start=1) if math.isfinite(value))
    yield Lines(title="Loss of eight images", across="step", up="loss", lines={"ours": curve})


def _trainer() -> Trainer:
    duration = {"steps": STEPS}
    return Trainer.model_validate(
        {
            "duration": duration,
            "optimizer": {"type": "adam", "weight_decay": 0.0},
            "schedule": {"type": "constant", "learning_rate": RATE},
            "clip_global_norm": 10.0,
            "checkpoint": {"every": duration},
        }
    )


def _of_one_batch(experiment: Experiment, original: Original) -> Experiment:
    """Without augmentation, a batch of eight, and an input small enough for a laptop."""
    data = experiment.model_dump(mode="json", exclude_none=True)
    model = experiment.task.model
    stride, size = original.coarsest_stride(model), model.input_size
    scale = min(1.0, SIDE / max(size))
    small = [max(stride, int(side * scale) // stride * stride) for side in size]
    for key in ("augmentation", "multi_scale"):
        data["task"]["data"]["train"].pop(key, None)
    sets = [f"task.data.train.batch_size={IMAGES}", f"task.model.input_size={small}", "task.data.train.on_bad=skip"]
    return check_config(override(data, sets), Experiment, "the experiment, for eight images")
