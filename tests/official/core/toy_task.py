"""A one-convolution task with batch-norm: everything the trainer needs and nothing else; and runs of it."""

import json
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from official.core.config import Runtime, Trainer
from official.core.distribution import Placement
from official.core.task import HostShare, Loaded, Moment
from official.core.trainer import Run

HEIGHT, WIDTH = 6, 10
SIZES = ((6, 10), (8, 12), (10, 6))


class ToyBatch(NamedTuple):
    image: tf.Tensor
    target: tf.Tensor
    example_id: tf.Tensor


class ToyTask:
    """Regression of the mean colour; `poison` (a step, 0-based) makes the targets of that batch NaN; that of step
    `broken` cannot be read until it is found to be so.

    With several input sizes, training stays at each for two steps, in a fixed order that repeats some.
    """

    def __init__(
        self,
        batch_size: int = 4,
        poison: int = -1,
        norm: bool = True,
        sync: bool = False,
        sizes=((HEIGHT, WIDTH),),
        broken: int = -1,
    ) -> None:
        self.batch_size, self.broken = batch_size, broken
        self.poison, self.norm, self.sync = poison, norm, sync
        self.input_sizes = sizes
        self.left_out: dict[str, str] = {}

    def build_model(self) -> keras.Model:
        image = keras.Input([HEIGHT, WIDTH, 3] if len(self.input_sizes) == 1 else [None, None, 3])
        kernel = keras.initializers.VarianceScaling(seed=7)
        x = keras.layers.Conv2D(4, 3, name="body_conv", use_bias=False, kernel_initializer=kernel)(image)
        if self.norm:
            x = keras.layers.BatchNormalization(name="body_norm", synchronized=self.sync)(x)
        x = keras.layers.Conv2D(1, 1, name="head_conv", kernel_initializer=kernel)(keras.layers.ReLU()(x))
        return keras.Model(image, [keras.layers.GlobalAveragePooling2D(name="mean")(x)])

    def load_weights(self, model: keras.Model, path: str) -> Loaded:
        """A JSON file: the kernel of the head, and how many examples it has seen, if that is known."""
        with open(path) as file:
            content = json.load(file)
        model.get_layer("head_conv").kernel.assign(tf.fill([1, 1, 4, 1], content["kernel"]))
        return Loaded(f"loaded head_conv from {path}", content.get("seen"), complete=False)

    def build_inference_model(self) -> keras.Model:
        return self.build_model()

    def fold(self, trained: keras.Model, inference: keras.Model) -> None:
        inference.set_weights(trained.get_weights())

    def decode(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        return outputs[0]

    def facts(self) -> dict:
        return {"classes": ["colour"]}

    def facts_of(self, manifest: dict) -> dict:
        return manifest

    def data_reports(self) -> dict:
        return {}

    def replace_unreadable(self, first_step: int, last_step: int) -> list[str]:
        if self.left_out or not first_step <= self.broken < last_step:
            return []
        self.left_out = {str(self.broken): "picture 7 is damaged"}
        return list(self.left_out.values())

    def unreadable(self) -> dict[str, str]:
        return self.left_out

    def leave_out(self, unreadable: dict[str, str]) -> None:
        self.left_out |= unreadable

    def check_eval_inputs(self) -> None:
        pass

    def draw(self, batch: ToyBatch, detections: tf.Tensor) -> np.ndarray:
        return self.pictures(batch)

    def examples_per_epoch(self) -> int:
        return 12

    def input_size_at(self, step: int) -> tuple[int, int]:
        return self.input_sizes[self._size_index(step)]

    def _size_index(self, step):
        return ((step // 2) ** 2 + 1) % len(self.input_sizes)

    def train_inputs(self, start_step: int, shard: HostShare, input_size: tuple[int, int]) -> tf.data.Dataset:
        share = self.batch_size // shard.count
        wanted = self.input_sizes.index(input_size)
        steps = tf.data.Dataset.range(start_step, 10**9).filter(lambda step: self._size_index(step) == wanted)

        broken = -1 if self.left_out else self.broken

        def make(step: tf.Tensor) -> ToyBatch:
            tf.debugging.Assert(step != broken, ["cannot be read"])
            image = tf.random.stateless_uniform([self.batch_size, *input_size, 3], [1, 2] + tf.stack([step, step]))
            target = tf.reduce_mean(image, [1, 2, 3])[:, tf.newaxis] * 3  # [batch, 1]
            target = tf.where(step == self.poison, np.nan, target)
            ids = step * self.batch_size + tf.range(self.batch_size, dtype=tf.int64)
            return tf.nest.map_structure(lambda x: x[shard.index * share :][:share], ToyBatch(image, target, ids))

        options = tf.data.Options()
        options.autotune.enabled = False  # as in dataloaders/pipeline.py
        return steps.map(make).with_options(options)

    def prepare(self, batch: ToyBatch) -> tuple[tf.Tensor, tf.Tensor]:
        return batch.image, batch.target

    def loss(self, outputs, labels, moment: Moment) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        assert moment.input_size in self.input_sizes and moment.step.dtype == tf.int64
        loss = tf.reduce_mean(tf.square(outputs[0] - labels))
        return loss, {"square": loss}

    def example_name(self, example_id: int) -> str:
        return f"picture {example_id}"

    def eval_inputs(self) -> tf.data.Dataset:
        return self.train_inputs(0, HostShare(), self.input_sizes[0]).take(2)

    def detect(self, model: keras.Model, batch: ToyBatch) -> tf.Tensor:
        return tf.abs(model(batch.image, training=False)[0] - batch.target)

    def evaluator(self) -> "MeanError":
        return MeanError()

    def pictures(self, batch: ToyBatch) -> np.ndarray:
        return (batch.image[0].numpy() * 255).astype(np.uint8)


class MeanError:
    """Scores 1 - mean absolute error, under a name that experiments may choose the best by."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, batch: ToyBatch, detections: tf.Tensor) -> None:
        self.errors += detections.numpy().ravel().tolist()

    def result(self) -> dict:
        return {"AP": 1 - float(np.mean(self.errors)), "images": len(self.errors)}

    def figures(self) -> dict[str, Figure]:
        figure = Figure()
        figure.subplots().hist(self.errors)
        return {"errors": figure}

    def save_detections(self, path: str) -> None:
        with open(path, "w") as file:
            json.dump(self.errors, file)


class OtherClasses(ToyTask):
    """The same body with a head of another size."""

    def build_model(self):
        model = super().build_model()
        out = keras.layers.Conv2D(3, 1, name="head_conv")(model.layers[-3].output)
        return keras.Model(model.inputs, [keras.layers.GlobalAveragePooling2D(name="mean")(out)])


def toy_trainer(**overrides) -> Trainer:
    """A short run; keyword arguments replace top-level keys."""
    values = {
        "duration": {"steps": 6},
        "steps_per_loop": 3,
        "optimizer": {"type": "sgd", "momentum": 0.9, "weight_decay": 0.001},
        "schedule": {"type": "constant", "learning_rate": 0.05},
        "checkpoint": {"every": {"steps": 2}},
    }
    return Trainer.model_validate(values | overrides)


def make_run(directory: Path, task: ToyTask | None = None, strategy=None, seed: int = 0, **trainer) -> Run:
    placement = Placement(strategy or tf.distribute.get_strategy(), "cpu", "test")
    return Run(task or ToyTask(), toy_trainer(**trainer), Runtime(seed=seed), placement, str(directory))


def trained(directory: Path, **arguments) -> Run:
    run = make_run(directory, **arguments)
    run.resume_or_initialise()
    run.train()
    return run


def weights(run: Run) -> dict[str, np.ndarray]:
    return {variable.path: np.array(variable) for variable in run.model.trainable_variables}


def assert_close(first: dict[str, np.ndarray], second: dict[str, np.ndarray], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)
