"""Gradients of convolutions with groups and gaps, where TensorFlow has them and where it does not (no oneDNN)."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from modeling.layers import convolution_ops
from modeling.layers.convolution_ops import convolve

CASES = [  # groups, size, stride, padding, dilation
    (2, 3, (1, 1), "SAME", 1),
    (2, 3, (2, 1), "VALID", 1),
    (1, 3, (1, 1), "SAME", 2),
    (1, 3, (2, 2), "VALID", 3),
    (2, 2, (1, 2), "VALID", 2),
    (4, 3, (1, 1), "SAME", 2),
]


@pytest.mark.parametrize(("groups", "size", "stride", "padding", "dilation"), CASES)
def test_gradient_without_onednn(monkeypatch, groups, size, stride, padding, dilation):
    """On a CPU without AVX-512, training a cfg with groups= or dilation= ended with an InvalidArgumentError."""
    monkeypatch.setattr(convolution_ops, "_cpu_has_gradients", lambda: False)
    random = np.random.default_rng(0)
    inputs, other_inputs = random.normal(size=(2, 2, 8, 9, 4))
    kernel, other_kernel = random.normal(size=(2, size, size, 4 // groups, 4))
    run = functools.partial(convolve, stride=stride, padding=padding, dilation=dilation)
    inputs, kernel = tf.constant(inputs), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel])
        outputs = run(inputs, kernel)
    upstream = random.normal(size=outputs.shape)
    of_inputs, of_kernel = tape.gradient(outputs, [inputs, kernel], upstream)
    # Linear in both: a step of any size changes <upstream, outputs> by <gradient, step>.
    for gradient, step, change in (
        (of_inputs, other_inputs, run(tf.constant(other_inputs), kernel)),
        (of_kernel, other_kernel, run(inputs, tf.constant(other_kernel))),
    ):
        np.testing.assert_allclose(np.sum(gradient * step), np.sum(upstream * change), rtol=1e-9)


def test_forward_is_one_operation_either_way(monkeypatch):
    """What is exported does not depend on the processor of the machine that exports."""
    monkeypatch.setattr(convolution_ops, "_cpu_has_gradients", lambda: False)
    function = tf.function(lambda x, k: convolve(x, k, (1, 1), "SAME", 1), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec([2, 8, 9, 4]), tf.TensorSpec([3, 3, 2, 4])).graph
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("Conv2D") == 1 and "Split" not in operations
