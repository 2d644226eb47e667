"""Optimisers against independent float64 NumPy, and SGD against Darknet's recorded updates."""

import itertools
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import Adam, AdamW, Sgd
from official.optimization.optimizers import apply_gradients, slot_names


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


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_darknets_order_of_operations_in_float64(problem, momentum):
    """Written in Darknet's own form: sums of gradients, decay times batch, momentum multiplied in after the step."""
    weights, steps = problem
    batch, rate, decay = 4, 0.1, 0.01
    values, buffers = [weight.copy() for weight in weights], [np.zeros_like(weight) for weight in weights]
    for gradients in steps:
        for index, gradient in enumerate(gradients):
            buffers[index] += -gradient * batch
            if index == 0:
                buffers[index] += -decay * batch * values[index]
            values[index] = values[index] + rate / batch * buffers[index]
            buffers[index] = buffers[index] * momentum
    ours = run(Sgd(momentum=momentum, weight_decay=decay), weights, steps, [True, False], rate)[-1]
    for mine, theirs in zip(ours, values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_adam_is_darknets_order_of_operations_in_float64(problem):
    """Written in Darknet's own form: sums of gradients, decay of all weights, epsilon beside the root of that sum."""
    weights, steps = problem
    batch, b1, b2, eps, decay, rate = 4, 0.8, 0.95, 1e-2, 0.1, 0.1
    values = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for number, gradients in enumerate(steps, start=1):
        for index, gradient in enumerate(gradients):
            updates = -gradient * batch - decay * batch * values[index]
            first[index] = b1 * first[index] + (1 - b1) * updates
            second[index] = b2 * second[index] + (1 - b2) * updates**2
            mean, square = first[index] / (1 - b1**number), second[index] / (1 - b2**number)
            values[index] = values[index] + rate * mean / (np.sqrt(square) + eps)
    config = Adam(beta1=b1, beta2=b2, epsilon=eps / batch, weight_decay=decay)
    ours = run(config, weights, steps, [True, False], rate)[-1]
    for mine, theirs in zip(ours, values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def pytorchs_adam(weights, steps, b1, b2, eps, rate) -> list[list[np.ndarray]]:
    """In PyTorch's own order: moments, the rate corrected for the first, the root of the second, then epsilon."""
    values = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    history = []
    for number, gradients in enumerate(steps, start=1):
        for index, gradient in enumerate(gradients):
            first[index] += (gradient - first[index]) * (1 - b1)
            second[index] = second[index] * b2 + (1 - b2) * gradient * gradient
            denominator = np.sqrt(second[index]) / math.sqrt(1 - b2**number) + eps
            values[index] = values[index] - rate / (1 - b1**number) * (first[index] / denominator)
        history.append([value.copy() for value in values])
    return history


@pytest.mark.parametrize(("dtype", "bound"), [(tf.float64, 1e-12), (tf.float32, 1e-6)])
def test_adam_without_decay_is_pytorchs(problem, dtype, bound):
    """Gradients from far above epsilon to far below, where its place matters; bound in lengths of a step."""
    weights, steps = problem
    sizes = [10.0 ** np.arange(-12, -6).reshape(3, 2), 10.0 ** np.arange(-9, 1, 2)]
    steps = [[gradient * size for gradient, size in zip(gradients, sizes, strict=True)] for gradients in steps]
    b1, b2, eps, rate = 0.9, 0.999, 1e-8, 1.25e-4
    zeros = [np.zeros_like(weight) for weight in weights]  # so that a step keeps its digits in float32
    expected = pytorchs_adam(zeros, steps, b1, b2, eps, rate)
    ours = run(Adam(beta1=b1, beta2=b2, epsilon=eps, weight_decay=0), zeros, steps, [True, False], rate, dtype)
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


def test_adamw_equals_the_paper_in_float64(problem):
    weights, steps = problem
    b1, b2, eps, decay, rate = 0.8, 0.95, 1e-3, 0.1, 0.1
    values = [weight.copy() for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for number, gradients in enumerate(steps, start=1):
        for index, gradient in enumerate(gradients):
            first[index] = b1 * first[index] + (1 - b1) * gradient
            second[index] = b2 * second[index] + (1 - b2) * gradient**2
            change = first[index] / (1 - b1**number) / (np.sqrt(second[index] / (1 - b2**number)) + eps)
            values[index] = values[index] - rate * (change + (decay * values[index] if index == 0 else 0))
    config = AdamW(beta1=b1, beta2=b2, epsilon=eps, weight_decay=decay)
    ours = run(config, weights, steps, [True, False], rate)[-1]
    for mine, theirs in zip(ours, values, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


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
