"""Layers against recorded Darknet layers: outputs, gradients and moving statistics to 1e-5 of the largest value."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.layers.activations import ACTIVATIONS, Activation
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from modeling.layers.pooling import ChannelSlice, MaxPool

# name -> stride, activation
CONVOLUTIONS = {
    "conv_s2_even": (2, "leaky"),
    "conv_s2_odd": (2, "leaky"),
    "conv_1x1_pad1": (1, "linear"),
    "conv_5x5_s2": (2, "leaky"),
    "conv_7x7_s2": (2, "leaky"),
    "act_bn_leaky": (1, "leaky"),
    "act_bn_mish": (1, "mish"),
    **{f"act_{name}": (1, name) for name in ("leaky", "mish", "swish", "relu", "logistic", "linear")},
}
POOLS = {
    "maxpool_2s1": (2, 1),
    "maxpool_2s1_even": (2, 1),
    "maxpool_2s2": (2, 2),
    "maxpool_2s2_even": (2, 2),
    "maxpool_3s1": (3, 1),
    "maxpool_3s2": (3, 2),
    "maxpool_3s2_even": (3, 2),
    "maxpool_5s1": (5, 1),
    "maxpool_13s1": (13, 1),
}


def nhwc(array):
    return tf.constant(np.transpose(array, (0, 2, 3, 1)))


def assert_close(actual, expected, what):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, what
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error < 1e-5, f"{what}: {error:.2e} of the largest value"


@pytest.fixture
def recorded(golden):
    """`recorded(case)` -> the trace; parameter gradients and batch statistics follow cuDNN."""
    return lambda case: np.load(golden(f"layers_cudnn_emulated/{case}.npz"))


def block(trace, stride, activation):
    """The recorded [convolutional] section as our layers: a model, and its batch-norm if it has one."""
    normalised = "init/L000_scales" in trace
    kernel = np.transpose(trace["init/L000_weights"], (2, 3, 1, 0))
    convolution = Convolution(kernel.shape[3], kernel.shape[0], stride, bias=None if normalised else 0.0, seed=0)
    norm = BatchNorm(momentum=0.99)
    inputs = keras.Input(nhwc(trace["X"]).shape[1:])
    x = convolution(inputs)
    x = norm(x) if normalised else x
    model = keras.Model(inputs, Activation(activation)(x))
    convolution.kernel.assign(kernel)
    if normalised:
        load_norm(norm, trace, "L000")
    else:
        convolution.bias.assign(trace["init/L000_biases"])
    return model, norm if normalised else None


def load_norm(norm, trace, layer):
    norm.gamma.assign(trace[f"init/{layer}_scales"])
    norm.beta.assign(trace[f"init/{layer}_biases"])
    norm.moving_mean.assign(trace[f"init/{layer}_rolling_mean"])
    norm.moving_variance.assign(trace[f"init/{layer}_rolling_variance"])


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_evaluates_as_recorded(recorded, case):
    trace = recorded(case)
    model, _ = block(trace, *CONVOLUTIONS[case])
    assert_close(model(nhwc(trace["X"]), training=False), nhwc(trace["eval/L000_output"]), "output")


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_trains_as_recorded(recorded, case):
    trace = recorded(case)
    model, norm = block(trace, *CONVOLUTIONS[case])
    inputs = nhwc(trace["X"])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = model(inputs, training=True)
    assert_close(outputs, nhwc(trace["train/L000_output"]), "output")
    sources = {"input": inputs, **{v.path.split("/")[-1]: v.value for v in model.trainable_variables}}
    gradients = tape.gradient(outputs, sources, output_gradients=nhwc(trace["upstream_delta"]))
    assert_close(gradients["input"], nhwc(trace["input_delta"]), "gradient of the input")
    expected_kernel = np.transpose(trace["grad/L000_weight_updates"], (2, 3, 1, 0))
    assert_close(gradients["kernel"], expected_kernel, "gradient of the kernel")
    assert_close(gradients["beta" if norm else "bias"], trace["grad/L000_bias_updates"], "gradient of the bias")
    if norm:
        assert_close(gradients["gamma"], trace["grad/L000_scale_updates"], "gradient of the scale")
        assert_close(norm.moving_mean, trace["after_train_forward/L000_rolling_mean"], "moving mean")
        assert_close(norm.moving_variance, trace["after_train_forward/L000_rolling_variance"], "moving variance")


def test_batch_norm_alone_as_recorded(recorded):
    trace = recorded("batchnorm")
    inputs = nhwc(trace["train/L000_output"])
    norm = BatchNorm(momentum=0.99)
    norm.build(inputs.shape)
    load_norm(norm, trace, "L001")
    assert_close(norm(inputs, training=False), nhwc(trace["eval/L001_output"]), "eval output")
    assert_close(norm(inputs, training=True), nhwc(trace["train/L001_output"]), "train output")
    assert_close(norm.moving_mean, trace["after_train_forward/L001_rolling_mean"], "moving mean")
    assert_close(norm.moving_variance, trace["after_train_forward/L001_rolling_variance"], "moving variance")


def assert_layer_as_recorded(layer, trace, source: str, output: str) -> None:
    """A layer without weights: its shape, output, and gradient of its input, from the recorded output of `source`."""
    inputs = nhwc(trace[f"train/{source}_output"])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
    assert layer.compute_output_shape(inputs.shape) == outputs.shape
    assert_close(outputs, nhwc(trace[f"train/{output}_output"]), "output")
    gradient = tape.gradient(outputs, inputs, output_gradients=nhwc(trace["upstream_delta"]))
    assert_close(gradient, nhwc(trace[f"delta_after_backward/{source}"]), "gradient of the input")


@pytest.mark.parametrize("case", POOLS)
def test_max_pool_as_recorded(recorded, case):
    trace = recorded(case)
    assert_layer_as_recorded(MaxPool(*POOLS[case]), trace, source="L000", output="L001")


@pytest.mark.parametrize("index", [0, 1])
def test_route_groups_as_recorded(recorded, index):
    trace = recorded(f"route_groups2_{index}")
    assert_layer_as_recorded(ChannelSlice(2, index), trace, source="L002", output="L003")


def test_upsample_as_recorded(recorded):
    trace = recorded("upsample2")
    layer = keras.layers.UpSampling2D(2, interpolation="nearest")  # the decoder's
    assert_close(layer(nhwc(trace["train/L000_output"])), nhwc(trace["train/L001_output"]), "output")


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_far_out_is_finite(name):
    x = tf.constant([[-1e4, -100.0, -20.0, 0.0], [1e-3, 20.0, 100.0, 1e4]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Activation(name)(x)
    assert np.isfinite(y).all() and np.isfinite(tape.gradient(y, x)).all()


def test_activation_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="no activation 'leeky'"):
        Activation("leeky")
