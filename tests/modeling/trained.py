"""Networks that compute as trained ones do, in which no part is the identity; and a step of training."""

import numpy as np
import tensorflow as tf


def trained_like(model, seed=0):
    """Gives every variable a value that an untrained network does not have."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 2.0, variable.shape))
        elif name != "kernel":
            variable.assign(random.normal(0.0, 0.3, variable.shape))
    return model


def compiled_step(model):
    """Gradients of the mean squared outputs at 64x96, and the moved statistics; forward and backward under XLA."""
    weights = [variable.value for variable in model.trainable_variables]
    moving = [variable.value for variable in model.non_trainable_variables]

    def step(weights, moving, images):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, moved = model.stateless_call(weights, moving, images, training=True)
            loss = tf.add_n([tf.reduce_mean(tf.square(raw)) for raw in outputs])
        return tape.gradient(loss, weights), moved

    images = tf.random.stateless_uniform((2, 64, 96, 3), seed=(1, 2))
    return tf.function(step, autograph=False, jit_compile=True)(weights, moving, images)
