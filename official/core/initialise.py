"""What a fresh model starts from: the weights of another run, or of a foreign file."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from official.core.checkpoint import CheckpointError, find_checkpoint, load_for_inference, load_matching, read_manifest
from official.core.config import Initialise
from official.core.task import Task


class Start(NamedTuple):
    report: str  # what was loaded and what was not
    step: int  # updates that count as done


def variables_by_path(model: keras.Model) -> dict[str, tf.Variable]:
    """All variables of a model by their path, such as `backbone_conv00/kernel`."""
    return {variable.path: variable.value for variable in model.variables}


def initialise(model: keras.Model, config: Initialise, task: Task) -> Start:
    """Loads what agrees from another run's checkpoint, or has the task read a foreign file of weights.

    Raises:
        CheckpointError: there is no such checkpoint or file, it cannot be used, or it does not say how long it was
            trained and `start_step` asks it.
    """
    path = config.checkpoint.rstrip("/")
    if not tf.io.gfile.exists(path):
        raise CheckpointError(
            f"{path}: no such file or folder; trainer.initialise.checkpoint names a run folder, a checkpoint folder in "
            "one, or a file of weights"
        )
    if not tf.io.gfile.isdir(path):
        loaded = task.load_weights(model, path)
        report, steps = loaded.report, None
        if loaded.examples_seen is not None:
            steps = loaded.examples_seen // task.batch_size  # Darknet network.c get_current_batch
    else:
        report, steps = _from_checkpoint(model, find_checkpoint(path), config.prefer_moving_average)
    if config.start_step != "from_file":
        return Start(report, config.start_step)
    if steps is None:
        raise CheckpointError(
            f"{path}: does not say how long its weights were trained; set trainer.initialise.start_step to a number "
            "instead of from_file (0: a training of its own)"
        )
    return Start(f"{report}\n  goes on after the {steps} steps of {task.batch_size} examples it has seen", steps)


def find_weights(path: str) -> str:
    """`path` itself if it is a file or a checkpoint, else the best (or else the newest) checkpoint of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    if not tf.io.gfile.exists(path):
        raise CheckpointError(f"{path}: no such file or folder; expected a run, a checkpoint, or a file of weights")
    return find_checkpoint(path) if tf.io.gfile.isdir(path) else path


def load_trained(model: keras.Model, path: str, task: Task) -> dict[str, Any]:
    """Fills a network of `task.build_model` whole, from what `find_weights` found, for evaluation and export.

    Returns:
        the manifest of a checkpoint; of another file what is known: `step`, updates of the task's batch size.

    Raises:
        CheckpointError: it is damaged, of another model, or has not all of the weights. Whatever the task raises.
    """
    if tf.io.gfile.isdir(path):
        return load_for_inference(path, variables_by_path(model))
    loaded = task.load_weights(model, path)
    if not loaded.complete:
        raise CheckpointError(f"{path}: lacks weights of this model, without which it detects nothing\n{loaded.report}")
    return {"step": (loaded.examples_seen or 0) // task.batch_size}


def _from_checkpoint(model: keras.Model, path: str, prefer_moving_average: bool) -> tuple[str, int]:
    """Loads what agrees in name and shape; returns the report and the steps behind the checkpoint."""
    loaded, skipped = load_matching(path, variables_by_path(model), prefer_moving_average)
    layers = ", ".join(sorted({name.partition("/")[0] for name in loaded}))
    lines = [f"initialised {len(loaded)} of {len(loaded) + len(skipped)} variables from {path}", f"  loaded: {layers}"]
    return "\n".join(lines + [f"  not loaded: {reason}" for reason in skipped]), read_manifest(path)["step"]
