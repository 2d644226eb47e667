"""Deformable convolution against the original's operator (restated in torch for the trace; see its README)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.layers.deformable import DeformableConvolution, deformable_convolution
from reproduction.centernet.deformable import compare_operator, operands, output_and_gradients
from reproduction.centernet.losses import maps
from reproduction.traces.case import Case
from reproduction.traces.trace import read_trace


def test_operator_and_gradients_as_recorded(as_recorded):
    as_recorded("centernet_dcn", "dcnv2_op_emulated")


def test_operator_and_gradients_as_recorded_under_xla(golden_centernet):
    case = Case(golden_centernet("dcnv2_op_emulated.npz"))
    compiled = tf.function(output_and_gradients, autograph=False, jit_compile=True)
    rows = compare_operator(case, *compiled(operands(case.trace), maps(case.trace, "upstream")))
    assert [row.note for row in rows if row.outcome != "pass"] == []


def test_order_of_offsets_and_masks(golden_centernet):
    """A bias alone makes them: the same (dy, dx) of each tap, and mask, everywhere."""
    trace = read_trace(golden_centernet("dcnv2_op_emulated.npz"))
    inputs, _, _, kernel, _ = operands(trace)
    rng = np.random.default_rng(0)
    layer = DeformableConvolution(4, seed=0)
    layer.build(inputs.shape)
    layer.kernel.assign(kernel)
    layer.bias.assign(trace["bias"])
    moves = rng.normal(0, 0.7, 27).astype(np.float32)
    layer.offset_bias.assign(moves)
    shape = (*inputs.shape[:3], 9)
    same = tf.broadcast_to(tf.reshape(moves[:18], [9, 2]), [*shape, 2])
    expected = deformable_convolution(inputs, same, tf.broadcast_to(tf.sigmoid(moves[18:]), shape), kernel)
    np.testing.assert_allclose(layer(inputs), expected + trace["bias"], atol=1e-5)


@pytest.mark.parametrize(("size", "shape"), [(3, (2, 5, 8, 3)), (1, (1, 4, 3, 2)), (5, (1, 6, 7, 2))])
def test_without_offsets_it_is_a_convolution(size, shape):
    inputs = tf.random.stateless_normal(shape, [0, 1])
    kernel = tf.random.stateless_normal([size, size, shape[3], 4], [0, 2])
    taps = [*shape[:3], size * size]
    outputs = deformable_convolution(inputs, tf.zeros([*taps, 2]), tf.ones(taps), kernel)
    np.testing.assert_allclose(outputs, tf.nn.conv2d(inputs, kernel, 1, "SAME"), atol=1e-5)


def test_untrained_layer_is_half_a_convolution():
    inputs = tf.random.stateless_normal([2, 5, 8, 3], [0, 1])
    layer = DeformableConvolution(4, seed=1)
    outputs = layer(inputs)
    assert outputs.shape == layer.compute_output_shape(inputs.shape)
    np.testing.assert_allclose(outputs, tf.nn.conv2d(inputs, layer.kernel, 1, "SAME") / 2, atol=1e-5)
    limit = 1 / np.sqrt(3 * 3 * 3)
    assert 0.8 * limit < np.abs(layer.kernel).max() <= limit


@pytest.mark.parametrize("away", [-1e9, -2.0, 100.0, 3e38, np.inf])
def test_positions_outside_read_nothing_and_have_no_gradient(away):
    inputs, kernel = tf.ones([1, 4, 5, 2]), tf.ones([3, 3, 2, 2])
    offsets, mask = tf.fill([1, 4, 5, 9, 2], np.float32(away)), tf.ones([1, 4, 5, 9])
    with tf.GradientTape() as tape:
        tape.watch((inputs, offsets, mask, kernel))
        outputs = deformable_convolution(inputs, offsets, mask, kernel)
    inside = 0 if away != -2.0 else 12  # positions with a tap still on the map: 2 above and left of at least (1, 1)
    assert np.count_nonzero(outputs[..., 0]) == inside
    gradients = tape.gradient(outputs, (inputs, offsets, mask, kernel))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if not inside:
        assert not any(np.any(gradient) for gradient in gradients)


def test_wrong_number_of_taps_is_an_error():
    with pytest.raises(ValueError, match="a 3 x 3 kernel and offsets for 8 taps"):
        deformable_convolution(
            tf.ones([1, 4, 5, 2]), tf.zeros([1, 4, 5, 8, 2]), tf.ones([1, 4, 5, 8]), tf.ones([3, 3, 2, 2])
        )
    with pytest.raises(ValueError, match="size must be odd"):
        DeformableConvolution(4, 2, seed=0)


def test_bfloat16_keeps_positions():
    """Far right on a wide map, where bfloat16 counts in twos: the offset still moves by half a cell."""
    inputs = tf.tile(tf.reshape(tf.range(301.0) % 2, [1, 1, 301, 1]), [1, 3, 1, 1])
    layer = DeformableConvolution(1, 1, seed=0, dtype=keras.DTypePolicy("mixed_bfloat16"))
    layer.build(inputs.shape)
    layer.kernel.assign(tf.ones([1, 1, 1, 1]))
    layer.offset_bias.assign([0.0, 0.25, 20.0])
    outputs = layer(inputs)
    assert outputs.dtype == tf.bfloat16
    expected = np.where(np.arange(300) % 2, 0.75, 0.25)
    np.testing.assert_allclose(tf.cast(outputs[0, 1, :300, 0], tf.float32), expected, atol=1e-2)
