"""Optimisers against the restated ones in float64 NumPy, and SGD against Darknet's recorded updates."""

import itertools
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Adam, AdamW, Sgd
from official.optimization.optimizers import apply_gradients, slot_names
from reproduction.restated import optimisers


def run(config, weights, gradients_of_steps, decayed, rate=0.1, dtype=tf.float32) -> list[list[np.ndarray]]:
    """Weights after each step."""
    values = [tf.constant(weight, dtype) for weight in weights]
    slots = {name: [tf.zeros_like(value) for value in values] for name in slot_names(config)}
    history = []
    for number, gradients in enumerate(gradients_of_steps, start=1):
        gradients = [tf.constant(gradient, dtype) for gradient in gradients]
        step = tf.constant(number, tf.int64)
        values, slots = apply_gradients(
            config, values, gradients, slots, decayed, [tf.constant(rate, dtype)] * len(values), step
        )
        history.append([value.numpy() for value in values])
    return history


def in_steps(duration) -> int:
    return duration.in_steps(8, 80)


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=[3, 2]), rng.normal(size=[5])]
    return weights, [[rng.normal(size=weight.shape) for weight in weights] for _ in range(7)]


CONFIGS = {
    "sgd": Sgd(weight_decay=0.01),
    "no momentum": Sgd(momentum=0.0, weight_decay=0.01),
    "nesterov": Sgd(nesterov=True, weight_decay=0.01),
    "adam": Adam(beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1),
    "adamw": AdamW(beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.1),
}


def restated(config, weights, gradients_of_steps, decayed, rate=0.1) -> list[list[np.ndarray]]:
    """Weights after each step by the originals' loops, which tests/reproduction/restated hold against the originals."""
    slots, history = optimisers.slots_at_start(config, weights), []
    for step, gradients in enumerate(gradients_of_steps, start=1):
        rates = [rate] * len(weights)
        weights, slots = optimisers.update(config, weights, gradients, slots, decayed, rates, step)
        history.append(weights)
    return history


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("dtype", "bound"), [(tf.float64, 1e-12), (tf.float32, 1e-5)])
def test_every_optimiser_is_the_restated_one(problem, name, dtype, bound):
    config, (weights, steps) = CONFIGS[name], problem
    ours, expected = run(config, weights, steps, [True, False], dtype=dtype), restated(config, *problem, [True, False])
    for mine, theirs in zip(itertools.chain(*ours), itertools.chain(*expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=bound, atol=bound)


@pytest.mark.parametrize(("dtype", "bound"), [(tf.float64, 1e-12), (tf.float32, 1e-6)])
def test_adam_without_decay_is_pytorchs(problem, dtype, bound):
    """Gradients from far above epsilon to far below, where its place matters; bound in lengths of a step."""
    weights, steps = problem
    sizes = [10.0 ** np.arange(-12, -6).reshape(3, 2), 10.0 ** np.arange(-9, 1, 2)]
    steps = [[gradient * size for gradient, size in zip(gradients, sizes, strict=True)] for gradients in steps]
    b1, b2, eps, rate = 0.9, 0.999, 1e-8, 1.25e-4
    zeros = [np.zeros_like(weight) for weight in weights]  # so that a step keeps its digits in float32
    config = Adam(beta1=b1, beta2=b2, epsilon=eps, weight_decay=0)
    expected = restated(config, zeros, steps, [True, False], rate)
    ours = run(config, zeros, steps, [True, False], rate, dtype)
    for mine, theirs in zip(itertools.chain(*ours), itertools.chain(*expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=bound * rate)
    keras = zeros[0] - rate * steps[0][0] * 0.1 / 0.1 / (np.abs(steps[0][0]) + eps / math.sqrt(1 - b2))
    assert np.abs(keras - expected[0][0]).max() > 0.1 * rate  # what this would not let pass


def test_adam_without_memory_goes_by_the_sign(problem):
    weights, steps = problem
    one = run(Adam(beta1=0, beta2=0, epsilon=1e-8, weight_decay=0), weights, steps[:1], [True, False], 0.1)[0]
    for mine, weight, gradient in zip(one, weights, steps[0], strict=True):
        np.testing.assert_allclose(mine, weight - 0.1 * np.sign(gradient), atol=1e-6)


def test_each_weight_has_a_rate_of_its_own(problem):
    weights, steps = problem
    values = [tf.constant(weight, tf.float32) for weight in weights]
    slots = {"momentum": [tf.zeros_like(value) for value in values]}
    gradients, rates = [tf.constant(g, tf.float32) for g in steps[0]], [tf.constant(0.1), tf.constant(0.0)]
    update = apply_gradients(Sgd(), values, gradients, slots, [True, False], rates, tf.constant(1, tf.int64))
    both = apply_gradients(Sgd(), values, gradients, slots, [True, False], rates[:1] * 2, tf.constant(1, tf.int64))
    np.testing.assert_array_equal(update.weights[0], both.weights[0])
    np.testing.assert_array_equal(update.weights[1], values[1])
    for mine, other in zip(update.slots["momentum"], both.slots["momentum"], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("trace", ["sgd_v4tiny_cudnn_emulated", "sgd_v3_cudnn_emulated"])
def test_sgd_equals_darknets_recorded_updates(golden, trace):
    """Each step from the recorded state: its buffer before the update is -(momentum * v + sum of gradients)."""
    recorded = np.load(golden(f"optim/{trace}.npz"))
    decay = float(re.search(r"decay=(\S+)", str(recorded["meta/cfg"]))[1])
    batch, checked = 4, 0
    for key in [key for key in recorded.files if "/before_update/" in key]:
        number, name = int(key[2]), key.rsplit("/", 1)[1]
        parameter = (
            name.replace("weight_updates", "weights").replace("bias_updates", "biases").replace("scale_u", "scales_u")
        )
        parameter = parameter.removesuffix("_updates")
        rate = recorded[f"it{number}/lr"] * (0.5 if name.startswith("L002") else 1)  # that layer's own learning_rate
        before = recorded[f"it{number - 1}/after/{parameter}"] if number else recorded[f"init/{parameter}"]
        total = -recorded[key] / batch  # momentum * v + mean gradient
        decays = [parameter.endswith("_weights")]
        update = apply_gradients(
            Sgd(weight_decay=decay), [tf.constant(before)], [tf.constant(total)], {"momentum": [tf.zeros_like(before)]},
            decays, [tf.constant(rate, tf.float32)], tf.constant(number + 1, tf.int64),
        )  # fmt: skip
        after = recorded[f"it{number}/after/{parameter}"]
        np.testing.assert_allclose(update.weights[0], after, rtol=0, atol=1e-6 * np.abs(after).max(), err_msg=key)
        checked += 1
    assert checked == 6 * 11
