"""What the doors do: train, evaluate, watch. Each is one call with an experiment and a run folder."""

import os
from typing import Any

import absl.logging
import keras
import tensorflow as tf

from configs.experiment import Experiment
from official.core.checkpoint import (
    CheckpointError,
    CheckpointFolder,
    find_checkpoint,
    is_complete,
    write_json,
    write_text,
)
from official.core.cluster import saying_that_a_worker_is_lost
from official.core.config import Runtime
from official.core.config_io import ConfigError, dump_config
from official.core.curve import watch as watch_curve
from official.core.distribution import Placement, place, place_locally
from official.core.evaluation import Evaluation, Scorer, new_checkpoints
from official.core.initialise import find_weights
from official.core.progress import say
from official.core.trainer import Run
from tasks import build_task


def train(experiment: Experiment, directory: str, evaluate: bool) -> dict[str, Any] | None:
    """Trains (resuming by default); with `evaluate` also scores as `trainer.evaluate_every` says. Returns metrics."""
    placement = place(experiment.runtime)
    set_up(experiment.runtime, placement)
    go_on = f"Start the same command on all machines: it goes on from the last checkpoint in {directory}"
    with saying_that_a_worker_is_lost(placement.cluster, go_on):
        return _train(experiment, directory, placement, evaluate)


def _train(experiment: Experiment, directory: str, placement: Placement, evaluate: bool) -> dict[str, Any] | None:
    """Of several machines, the chief alone evaluates and writes; the others compute with it, and have no metrics."""
    task = build_task(experiment)
    run = Run(task, experiment.trainer, experiment.runtime, placement, directory)
    evaluation = Evaluation(task, directory, placement.own_strategy) if evaluate and placement.is_chief else None
    say(run.resume_or_initialise())
    if placement.is_chief:
        save_config(experiment, directory)
    curve = experiment.reproduces.curve if experiment.reproduces else None
    try:
        run.train(evaluation, watch_curve(curve) if curve and curve.abort else None)
    finally:
        for split, found in task.data_reports().items() if placement.is_chief else ():
            write_json(f"{directory}/data_report_{split}.json", found)
    metrics = _score_best(evaluation, directory, experiment) if evaluation else None
    run.wait_for_workers()
    return metrics


def _score_best(evaluation: Evaluation, directory: str, experiment: Experiment) -> dict[str, Any]:
    best = find_checkpoint(directory)
    metrics = evaluation.last if evaluation.last and evaluation.last["checkpoint"] == best else evaluation(best)
    report(metrics, experiment)
    return metrics


def evaluate(experiment: Experiment, checkpoint: str, directory: str) -> dict[str, Any]:
    """Scores one checkpoint (or a run's best), or file of weights; writes metrics.json and detections.json."""
    path = find_weights(checkpoint)
    placement = set_up_locally(experiment)
    metrics = Evaluation(build_task(experiment), directory, placement.strategy)(path)
    report(metrics, experiment)
    return metrics


def evaluate_to_file(experiment: Experiment, weights: str, path: str) -> dict[str, Any]:
    """Scores one checkpoint or file of weights; writes metrics and protocol to `path`, and `path`.detections.json."""
    weights = find_weights(weights)
    if tf.io.gfile.isdir(path):
        raise ConfigError(f"{path}: is a folder; expected the name of a file to write")
    placement = set_up_locally(experiment)
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    metrics, evaluator, _ = Scorer(build_task(experiment), placement.strategy).score(weights)
    evaluator.save_detections(f"{path}.detections.json")
    write_json(path, metrics)
    report(metrics, experiment)
    return metrics


def watch(experiment: Experiment, run_directory: str, directory: str, timeout: float) -> int:
    """Scores each checkpoint of a training job beside this one until none came for `timeout` s; returns how many.

    The best so far is recorded in the run's folder, where the training job keeps it.
    """
    placement = set_up_locally(experiment)
    evaluation = Evaluation(build_task(experiment), directory, placement.strategy)
    folder, metric, count = (
        CheckpointFolder(f"{run_directory}/checkpoints"),
        experiment.trainer.checkpoint.best_metric,
        0,
    )
    say(f"waiting for checkpoints in {folder.directory}")
    for checkpoint in new_checkpoints(folder, timeout):
        try:
            metrics = evaluation(checkpoint)
        except CheckpointError:
            if is_complete(checkpoint):
                raise
            say(f"skipped {checkpoint}: the training job has removed it in the meantime")
            continue
        folder.record_score(checkpoint, metric, metrics[metric])
        report(metrics, experiment)
        count += 1
    say(f"no new checkpoint for {timeout:.0f} s; {count} evaluated")
    return count


def set_up_locally(experiment: Experiment) -> Placement:
    """For evaluation and export on this machine's GPU or CPU: a TPU belongs to the training job."""
    placement = place_locally(experiment.runtime)
    set_up(experiment.runtime, placement)
    return placement


def set_up(runtime: Runtime, placement: Placement) -> None:
    """Says where the run computes, and sets what is global: seeds, determinism, precision, silence."""
    say(f"on {placement}")
    absl.logging.set_verbosity(absl.logging.WARNING)
    keras.utils.set_random_seed(runtime.seed)
    if runtime.deterministic and placement.device != "tpu":  # XLA is deterministic there, and refuses the switch
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[runtime.precision])


def save_config(experiment: Experiment, directory: str) -> None:
    """The fully resolved configuration, beside what it produces."""
    tf.io.gfile.makedirs(directory)
    write_text(f"{directory}/config.yaml", dump_config(experiment))


def report(metrics: dict[str, Any], experiment: Experiment) -> None:
    """Prints the metrics, and whether they meet what the experiment claims to reproduce."""
    numbers = "  ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))
    say(f"step {metrics['step']}: {numbers}  ({metrics['images']} images)")
    for expected in experiment.reproduces.expected if experiment.reproduces else ():
        if expected.images not in (None, metrics["images"]):
            say(f"not compared with the published {expected.metric}, which is of {expected.images} images")
            continue
        value = metrics[expected.metric]
        met = value >= expected.value - expected.tolerance
        verdict = "reproduced" if met else "NOT reproduced"
        published = f"published {expected.value:.3f} (tolerance {expected.tolerance:.3f})"
        say(f"{verdict}: {expected.metric} {value:.3f}, {published}")
