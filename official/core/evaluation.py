"""Evaluation of checkpoints: one, or each new one that a training job beside this one writes."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from official.core.checkpoint import CheckpointFolder, write_json
from official.core.initialise import load_trained
from official.core.progress import track
from official.core.summaries import Summaries
from official.core.task import Evaluator, Task


class Scored(NamedTuple):
    """What an evaluation of one set of weights gives."""

    metrics: dict[str, Any]
    evaluator: Evaluator  # which has the detections
    first: tuple[Any, Any]  # batch of the split and its detections


class Scorer:
    """Scores weights on the validation split; data is opened, the model built and compiled once.

    Args:
        task: what is evaluated.
        strategy: where to compute. All replicas see the same batches; the first one's detections count.
    """

    def __init__(self, task: Task, strategy: tf.distribute.Strategy | None = None) -> None:
        self.task = task
        self._strategy = strategy or tf.distribute.get_strategy()
        self._dataset = task.eval_inputs()
        with self._strategy.scope():
            self._trained, self.model = task.build_model(), task.build_inference_model()
        self._detect = tf.function(self._detect_everywhere, autograph=False, reduce_retracing=True)  # sizes may vary

    def score(self, weights: str) -> Scored:
        """Metrics of one checkpoint folder (its moving average, where the run kept one) or file of weights."""
        step = load_trained(self._trained, weights, self.task)["step"]
        self.task.fold(self._trained, self.model)
        evaluator, first = self.task.evaluator(), None
        for batch in track(self._batches(), "evaluating", total=int(self._dataset.cardinality())):
            detections = self._detect(batch)
            evaluator.update(batch, detections)
            first = first or (batch, detections)
        return Scored({**evaluator.result(), "checkpoint": weights, "step": step}, evaluator, first)

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


class Evaluation(Scorer):
    """A scorer that records what it found.

    Args:
        directory: receives metrics.json, detections.json and pictures/ of the latest evaluation, and TensorBoard's
            events; of a run's own folder, the curves of its training as well.
    """

    def __init__(self, task: Task, directory: str, strategy: tf.distribute.Strategy | None = None) -> None:
        super().__init__(task, strategy)
        self.directory = directory
        self.last: dict[str, Any] | None = None  # metrics of the latest evaluation
        self._summaries = Summaries(directory, "evaluation")

    def __call__(self, weights: str) -> dict[str, Any]:
        """Metrics of one checkpoint folder or file of weights."""
        metrics, evaluator, first = self.score(weights)
        self.last, step = metrics, metrics["step"]
        self._summaries.picture("evaluation/detections", self.task.draw(*first), step)
        for name, figure in evaluator.figures().items():
            self._summaries.figure(f"evaluation/{name}", figure, step)
        self._summaries.losses(step)
        self._summaries.scalars(metrics, step, "evaluation")
        tf.io.gfile.makedirs(self.directory)
        evaluator.save_detections(f"{self.directory}/detections.json")
        write_json(f"{self.directory}/metrics.json", metrics)
        return metrics


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
