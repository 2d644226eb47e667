"""Our training step against the bare one of the same Keras model: forward, loss, backward, momentum update, by hand.

`python -m benchmarks.step [--json FILE]`: YOLOv4-tiny, one process, one batch, steps of the two in turn. At most 1.05.
"""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from benchmarks.report import arguments, interleaved, publish, timing_rows
from benchmarks.synthetic_batch import random_batch
from configs.experiment import Experiment
from dataloaders.batch import TrainBatch
from official.core.config_io import load_config
from official.core.distribution import place
from official.core.task import Moment
from official.core.trainer import Run
from tasks.yolo.task import Yolo


class WithoutData(Yolo):
    """The task without a data set: the input pipeline is measured elsewhere."""

    def examples_per_epoch(self) -> int:
        return 1000


def bare_step(run: Run, batch: Any) -> Callable[[], tf.Tensor]:
    """Forward, loss, backward and SGD with momentum and decay on copies of the run's variables, nothing else."""
    task, model, config = run.task, run.model, run.config
    variables = [tf.Variable(variable.value) for variable in model.trainable_variables]
    statistics_ = [tf.Variable(variable.value) for variable in model.non_trainable_variables]
    momenta = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        images, labels = task.prepare(batch)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = [tf.convert_to_tensor(variable) for variable in variables]
            tape.watch(weights)
            outputs, new_statistics = model.stateless_call(weights, statistics_, images, training=True)
            loss, _ = task.loss(outputs, labels, Moment(tf.constant(1, tf.int64), task.config.model.input_size))
        gradients = tape.gradient(loss, weights)
        for variable, value in zip(statistics_, new_statistics, strict=True):
            variable.assign(value)
        for variable, momentum, gradient in zip(variables, momenta, gradients, strict=True):
            momentum.assign(config.optimizer.momentum * momentum + gradient + config.optimizer.weight_decay * variable)
            variable.assign_sub(1e-5 * momentum)
        return loss

    return step


def tiny_run(size: int, batch_size: int) -> tuple[Run, TrainBatch]:
    """A run of YOLOv4-tiny on COCO's recipe at a square input size, and a batch for it."""
    overrides = [
        f"task.model.input_size=[{size}, {size}]",
        f"task.data.train.batch_size={batch_size}",
        "trainer.schedule={type: constant, learning_rate: 1.0e-5}",
    ]
    experiment = load_config("configs/experiments/yolov4_tiny_coco.yaml", Experiment, overrides)
    task = WithoutData(experiment.task, experiment.runtime.seed, experiment.trainer.duration)
    with tempfile.TemporaryDirectory() as directory:
        run = Run(task, experiment.trainer, experiment.runtime, place(experiment.runtime), directory)
    return run, random_batch(batch_size, (size, size), experiment.task.data.train.max_boxes)


def endless(batch: Any) -> Iterator[Any]:
    return iter(tf.data.Dataset.from_tensors(batch).repeat())


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=416, help="input height and width (default 416)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    run, batch = tiny_run(options.size, options.batch)
    iterator, one = endless(batch), tf.constant(1, tf.int64)
    step = bare_step(run, batch)
    seconds = interleaved(
        {"ours": lambda: run._loop(iterator, one)["scalars"]["loss"].numpy(), "bare": lambda: step().numpy()},
        options.rounds,
    )
    publish(
        f"YOLOv4-tiny, {options.size} x {options.size}, batch {options.batch}",
        timing_rows(seconds, "bare"),
        options.json,
    )


if __name__ == "__main__":
    main()
