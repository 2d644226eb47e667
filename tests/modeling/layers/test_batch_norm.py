"""Batch-norm: statistics in float32, freezing, compilation, and statistics over replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.layers.batch_norm import BatchNorm
from modeling.layers.blocks import conv_block
from modeling.layers.style import Style

SHAPE = (4, 5, 7, 6)


def values(shift=0.0, seed=1):
    return np.random.default_rng(seed).normal(shift, 1.5, SHAPE).astype(np.float32)


def expected(x, epsilon=1e-5):
    """Normalised values, mean and unbiased variance in float64."""
    x = x.astype(np.float64)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + epsilon), mean, x.var((0, 1, 2), ddof=1)


def test_training_normalises_by_the_biased_and_remembers_the_unbiased_variance():
    x = values()
    norm = BatchNorm(momentum=0.75)
    outputs = norm(x, training=True)
    normalised, mean, unbiased = expected(x)
    np.testing.assert_allclose(outputs, normalised, atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean, 0.25 * mean, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.75 + 0.25 * unbiased, rtol=1e-5)


def test_float64_has_the_digits_of_float64():
    x = values(shift=3.0).astype(np.float64)
    norm = BatchNorm(momentum=0.75, dtype="float64")
    outputs = norm(x, training=True)
    normalised, mean, unbiased = expected(x)
    np.testing.assert_allclose(outputs, normalised, atol=1e-13)
    np.testing.assert_allclose(norm.moving_mean, 0.25 * mean, atol=1e-14)
    np.testing.assert_allclose(norm.moving_variance, 0.75 + 0.25 * unbiased, rtol=1e-14)
    evaluated = norm(x, training=False)
    by_moving = (x - norm.moving_mean) / np.sqrt(np.asarray(norm.moving_variance) + 1e-5)
    np.testing.assert_allclose(evaluated, by_moving, atol=1e-13)


def test_epsilon_is_exactly_darknets_for_tiny_variances():
    """A variance of 1e-6 tells 1e-5 from the 1.001e-5 that `tf.nn.fused_batch_norm` substitutes."""
    norm = BatchNorm(momentum=0.99)
    norm.build(SHAPE)
    norm.moving_variance.assign(np.full(SHAPE[-1], 1e-6))
    np.testing.assert_allclose(norm(np.ones(SHAPE, np.float32)), np.full(SHAPE, 1 / np.sqrt(1.1e-5)), rtol=1e-5)


def test_frozen_layer_evaluates_and_keeps_its_statistics():
    norm = BatchNorm(momentum=0.9)
    norm.build(SHAPE)
    norm.trainable = False
    x = values(shift=3.0)
    np.testing.assert_allclose(norm(x, training=True), norm(x, training=False))
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(SHAPE[-1]))


def test_bfloat16_keeps_statistics_and_parameters_in_float32():
    norm = BatchNorm(momentum=0.0, dtype="mixed_bfloat16")
    x = tf.cast(values(shift=2.0), tf.bfloat16)
    outputs = norm(x, training=True)
    normalised, mean, unbiased = expected(np.asarray(tf.cast(x, tf.float32)))
    assert outputs.dtype == tf.bfloat16
    assert {variable.dtype for variable in norm.variables} == {"float32"}
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-4)  # bfloat16 itself has 4e-3
    np.testing.assert_allclose(norm.moving_variance, unbiased, rtol=1e-4)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), normalised, atol=3e-2)


def test_nan_in_one_channel_stays_there():
    x = values()
    x[0, 0, 0, 2] = np.nan
    outputs = BatchNorm(momentum=0.99)(x, training=True).numpy()
    assert np.isnan(outputs[..., 2]).all()
    assert np.isfinite(np.delete(outputs, 2, axis=-1)).all()


def forward_and_gradients(norm, weights, moving, x, upstream):
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        outputs, moved = norm.stateless_call(weights, moving, x, training=True)
    return outputs, moved, tape.gradient(outputs, [x, *weights], output_gradients=upstream)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_sync_over_two_replicas_equals_one_device_on_the_whole_batch(two_replicas, dtype, shift):
    x, upstream = values(shift), values(seed=2)
    compute = "float32" if dtype == "float32" else "bfloat16"
    x, upstream = (tf.cast(part, compute) for part in (x, upstream))
    weights = [tf.constant([0.5, 1.0, 1.5, 2.0, -1.0, 0.1]), tf.constant([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])]
    moving = [tf.constant(np.full(SHAPE[-1], shift * 0.9, np.float32)), tf.ones(SHAPE[-1])]
    norm = BatchNorm(momentum=0.9, sync=True, dtype=dtype)
    norm.build(SHAPE)
    whole, whole_moved, whole_gradients = forward_and_gradients(norm, weights, moving, x, upstream)

    def replica():
        context = tf.distribute.get_replica_context()
        rows = 2 * context.replica_id_in_sync_group + tf.range(2)
        return forward_and_gradients(norm, weights, moving, tf.gather(x, rows), tf.gather(upstream, rows))

    results = tf.function(lambda: two_replicas.run(replica), autograph=False)()
    outputs, moved, gradients = tf.nest.map_structure(two_replicas.experimental_local_results, results)
    atol = 2e-5 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(tf.concat(outputs, 0), whole, atol=atol)
    np.testing.assert_allclose(tf.concat(gradients[0], 0), whole_gradients[0], atol=atol)
    for split, total in zip(gradients[1:], whole_gradients[1:], strict=True):
        np.testing.assert_allclose(sum(split), total, rtol=1e-4 if dtype == "float32" else 1e-1, atol=10 * atol)
    for split, total in zip(moved, whole_moved, strict=True):
        np.testing.assert_array_equal(split[0], split[1])  # replicas agree without merging
        np.testing.assert_allclose(split[0], total, rtol=1e-5, atol=1e-5)


def test_local_statistics_differ_between_replicas(two_replicas):
    norm = BatchNorm(momentum=0.0)
    norm.build(SHAPE)
    x = tf.constant(values())
    weights, moving = [tf.ones(6), tf.zeros(6)], [tf.zeros(6), tf.ones(6)]

    def replica():
        rows = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group + tf.range(2)
        return norm.stateless_call(weights, moving, tf.gather(x, rows), training=True)[1][0]

    means = two_replicas.experimental_local_results(tf.function(lambda: two_replicas.run(replica), autograph=False)())
    for mean, part in zip(means, (x[:2], x[2:]), strict=True):
        np.testing.assert_allclose(mean, tf.reduce_mean(part, [0, 1, 2]), atol=1e-6)


@pytest.mark.parametrize("sync", [False, True])
def test_conv_stack_compiles_with_the_same_statistics_and_gradients(sync):
    style = Style("leaky", "sync" if sync else "local", 1e-5, 0.9, "uniform", seed=3)
    inputs = keras.Input((10, 14, 6))
    x = conv_block(inputs, 8, 3, stride=2, name="one", style=style)
    model = keras.Model(inputs, conv_block(x, 8, 3, name="two", style=style))
    batch = tf.random.stateless_normal((2, 10, 14, 6), seed=(1, 2))
    weights = [v.value for v in model.trainable_variables]
    moving = [v.value for v in model.non_trainable_variables]

    def step(batch, weights, moving):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs, moved = model.stateless_call(weights, moving, batch, training=True)
            loss = tf.reduce_sum(tf.square(outputs) * outputs)
        return outputs, moved, tape.gradient(loss, weights)

    plain = tf.function(step, autograph=False)(batch, weights, moving)
    compiled = tf.function(step, autograph=False, jit_compile=True)(batch, weights, moving)
    for one, two in zip(tf.nest.flatten(plain), tf.nest.flatten(compiled), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4 * max(1.0, float(tf.reduce_max(tf.abs(one)))))
