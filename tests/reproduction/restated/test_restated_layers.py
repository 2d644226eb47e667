"""Restated convolutional layers beside what Darknet recorded of single ones, in evaluation and in training."""

import numpy as np
import pytest

from reproduction.restated.layers import ACTIVATIONS, EPSILON, convolved, moments, normalised, per_channel, windows
from reproduction.traces.case import Case
from reproduction.yolo.case import network_of

CONVOLUTIONS = [
    *("act_bn_leaky", "act_bn_mish", "conv_stride_xy", "conv_groups2", "conv_dilation2", "conv_s2_even", "conv_5x5_s2"),
]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_convolutional(golden, name, mode):
    case = Case(golden(f"{'layers' if mode == 'eval' else 'layers_cudnn_emulated'}/{name}.npz"))
    layer = network_of(case).layers[0]
    image, expected = case.trace["X"].astype(float), case.trace[f"{mode}/L000_output"]
    get = lambda one: case.trace[f"init/L000_{one}"].astype(float)  # noqa: E731
    image = image[np.newaxis] if image.ndim == 3 else image
    pads = (layer.padding * layer.dilation,) * 4
    maps = convolved(image, get("weights"), (layer.stride_y, layer.stride_x), pads, layer.dilation, layer.groups)
    if layer.batch_normalize:
        statistics = moments(maps) if mode == "train" else (get("rolling_mean"), get("rolling_variance"))
        maps = normalised(maps, *statistics, get("scales"), get("biases"))
    else:
        maps = maps + per_channel(get("biases"))
    ours = ACTIVATIONS[layer.activation](maps)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["maxpool_3s2_even", "maxpool_2s1"])
def test_windows_of_a_maximum(golden, name):
    case = Case(golden(f"layers/{name}.npz"))
    layer = network_of(case).layers[-1]
    given, expected = case.trace[f"eval/L{layer.index - 1:03d}_output"], case.trace[f"eval/L{layer.index:03d}_output"]
    half = layer.padding // 2
    pads = (half, half, layer.padding - half, layer.padding - half)
    views = windows(given, layer.size, (layer.stride_y, layer.stride_x), pads, -np.inf)
    np.testing.assert_array_equal(views.max(axis=(-2, -1)), expected)


@pytest.mark.parametrize("name", ["leaky", "relu", "logistic", "tanh"])
def test_activations(golden, name):
    trace = Case(golden("misc/activations.npz")).trace
    np.testing.assert_allclose(ACTIVATIONS[name](trace["x"].astype(float)), trace[name], rtol=2e-5, atol=1e-6)


def test_a_variance_of_nothing_is_epsilon():
    maps = np.full((1, 1, 2, 2), 3.0)
    ours = normalised(maps + 1e-3, np.array([3.0]), np.array([0.0]), np.ones(1), np.zeros(1))
    np.testing.assert_allclose(ours, 1e-3 / np.sqrt(EPSILON))
