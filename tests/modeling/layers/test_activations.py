"""Activations: Darknet's values, finite everywhere, and computable behind what TensorFlow fuses them with."""

import numpy as np
import pytest
import tensorflow as tf

from modeling.layers.activations import ACTIVATIONS, Activation
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution


def value_and_gradient(name, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Activation(name)(x)
    return np.asarray(y), np.asarray(tape.gradient(y, x))


def recorded(golden):
    trace = np.load(golden("misc/activations.npz"))
    return trace, [name for name in ACTIVATIONS if name in trace]


def test_values_are_darknets(golden):
    trace, names = recorded(golden)
    assert len(names) == 15
    for name in names:
        values, _ = value_and_gradient(name, trace["x"])
        assert np.abs(values - trace[name]).max() < 1e-6 * np.abs(trace[name]).max(), name


def test_gradients_are_darknets_at_the_output(golden):
    """Recorded is the derivative by the output y. At a y that is some x's output, ours at that x must be the same."""
    trace, names = recorded(golden)
    dense = np.linspace(-8, 8, 320_001, dtype=np.float32)
    for name in names:
        outputs, gradients = value_and_gradient(name, dense)
        compared = 0
        for y, expected in zip(trace["x"], trace[f"grad_of_output_{name}"], strict=True):
            nearest = np.abs(outputs - y).argmin()
            if outputs[nearest] == y:
                assert abs(gradients[nearest] - expected) < 1e-5 * max(1, abs(expected)), (name, y)
                compared += 1
        assert compared >= 1, name


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_far_out_is_finite(name):
    far = np.float32([[-1e4, -100.0, -20.0, 0.0], [1e-3, 20.0, 50.0, 80.0]])
    values, gradients = value_and_gradient(name, far)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


@pytest.mark.parametrize("name", ["mish", "swish", "leaky", "logistic", "relu"])
def test_very_far_out_is_the_limit(name):
    values, gradients = value_and_gradient(name, np.float32([-1e30, 1e30]))
    limits = {"leaky": ([-1e29, 1e30], [0.1, 1]), "logistic": ([0, 1], [0, 0])}
    expected_values, expected_gradients = limits.get(name, ([0, 1e30], [0, 1]))
    np.testing.assert_allclose(values, np.float32(expected_values))
    np.testing.assert_allclose(gradients, expected_gradients)


def test_mish_is_its_definition_and_its_gradient_the_derivative():
    x = np.linspace(-30, 30, 1201)
    soft = np.log1p(np.exp(x))
    expected = x * np.tanh(soft)
    derivative = np.tanh(soft) + x * (1 - np.tanh(soft) ** 2) / (1 + np.exp(-x))
    values, gradients = value_and_gradient("mish", np.float32(x))
    np.testing.assert_allclose(values, expected, atol=2e-6)
    np.testing.assert_allclose(gradients, derivative, atol=2e-6)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_evaluates_in_a_graph_after_convolution_and_norm(name):
    """TensorFlow fuses convolution, batch-norm and mish or tanh into an operation that does not exist."""
    layers = [Convolution(8, 3, bias=None, seed=0), BatchNorm(0.99), Activation(name)]

    def evaluate(x):
        for layer in layers:
            x = layer(x, training=False) if isinstance(layer, BatchNorm) else layer(x)
        return x

    x = tf.random.stateless_normal((1, 6, 9, 4), seed=(1, 2))
    expected = evaluate(x)
    np.testing.assert_allclose(tf.function(evaluate, autograph=False)(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_bfloat16_stays_bfloat16(name):
    x = tf.cast(tf.linspace(-6.0, 6.0, 64)[tf.newaxis], tf.bfloat16)
    y = Activation(name, dtype="bfloat16")(x)
    assert y.dtype == tf.bfloat16
    expected = Activation(name)(tf.cast(x, tf.float32))
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, atol=0.1 if name == "stair" else 0.06)


def test_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="no activation 'leeky'"):
        Activation("leeky")
