"""Evaluation of checkpoints: one, or each new one that a training job beside this one writes."""

import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from official.core.checkpoint import CheckpointFolder, load_for_inference, read_manifest, write_json
from official.core.initialise import variables_by_path
from official.core.progress import track
from official.core.task import Task


class Evaluation:
    """Scores checkpoints on the validation split; the model is built and compiled once.

    Args:
        task: what is evaluated.
        directory: receives metrics.json and detections.json of the latest evaluation.
    """

    def __init__(self, task: Task, directory: str) -> None:
        self.task, self.directory = task, directory
        self.model = task.build_model()
        self.last: dict[str, Any] | None = None  # metrics of the latest evaluation
        self._detect = tf.function(lambda batch: task.detect(self.model, batch), autograph=False)

    def __call__(self, checkpoint: str) -> dict[str, Any]:
        """Metrics of one checkpoint folder (its moving average, where the run kept one)."""
        load_for_inference(checkpoint, variables_by_path(self.model))
        evaluator, dataset = self.task.evaluator(), self.task.eval_inputs()
        for batch in track(dataset, "evaluating", total=int(dataset.cardinality())):
            evaluator.update(batch, self._detect(batch))
        metrics = {**evaluator.result(), "checkpoint": checkpoint, "step": read_manifest(checkpoint)["step"]}
        tf.io.gfile.makedirs(self.directory)
        evaluator.save_detections(f"{self.directory}/detections.json")
        write_json(f"{self.directory}/metrics.json", metrics)
        self.last = metrics
        return metrics


def new_checkpoints(directory: str, timeout: float, poll_seconds: float = 2.0) -> Iterator[str]:
    """Each new checkpoint of the run in `directory`, newest first seen; ends when none came for `timeout` seconds."""
    folder, seen, since = CheckpointFolder(f"{directory}/checkpoints"), None, time.monotonic()
    while time.monotonic() - since < timeout:
        latest = folder.latest()
        if latest is None or latest == seen:
            time.sleep(poll_seconds)
            continue
        yield latest
        seen, since = latest, time.monotonic()
