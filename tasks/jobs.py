"""What the doors do: train, evaluate, watch. Each is one call with an experiment and a run folder."""

import logging
import sys
from typing import Any

import keras
import tensorflow as tf

from configs.experiment import Experiment
from official.core.checkpoint import CheckpointError, find_checkpoint
from official.core.config import Runtime
from official.core.config_io import dump_config
from official.core.distribution import Placement, place
from official.core.evaluation import Evaluation, new_checkpoints
from official.core.task import Task
from official.core.trainer import Run
from tasks import TASKS

log = logging.getLogger(__name__)


def train(experiment: Experiment, directory: str, evaluate: bool) -> dict[str, Any] | None:
    """Trains (resuming by default); with `evaluate` also scores as `trainer.evaluate_every` says. Returns metrics."""
    placement = start(experiment.runtime)
    task = build_task(experiment)
    save_config(experiment, directory)
    run = Run(task, experiment.trainer, experiment.runtime, placement, directory)
    say(f"on {placement}")
    say(run.resume_or_initialise())
    if not evaluate:
        run.train()
        return None
    evaluation = Evaluation(task, directory)
    run.train(evaluation)
    best = find_checkpoint(directory)
    metrics = evaluation.last if evaluation.last and evaluation.last["checkpoint"] == best else evaluation(best)
    report(metrics, experiment)
    return metrics


def evaluate(experiment: Experiment, checkpoint: str, directory: str) -> dict[str, Any]:
    """Scores one checkpoint (or the best of a run folder); writes metrics.json and detections.json into `directory`."""
    start(experiment.runtime)
    metrics = Evaluation(build_task(experiment), directory)(find_checkpoint(checkpoint))
    report(metrics, experiment)
    return metrics


def watch(experiment: Experiment, run_directory: str, directory: str, timeout: float) -> int:
    """Scores each new checkpoint of a training job beside this one until none came for `timeout` s; returns the count."""
    start(experiment.runtime)
    evaluation = Evaluation(build_task(experiment), directory)
    count = 0
    for checkpoint in new_checkpoints(run_directory, timeout):
        try:
            report(evaluation(checkpoint), experiment)
        except CheckpointError as error:  # the training job may have removed it in the meantime
            say(f"skipped: {error}")
            continue
        count += 1
    say(f"no new checkpoint for {timeout:.0f} s; {count} evaluated")
    return count


def start(runtime: Runtime) -> Placement:
    """Seeds, determinism, precision, device: all that is global in TensorFlow and Keras."""
    keras.utils.set_random_seed(runtime.seed)
    if runtime.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[runtime.precision])
    return place(runtime)


def build_task(experiment: Experiment) -> Task:
    return TASKS[experiment.task.type](experiment.task, experiment.runtime.seed)


def save_config(experiment: Experiment, directory: str) -> None:
    """The fully resolved configuration, beside what it produces."""
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(f"{directory}/config.yaml", "w") as file:
        file.write(dump_config(experiment))


def report(metrics: dict[str, Any], experiment: Experiment) -> None:
    """Prints the metrics, and whether they meet what the experiment claims to reproduce."""
    numbers = "  ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))
    say(f"step {metrics['step']}: {numbers}  ({metrics['images']} images)")
    for expected in experiment.reproduces.expected if experiment.reproduces else ():
        value = metrics[expected.metric]
        met = value >= expected.value - expected.tolerance
        verdict = "reproduced" if met else "NOT reproduced"
        published = f"published {expected.value:.3f} (tolerance {expected.tolerance:.3f})"
        say(f"{verdict}: {expected.metric} {value:.3f}, {published}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
