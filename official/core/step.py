"""One training step as a pure function: (state, batch) -> (state, metrics). The trainer holds the variables."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from jaxtyping import Bool, Int64, Shaped

from official.core.config import Trainer
from official.core.layer_rules import WeightRule
from official.core.task import Batch, Moment, Objective, Scalars
from official.optimization.moving_average import Average
from official.optimization.optimizers import apply_gradients
from official.optimization.schedules import LearningRate
from official.optimization.warm_up import WarmUp

Tensors = list[Shaped[tf.Tensor, "..."]]  # values of variables, whatever their type


class State(NamedTuple):
    """All that a run remembers between two steps. Weights and slots are float32; lists follow the model's variables."""

    step: Int64[tf.Tensor, ""]  # updates done. With the seed it is also the position in the data.
    weights: Tensors  # trainable
    statistics: Tensors  # not trainable: batch-norm's moving statistics, and frozen layers
    slots: dict[str, Tensors]  # of the optimiser, per trainable weight
    average: Tensors  # what is evaluated in place of weights + statistics; empty when the run keeps no moving average


class Metrics(NamedTuple):
    scalars: Scalars  # float32, equal on all replicas
    finite: dict[str, Bool[tf.Tensor, ""]]  # in order of computation: the first False is where it went wrong


class Gradients(NamedTuple):
    """Of one batch or micro-batch: mean over its examples."""

    gradients: Tensors
    statistics: Tensors
    scalars: Scalars
    finite: dict[str, Bool[tf.Tensor, ""]]


@dataclass(frozen=True)
class TrainStep:
    """Forward, loss, backward, reduction over replicas, clip, update, moving average."""

    task: Objective
    model: keras.Model
    config: Trainer
    learning_rate: LearningRate
    rules: tuple[WeightRule, ...]  # of the model's trainable weights
    average: Average
    warm_up: WarmUp

    def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """Runs in replica context on this replica's share of the batch (first dimension of every tensor)."""
        step = state.step + 1
        part = self._micro_batches(state, batch) if self.config.micro_batches > 1 else self._differentiate(state, batch)
        context = tf.distribute.get_replica_context()
        # Every replica has as many examples, so the mean of their means is the mean.
        local = (part.gradients, part.statistics, part.scalars)
        gradients, statistics, scalars = context.all_reduce(tf.distribute.ReduceOp.MEAN, local)

        waiting = zip(self.rules, gradients, strict=True)
        gradients = [tf.where(step > rule.no_gradient, x, 0.0) if rule.no_gradient else x for rule, x in waiting]
        gradients, norm, finite_gradients = self._clip(gradients)
        rate, bias_rate, momentum = self.warm_up(step, self.learning_rate(step))
        decayed = [rule.decays for rule in self.rules]
        rates = [rule.learning_rate * (bias_rate if rule.is_bias else rate) for rule in self.rules]
        former = (state.weights, gradients, state.slots)
        update = apply_gradients(self.config.optimizer, *former, decayed, rates, step, momentum)
        averaged = self.average(state.average, update.weights, statistics, step)

        new_state = State(step, averaged.weights, statistics, update.slots, averaged.average)
        scalars = scalars | {"learning_rate": rate, "gradient_norm": norm}
        finite = self._agree(context, part.finite) | finite_gradients
        finite["batch-norm's moving statistics"] = tf.reduce_all([_is_finite(value) for value in statistics])
        finite["weights after the update"] = tf.reduce_all([_is_finite(weight) for weight in update.weights])
        return new_state, Metrics({name: tf.cast(value, tf.float32) for name, value in scalars.items()}, finite)

    def _differentiate(self, state: State, batch: Batch) -> Gradients:
        images, labels = self.task.prepare(batch)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.weights)
            outputs, statistics = self.model.stateless_call(state.weights, state.statistics, images, training=True)
            outputs = tf.nest.flatten(outputs)  # Keras hands out a lone output without its list
            loss, parts = self.task.loss(outputs, labels, Moment(state.step + 1, tuple(images.shape[1:3])))
        gradients = tape.gradient(loss, state.weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        finite = {
            f"network output {name}": _is_finite(output)
            for name, output in zip(self.model.output_names, outputs, strict=True)
        }
        finite |= {f"loss part '{name}'": _is_finite(part) for name, part in parts.items()} | {"loss": _is_finite(loss)}
        return Gradients(gradients, statistics, {"loss": loss} | parts, finite)

    def _micro_batches(self, state: State, batch: Batch) -> Gradients:
        """Adds the gradients of the batch's parts. Batch-norm sees each part alone; its averages follow in turn."""
        count = self.config.micro_batches
        parts = tf.nest.map_structure(lambda x: tf.reshape(x, [count, x.shape[0] // count, *x.shape[1:]]), batch)

        def one(index: tf.Tensor, statistics: Tensors) -> Gradients:
            part = tf.nest.map_structure(lambda x: x[index], parts)
            new = self._differentiate(state._replace(statistics=statistics), part)
            gradients, scalars = tf.nest.map_structure(lambda x: x / count, (new.gradients, new.scalars))
            return Gradients(gradients, new.statistics, scalars, new.finite)

        def body(index: tf.Tensor, total: Gradients) -> tuple[tf.Tensor, Gradients]:
            new = one(index, total.statistics)
            sums = tf.nest.map_structure(tf.add, (total.gradients, total.scalars), (new.gradients, new.scalars))
            finite = {name: total.finite[name] & value for name, value in new.finite.items()}
            return index + 1, Gradients(sums[0], new.statistics, sums[1], finite)

        total = one(tf.constant(0), state.statistics)
        mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
        if isinstance(tf.distribute.get_strategy(), mirrored):  # no reduction inside their loops
            for index in range(1, count):
                with tf.control_dependencies(total.gradients):
                    _, total = body(tf.constant(index), total)
            return total
        # A loop, one part after the other: at once, the activations of all parts would be held.
        return tf.while_loop(lambda index, _: index < count, body, (tf.constant(1), total), parallel_iterations=1)[1]

    def _clip(self, gradients: Tensors) -> tuple[Tensors, tf.Tensor, dict[str, tf.Tensor]]:
        """Global norm, gradients clipped to it if asked, and which gradients are finite."""
        squares = [tf.reduce_sum(tf.square(gradient)) for gradient in gradients]
        names = [weight.path for weight in self.model.trainable_variables]
        finite = {f"gradient of {name}": tf.math.is_finite(square) for name, square in zip(names, squares, strict=True)}
        norm = tf.sqrt(tf.add_n(squares))
        if self.config.clip_global_norm is not None:
            factor = self.config.clip_global_norm / tf.maximum(norm, self.config.clip_global_norm)
            gradients = [gradient * factor for gradient in gradients]
        return gradients, norm, finite

    @staticmethod
    def _agree(context: Any, finite: dict[str, Bool[tf.Tensor, ""]]) -> dict[str, tf.Tensor]:
        """True where the quantity is finite on every replica."""
        broken = {name: tf.cast(~value, tf.float32) for name, value in finite.items()}
        return {name: count == 0 for name, count in context.all_reduce(tf.distribute.ReduceOp.SUM, broken).items()}


def _is_finite(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tensor))
