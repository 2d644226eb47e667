"""The trainer: holds the variables around the pure step, feeds it, saves, evaluates, reports, and stops at a NaN."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from official.core.build_step import build_step, initial_state
from official.core.checkpoint import CheckpointError, CheckpointFolder, read_json_if_there, write_json
from official.core.cluster import ClusterError, mean_over_workers
from official.core.config import Duration, Runtime, Trainer
from official.core.config_io import ConfigError
from official.core.distribution import Placement, assign
from official.core.errors import TryAgainError, UserError
from official.core.initialise import Start, initialise, variables_by_path
from official.core.layer_rules import freeze
from official.core.progress import progress
from official.core.step import Metrics, State
from official.core.summaries import NoSummaries, Summaries
from official.core.task import Batch, HostShare, Task

_LOG = logging.getLogger(__name__)
READ_AHEAD = 4  # batches that the pipeline may have begun beyond the step that failed
Evaluate = Callable[[str], dict[str, Any]]
Observe = Callable[[int, float], None]


class NotFiniteError(UserError):
    """A loss, gradient or network output became NaN or infinite."""


class UnreadableError(TryAgainError):
    """One of several machines could not read an image; started again, they leave it out."""


class PreemptedError(TryAgainError):
    """The machine is wanted back; the run was saved."""


@contextmanager
def notice_of_preemption() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process in the middle of a step."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there can a handler be set
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


class Run:
    """One training run: the model, the variables of its state, and the compiled loop around the step."""

    def __init__(self, task: Task, config: Trainer, runtime: Runtime, placement: Placement, directory: str) -> None:
        self.task, self.config, self.runtime = task, config, runtime
        self.placement, self.directory = placement, directory
        self._check_batch()
        with placement.strategy.scope():
            self.model = task.build_model()
            freeze(self.model, config.freeze)
            self.variables = self._make_variables()
        self.checkpoints = CheckpointFolder(f"{directory}/checkpoints", config.checkpoint.keep)
        self.train_step = build_step(task, self.model, config, self.to_steps, runtime.seed)
        self._one_step = tf.function(self._one_step_everywhere, autograph=False)
        self._loop = tf.function(self._run_steps, autograph=False)
        self._mean = mean_over_workers(placement.strategy)
        self._iterators: dict[tuple[int, int], Iterator[Any]] = {}  # of this run's position, by input size

    @property
    def step(self) -> int:
        """Updates done."""
        return int(self.variables.step.numpy())

    @property
    def total_steps(self) -> int:
        return self.to_steps(self.config.duration)

    def to_steps(self, duration: Duration) -> int:
        return duration.in_steps(self.task.batch_size, self.task.examples_per_epoch())

    def resume_or_initialise(self) -> str:
        """Continues from the newest checkpoint, else starts from `trainer.initialise`, else afresh; says which."""
        report = self._resume_or_initialise()
        if self.placement.cluster is not None and self._mean(self.step) != self.step:
            raise ClusterError(
                f"worker {self.placement.cluster.index} is at step {self.step}, others are not; expected the same "
                f"checkpoints on all: {self.directory} must be on a file system that every worker sees"
            )
        return report

    def _resume_or_initialise(self) -> str:
        self.task.leave_out(self._left_out())
        latest = self.checkpoints.latest()
        if latest is not None:
            manifest = self.task.facts_of(self.checkpoints.restore(latest, self._groups()))
            for name, here in self._facts().items():
                there = manifest.get(name)
                if there != here:
                    what = f"was {there}, now it is {here}" if len(f"{there}{here}") < 200 else "has changed"
                    raise CheckpointError(
                        f"{latest}: {name} {what}; this would not be the same run. Set it back, or start a new "
                        "--model_dir (trainer.initialise takes the weights along)."
                    )
            self.task.leave_out(manifest.get("unreadable", {}))
            return f"resumed from {latest} at step {self.step}"
        start = Start(f"fresh weights from seed {self.runtime.seed}", 0)
        if self.config.initialise is not None:
            start = initialise(self.model, self.config.initialise, self.task)
        if start.step >= self.total_steps:
            asked = self.config.initialise
            raise ConfigError(
                f"{asked.checkpoint}: its weights count as trained for {start.step} steps (trainer.initialise."
                f"start_step is {asked.start_step}), and trainer.duration ends at step {self.total_steps}: nothing "
                "would be trained. Set trainer.initialise.start_step=0 to count from 0 (train.py --clear), or a longer "
                "trainer.duration to go on"
            )
        self.variables.step.assign(start.step)
        for average, value in zip(self.variables.average, self._averaged(), strict=True):
            average.assign(value)
        return start.report

    def train(self, evaluate: Evaluate | None = None, observe: Observe | None = None) -> None:
        """Trains to the end of the duration. `evaluate` scores a checkpoint, as often as `evaluate_every` says.

        observe: is told the step and the mean loss since the last time; what it raises ends the training.

        Raises:
            NotFiniteError: a number became NaN or infinite.
            PreemptedError: the process was asked to end (SIGTERM); everything is saved.
        """
        summaries = Summaries(self.directory, "train") if self.placement.is_chief else NoSummaries()
        summaries.picture("train/batch", self.task.pictures(self._first_batch()), self.step)
        save, summarise, score = self._intervals()
        latest = self.checkpoints.latest()
        with notice_of_preemption() as preempted, progress("training", self.total_steps, start=self.step) as advance:
            if evaluate is not None and latest and self._is_due(score) and not self.checkpoints.is_scored(latest):
                self._score(evaluate, latest)  # the run before this one ended between saving and scoring
            while self.step < self.total_steps:
                begin = self.step
                boundaries = [begin + n - begin % n for n in (save, summarise, score)]
                end = min(begin + self.config.steps_per_loop, self.total_steps, *boundaries)
                end = self._end_of_size(begin, end)
                try:
                    result = self._loop(self.inputs(), tf.constant(end - begin, tf.int64))
                except tf.errors.OpError:
                    self._replace_unreadable(begin, end)
                    advance(self.step - begin, "")  # the steps before the unreadable one are done
                    continue
                self._stop_if_not_finite(begin, result)
                scalars = {name: float(value) for name, value in result["scalars"].items()}
                advance(end - begin, f"loss {scalars['loss']:.4g}")
                if self._is_due(summarise):
                    summaries.scalars(scalars, end, "train")
                scoring = evaluate is not None and self._is_due(score)
                ending = self._on_any_worker(preempted.is_set())
                if self._is_due(save) or scoring or ending:
                    path = self._save(end)
                if ending:
                    self.wait_for_workers()
                    raise PreemptedError(
                        f"asked to end at step {end}; saved as {path}. Start the same command to go on"
                    )
                if scoring:
                    self._score(evaluate, path)
                if observe is not None:
                    observe(end, scalars["loss"])
        summaries.losses(self.step)

    def wait_for_workers(self) -> None:
        """Returns when all workers have come here: none ends while another still needs it."""
        if self.placement.cluster is not None:
            self._mean(0.0)

    def _on_any_worker(self, flag: bool) -> bool:
        return flag if self.placement.cluster is None else self._mean(float(flag)) > 0

    def _save(self, step: int) -> str:
        """The checkpoint's path; the chief writes it."""
        if not self.placement.is_chief:
            return self.checkpoints.path(step)
        return self.checkpoints.save(step, self._groups(), {**self._facts(), "unreadable": self.task.unreadable()})

    def _first_batch(self) -> Batch:
        try:
            return self._batch_of(self.step)
        except tf.errors.OpError:
            self._replace_unreadable(self.step, self.step)
            return self._batch_of(self.step)

    def _replace_unreadable(self, begin: int, end: int) -> None:
        """TensorFlow does not say which file it could not read: they are read again, one by one, named and replaced.

        Raises:
            tf.errors.OpError: that which is being handled, where all files can be read.
        """
        # First of the step itself: so what is found does not depend on where the loop began.
        at_step = self.task.replace_unreadable(self.step, self.step + 1)
        messages = at_step or self.task.replace_unreadable(begin, end + READ_AHEAD)
        if not messages:
            raise
        if self.placement.cluster is not None and end > begin:  # the workers' operations do not match any more
            write_json(self._left_out_file, self.task.unreadable())
            raise UnreadableError(
                f"{'; '.join(messages)}. Several machines cannot go on past it at once: start the same command again "
                f"on all, which goes on from the last checkpoint without it ({self._left_out_file})"
            ) from None
        for message in messages:
            _LOG.warning(message)
        self._iterators.clear()

    @property
    def _left_out_file(self) -> str:
        """What one of several machines could not read, for all of them when they start again."""
        return f"{self.directory}/unreadable.json"

    def _left_out(self) -> dict[str, str]:
        return read_json_if_there(self._left_out_file, {}, "delete it to read all images again")

    def _is_due(self, interval: int) -> bool:
        return self.step > 0 and (self.step % interval == 0 or self.step == self.total_steps)

    def _score(self, evaluate: Evaluate, path: str) -> None:
        metric = self.config.checkpoint.best_metric
        self.checkpoints.record_score(path, metric, evaluate(path)[metric])

    def _intervals(self) -> tuple[int, int, int]:
        """Steps between checkpoints, between summaries, between evaluations."""
        score = self.config.evaluate_every or self.config.duration
        return (
            self.to_steps(self.config.checkpoint.every),
            self.to_steps(self.config.summary_every),
            self.to_steps(score),
        )

    def _run_steps(self, iterator: Iterator[Any], count: tf.Tensor) -> dict[str, Any]:
        """`count` steps on the device: mean scalars; the first step with a NaN (0-based, -1: none), what was finite."""
        shapes = self._one_step.get_concrete_function(iterator).structured_outputs
        totals = {name: tf.zeros([]) for name in shapes.scalars}
        start = (tf.constant(0, tf.int64), totals, tf.constant(-1, tf.int64), tf.ones([len(shapes.finite)], tf.bool))

        def body(index: tf.Tensor, totals: dict[str, tf.Tensor], bad: tf.Tensor, finite: tf.Tensor) -> tuple[Any, ...]:
            metrics = self._one_step(iterator)
            totals = {name: total + metrics.scalars[name] for name, total in totals.items()}
            flags = tf.stack(list(metrics.finite.values()))  # [quantities]
            finite = tf.where(bad < 0, flags, finite)
            return index + 1, totals, tf.where((bad < 0) & ~tf.reduce_all(flags), index, bad), finite

        _, totals, bad, finite = tf.while_loop(lambda index, *_: index < count, body, start, parallel_iterations=1)
        means = {name: total / tf.cast(count, tf.float32) for name, total in totals.items()}
        return {"scalars": means, "bad": bad, "finite": dict(zip(shapes.finite, tf.unstack(finite), strict=True))}

    def _one_step_everywhere(self, iterator: Iterator[Any]) -> Metrics:
        strategy = self.placement.strategy
        metrics = strategy.run(self._replica_step, args=(next(iterator),))
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], metrics)

    def _replica_step(self, batch: Any) -> Metrics:
        state = tf.nest.map_structure(tf.convert_to_tensor, self.variables)
        new_state, metrics = self.train_step(state, batch)
        assign(tf.nest.flatten(self.variables), tf.nest.flatten(new_state))
        return metrics

    def _end_of_size(self, begin: int, end: int) -> int:
        """The first step after `begin` that uses another input size, at most `end`."""
        size = self.task.input_size_at(begin)
        return next((step for step in range(begin + 1, end) if self.task.input_size_at(step) != size), end)

    def inputs(self) -> Iterator[Any]:
        """Batches from this run's position on, of the size it uses there.

        Each size has a stream of its own from its first step on, which then holds the few batches it has read ahead.
        """
        size = self.task.input_size_at(self.step)
        if size not in self._iterators:
            self._iterators[size] = self._new_inputs(size)
        return self._iterators[size]

    def _new_inputs(self, size: tuple[int, int]) -> Iterator[Any]:
        """Batches of one size; with several replicas, each batch split among them in order."""
        strategy = self.placement.strategy
        replicas = strategy.num_replicas_in_sync
        if replicas == 1:
            return iter(self.task.train_inputs(self.step, HostShare(), size))

        def per_replica(context: tf.distribute.InputContext) -> tf.data.Dataset:
            shard = HostShare(context.input_pipeline_id, context.num_input_pipelines)
            dataset = self.task.train_inputs(self.step, shard, size)
            parts = replicas // context.num_input_pipelines

            def split(batch: Any) -> Any:
                return tf.nest.map_structure(lambda x: tf.reshape(x, [parts, x.shape[0] // parts, *x.shape[1:]]), batch)

            return dataset.map(split).unbatch()

        return iter(strategy.distribute_datasets_from_function(per_replica))

    def _batch_of(self, step: int) -> Batch:
        """The whole batch of step `step` (0-based), which is a function of seed and step."""
        return next(iter(self.task.train_inputs(step, HostShare(), self.task.input_size_at(step))))

    def _stop_if_not_finite(self, begin: int, result: dict[str, Any]) -> None:
        bad = int(result["bad"])
        if bad < 0:
            return
        step = begin + bad
        quantity = next(name for name, finite in result["finite"].items() if not finite)
        batch = self._batch_of(step)
        examples = ", ".join(
            f"{number} ({self.task.example_name(number)})" for number in batch.example_id.numpy().tolist()
        )
        raise NotFiniteError(
            f"step {step + 1}: {quantity} is NaN or infinite; example ids of the batch: {examples}. "
            f"Nothing was saved since; the last good checkpoint is {self.checkpoints.latest() or 'none yet'}. "
            "Look at these examples; lower the learning rate, lengthen burn_in or set trainer.clip_global_norm."
        )

    def _check_batch(self) -> None:
        replicas, parts = self.placement.strategy.num_replicas_in_sync, self.config.micro_batches
        if self.task.batch_size % (replicas * parts):
            raise ConfigError(
                f"batch_size {self.task.batch_size} does not divide by {replicas} replicas x {parts} micro_batches; "
                f"use a multiple of {replicas * parts}"
            )

    def _make_variables(self) -> State:
        """The initial state as variables; weights and statistics are the model's own."""
        state = initial_state(self.model, self.config)
        own = (state.step, state.slots, state.average)
        step, slots, average = tf.nest.map_structure(lambda value: tf.Variable(value, trainable=False), own)
        weights = [variable.value for variable in self.model.trainable_variables]
        statistics = [variable.value for variable in self.model.non_trainable_variables]
        return State(step, weights, statistics, slots, average)

    def _averaged(self) -> list[tf.Variable]:
        """The variables that the moving average follows, if the run keeps one."""
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        return [variable.value for variable in variables] if self.config.moving_average else []

    def _groups(self) -> dict[str, dict[str, tf.Variable]]:
        """The state as named groups of named variables, as it is saved."""
        weights = [variable.path for variable in self.model.trainable_variables]
        groups = {"progress": {"step": self.variables.step}, "weights": variables_by_path(self.model)}
        groups |= {name: dict(zip(weights, slot, strict=True)) for name, slot in self.variables.slots.items()}
        names = weights + [variable.path for variable in self.model.non_trainable_variables]
        return groups | {"average": dict(zip(names, self.variables.average, strict=True)) if self._averaged() else {}}

    def _facts(self) -> dict[str, Any]:
        """What makes another run of it: the data's order and position, the network, the classes."""
        return {"seed": self.runtime.seed, "batch_size": self.task.batch_size, **self.task.facts()}
