"""Evaluation of checkpoints: one, or each new one that a training job beside this one writes."""

import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from official.core.checkpoint import CheckpointFolder, load_for_inference, write_json
from official.core.initialise import variables_by_path
from official.core.progress import track
from official.core.summaries import Summaries
from official.core.task import Task


class Evaluation:
    """Scores checkpoints on the validation split; data is opened, the model built and compiled once.

    Args:
        task: what is evaluated.
        directory: receives metrics.json and detections.json of the latest evaluation, and TensorBoard's events.
        strategy: where to compute. All replicas see the same batches; the first one's detections count.
    """

    def __init__(self, task: Task, directory: str, strategy: tf.distribute.Strategy | None = None) -> None:
        self.task, self.directory = task, directory
        self._strategy = strategy or tf.distribute.get_strategy()
        self._dataset = task.eval_inputs()
        with self._strategy.scope():
            self._trained, self.model = task.build_model(), task.build_inference_model()
        self.last: dict[str, Any] | None = None  # metrics of the latest evaluation
        self._detect = tf.function(self._detect_everywhere, autograph=False)
        self._summaries = Summaries(f"{directory}/tensorboard/evaluation")

    def __call__(self, checkpoint: str) -> dict[str, Any]:
        """Metrics of one checkpoint folder (its moving average, where the run kept one)."""
        step = load_for_inference(checkpoint, variables_by_path(self._trained))["step"]
        self.task.fold(self._trained, self.model)
        evaluator = self.task.evaluator()
        for number, batch in enumerate(track(self._batches(), "evaluating", total=int(self._dataset.cardinality()))):
            detections = self._detect(batch)
            evaluator.update(batch, detections)
            if number == 0:
                self._summaries.picture("evaluation/detections", self.task.draw(batch, detections), step)
        self.last = {**evaluator.result(), "checkpoint": checkpoint, "step": step}
        self._summaries.scalars(self.last, step, "evaluation")
        tf.io.gfile.makedirs(self.directory)
        evaluator.save_detections(f"{self.directory}/detections.json")
        write_json(f"{self.directory}/metrics.json", self.last)
        return self.last

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self._dataset
        except tf.errors.OpError:
            self.task.check_eval_inputs()  # names the file, if it was one
            raise

    def _detect_everywhere(self, batch: Any) -> Any:
        detections = self._strategy.run(lambda: self.task.detect(self.model, batch))
        first = lambda value: self._strategy.experimental_local_results(value)[0]  # noqa: E731
        return tf.nest.map_structure(first, detections)


def new_checkpoints(folder: CheckpointFolder, timeout: float, poll_seconds: float = 2.0) -> Iterator[str]:
    """Each complete checkpoint of a run, in order, as it appears; ends when none came for `timeout` seconds."""
    seen: set[str] = set()
    since = time.monotonic()
    while time.monotonic() - since < timeout:
        fresh = [path for path in folder.complete() if path not in seen]
        if not fresh:
            time.sleep(poll_seconds)
            continue
        yield fresh[0]
        seen.add(fresh[0])
        since = time.monotonic()
