"""Seeded weights of an experiment's network."""

import keras
import numpy as np
import tensorflow as tf

from reproduction.experiment.own import Own

# Cells that the taps of a deformable convolution move, about. Where they move several cells, three such layers make of
# a rounding of 1e-7 an error of a hundredth.
OFFSET = 0.3


def seed_weights(model: keras.Model, own: Own) -> None:
    """Gives seeded kernels, and batch-norms that shift and scale what they have normalised.

    Their moving statistics are those of a seeded training batch. With others, what goes through a deep network grows
    without bound: its outputs come out as 0 or 1, and those between them are rounding alone.
    """
    config = own.experiment.task.model
    rng = np.random.default_rng(own.experiment.runtime.seed)
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if name == "kernel":
            value = rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[:-1]))), shape)
        elif name == "offset_kernel":
            value = rng.normal(0, OFFSET / np.sqrt(np.prod(shape[:-1])), shape)
        elif name == "gamma":
            value = rng.uniform(0.6, 1.4, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        if tf.as_dtype(variable.dtype).is_floating and not is_statistic(variable):
            variable.assign(value)
    family = own.family
    images, _ = own.task.prepare(family.plain(family.batch(family.labels(rng), tuple(config.input_size), rng)))
    held = [variable.value for variable in model.non_trainable_variables]
    nothing = [
        0 * one if is_statistic(variable) else one
        for variable, one in zip(model.non_trainable_variables, held, strict=True)
    ]
    _, left = model.stateless_call([one.value for one in model.trainable_variables], nothing, images, training=True)
    for variable, share in zip(model.non_trainable_variables, left, strict=True):
        if is_statistic(variable):
            variable.assign(share / (1 - config.norm_momentum))


def is_statistic(variable: keras.Variable) -> bool:
    return variable.path.rpartition("/")[2] in ("moving_mean", "moving_variance")
