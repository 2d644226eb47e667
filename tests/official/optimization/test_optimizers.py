"""Optimisers against independent float64 NumPy, and SGD against Darknet's recorded updates."""

import re

import numpy as np
import pytest
import tensorflow as tf

from official.core.config import AdamW, MovingAverage, Sgd
from official.optimization.moving_average import update_average
from official.optimization.optimizers import apply_gradients, slot_names


def run(config, weights, gradients_of_steps, decayed, rate=0.1) -> list[list[np.ndarray]]:
    """Weights after each step."""
    values = [tf.constant(weight, tf.float32) for weight in weights]
    slots = {name: [tf.zeros_like(value) for value in values] for name in slot_names(config)}
    history = []
    for number, gradients in enumerate(gradients_of_steps, start=1):
        gradients = [tf.constant(gradient, tf.float32) for gradient in gradients]
        step = tf.constant(number, tf.int64)
        values, slots = apply_gradients(config, values, gradients, slots, decayed, tf.constant(rate), step)
        history.append([value.numpy() for value in values])
    return history


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
            decays, tf.constant(rate, tf.float32), tf.constant(number + 1, tf.int64),
        )  # fmt: skip
        after = recorded[f"it{number}/after/{parameter}"]
        np.testing.assert_allclose(update.weights[0], after, rtol=0, atol=1e-6 * np.abs(after).max(), err_msg=key)
        checked += 1
    assert checked == 6 * 11


def test_moving_average_warms_up_then_keeps_its_decay():
    values = [tf.constant([2.0])]
    average = [tf.constant([0.0])]
    at = lambda step, warm: update_average(  # noqa: E731
        MovingAverage(decay=0.99, warm_up=warm), average, values, tf.constant(step, tf.int64)
    )[0].numpy()[0]
    assert at(1, True) == pytest.approx(2 * (1 - 2 / 11))
    assert at(10**6, True) == pytest.approx(2 * 0.01, rel=1e-4)
    assert at(1, False) == pytest.approx(2 * 0.01, rel=1e-4)
