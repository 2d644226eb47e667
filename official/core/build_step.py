"""From a configuration to the compiled step's parts: the step itself, and the state that it begins with."""

from collections.abc import Callable

import keras
import tensorflow as tf

from official.core import layer_rules
from official.core.config import Duration, Trainer
from official.core.step import State, TrainStep
from official.core.task import Objective
from official.optimization import moving_average, optimizers, schedules, warm_up


def build_step(
    task: Objective, model: keras.Model, config: Trainer, to_steps: Callable[[Duration], int], seed: int
) -> TrainStep:
    """The step of a training with this configuration.

    Args:
        task: what the step asks of a detector family.
        model: the network, whose frozen layers do not train.
        config: of the trainer.
        to_steps: turns a duration of the config into steps.
        seed: of the run; only a random schedule uses it.

    Raises:
        ConfigError: a rule of single layers matches none.
    """
    return TrainStep(
        task,
        model,
        config,
        schedules.build_schedule(config.schedule, to_steps(config.duration), to_steps, seed),
        layer_rules.weight_rules(model, config.layers, to_steps),
        moving_average.build_average(config.moving_average, to_steps),
        warm_up.build_warm_up(config.optimizer, to_steps),
    )


def initial_state(model: keras.Model, config: Trainer) -> State:
    """The model's values as they are, before any step: slots are zeros, the average is what it follows."""
    weights = [tf.convert_to_tensor(variable.value) for variable in model.trainable_variables]
    statistics = [tf.convert_to_tensor(variable.value) for variable in model.non_trainable_variables]
    slots = {name: [tf.zeros_like(weight) for weight in weights] for name in optimizers.slot_names(config.optimizer)}
    average = [*weights, *statistics] if config.moving_average else []
    return State(tf.constant(0, tf.int64), weights, statistics, slots, average)
