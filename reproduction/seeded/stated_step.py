"""Single steps of a training by the stated formulas: the other side of gate 9."""

import fnmatch
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float64

from reproduction.experiment.own import Own
from reproduction.restated import optimisers, training
from reproduction.seeded import pixels
from reproduction.seeded.family import Family
from reproduction.seeded.update_mistakes import exchanged

ELEMENTS = 2048  # of a variable that are compared, evenly spread
Array = Float64[np.ndarray, "..."]


class Values(NamedTuple):
    """What is compared of what a run holds, in float64: some elements of each variable, in the model's order."""

    step: int
    weights: list[Array]
    statistics: list[Array]
    slots: dict[str, list[Array]]
    average: list[Array]
    loss: float = 0.0  # of this step; not held


class Before(NamedTuple):
    """What a step starts from. The network needs every weight whole; of slots and average what is compared is enough:
    no element of an update looks at another one, but for the norm of the gradient.
    """

    values: Values
    weights: list[Float[tf.Tensor, "..."]]  # as the network takes them: a copy of all is large
    statistics: list[Array]


def some_of(values: Array | tf.Variable) -> Array:
    """At most `ELEMENTS`, evenly spread. A copy: a view would keep all of them."""
    row = np.ravel(np.asarray(values))
    return np.array(row[:: -(-row.size // ELEMENTS) or 1], np.float64)


def _is_frozen(path: str, patterns: Sequence[str]) -> bool:
    """Whether a variable is of a layer that does not train: then nothing of it moves (trainer.freeze)."""
    return any(fnmatch.fnmatchcase(layer, pattern) for layer in path.split("/")[:-1] for pattern in patterns)


def _unless(is_kept: Sequence[bool], former: Sequence[Array], new: Sequence[Array]) -> list[Array]:
    return [old if kept else one for kept, old, one in zip(is_kept, former, new, strict=True)]


class Stated:
    """Single steps by the stated formulas."""

    def __init__(self, own: Own, family: Family, model: keras.Model) -> None:
        self.own, self.family, self.model = own, family, model
        self.trainer = own.experiment.trainer
        classes = own.experiment.task.data.classes
        self.by_name = np.array([sorted(classes).index(name) for name in classes])
        self.names = names = [variable.path for variable in model.trainable_variables]
        ranks = [len(variable.shape) for variable in model.trainable_variables]
        self.groups = optimisers.groups(names, ranks, self.trainer.layers, own.to_steps)
        self.is_kept = [
            [_is_frozen(variable.path, self.trainer.freeze) for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]

    def step(
        self,
        before: Before,
        batch: Any,
        prepared: Callable[[Any, Any], tuple[Any, Any]] = lambda images, labels: (images, labels),
        is_training: bool = True,
        factor: float = 1.0,
        in_turn: bool = True,
    ) -> Values:
        """What a step leaves. The last four make a mistake: in the pixels or labels, and so on."""
        parts, values, statistics = [], [], before.statistics
        for part in self._parts(batch):
            images, labels = prepared(*self._prepared(part))
            former = statistics if in_turn else before.statistics
            gradients, statistics, value = self._backward(before, former, images, labels, is_training)
            parts.append(gradients if factor == 1 else [factor * one for one in gradients])
            values.append(value)
        former, number = before.values, before.values.step + 1
        gradients, norm = training.step_gradients(self.trainer, parts, self.groups, number)
        few, statistics = [some_of(one) for one in gradients], [some_of(one) for one in statistics]
        statistics = _unless(self.is_kept[1], former.statistics, statistics)
        held = former.weights, statistics, former.slots, former.average
        done = training.update_step(self.trainer, few, norm, *held, self.groups, number, self.own.to_steps)
        weights = _unless(self.is_kept[0], former.weights, done.weights)
        return Values(number, weights, statistics, done.slots, done.average, float(np.mean(values)))

    def _parts(self, batch: Any) -> Iterator[Any]:
        count = self.trainer.micro_batches
        size = batch.boxes.shape[0] // count
        for number in range(count):
            yield tf.nest.map_structure(lambda one, at=number * size: one[at : at + size], batch)

    def _prepared(self, part: Any) -> tuple[Array, Any]:
        """The formula's pixels and labels of a micro-batch; the run's own pixels where they agree as gate 8 demands.

        In training mode a network of a hundred layers amplifies the last digit of a pixel to a tenth of a gradient.
        """
        images, labels = self.family.prepare(part)
        own = np.asarray(self.own.task.prepare(part)[0], np.float64)
        return (own if np.abs(own - images).max() <= pixels.FLOAT.bound else images), labels

    def _backward(
        self, before: Before, statistics: list[Array], images: Any, labels: Any, is_training: bool
    ) -> tuple[list[Array], list[Array], float]:
        """(gradients by the weights, the statistics that the pass leaves, the loss) of one micro-batch."""
        weights = before.weights
        kinds = [variable.dtype for variable in self.model.non_trainable_variables]
        former = [tf.cast(one, kind) for one, kind in zip(statistics, kinds, strict=True)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            image = tf.constant(images)
            outputs, moved = self.model.stateless_call(weights, former, image, training=is_training)
            outputs = tf.nest.flatten(outputs)
        raw = [output.numpy().astype(np.float32) for output in outputs]  # what every run's loss is given
        found = self.family.loss(raw, labels, tuple(image.shape[1:3]), before.values.step + 1)
        upstream = [tf.cast(one, output.dtype) for one, output in zip(found.gradients, outputs, strict=True)]
        gradients = tape.gradient(outputs, weights, upstream, unconnected_gradients="zero")
        # Views of what the tensors hold: a copy of every gradient is large.
        return [np.asarray(one) for one in gradients], [np.asarray(one, float) for one in moved], found.value

    def mistakes(self, before: Before, batch: Any) -> dict[str, Callable[[], Values]]:
        """What a step would leave with a known mistake, by cause; computed once, where something asks for it."""
        classes, count = len(self.own.experiment.task.data.classes), self.trainer.micro_batches

        def made(**changed: Any) -> Callable[[], Values]:
            return functools.cache(lambda: self.step(before, batch, **changed))

        def labelled(change: Callable[[Any], Any]) -> Callable[[], Values]:
            return made(prepared=lambda images, labels: (images, labels._replace(classes=change(labels.classes))))

        values = before.values
        zeros = {name: [0 * one for one in slot] for name, slot in values.slots.items()}
        forgotten = before._replace(values=values._replace(slots=zeros))
        found = {
            **{
                cause: made(prepared=lambda images, labels, change=change: (change(images), labels))
                for cause, change in self.family.pixel_mistakes().items()
            },
            "batch_norm_training_mode": made(is_training=False),
            "class_ids_shifted": labelled(lambda ids: (ids + 1) % classes),
            "class_ids_permuted": labelled(lambda ids: classes - 1 - ids),
            "class_ids_permuted by name": labelled(lambda ids: self.by_name[ids]),
            "resume_state": functools.cache(lambda: self.step(forgotten, batch)),
            "learning_rate_scale 2": functools.cache(lambda: self._moved_further(before, batch, 2)),
        }
        if count > 1:
            found["loss_scale"] = made(factor=count)
            found["statistics_of_one_part"] = made(in_turn=False)
        if values.average:
            right = functools.cache(lambda: self.step(before, batch))
            found["moving_average_missing"] = lambda: right()._replace(average=values.average)
            found["moving_average_missing the values"] = lambda: right()._replace(average=_followed(right()))
            found["moving_average_decay exchanged"] = lambda: right()._replace(
                average=exchanged(values.average, _followed(right()), right().average)
            )
        return found

    def _moved_further(self, before: Before, batch: Any, factor: float) -> Values:
        right = self.step(before, batch)
        pairs = zip(before.values.weights, right.weights, strict=True)
        return right._replace(weights=[old + factor * (new - old) for old, new in pairs])


def _followed(values: Values) -> list[Array]:
    """What the average follows."""
    return [*values.weights, *values.statistics]
