"""Layers computed anew, with a mistake in them, beside what Darknet recorded: the mistake must be found again."""

# ruff: noqa: E501 (tables of one mistake a line)

import numpy as np
import pytest

from modeling.darknet import sections
from reproduction.traces.case import Case
from reproduction.traces.causes import Clue, explain
from reproduction.yolo.case import network_of
from reproduction.yolo.mistakes.convolutions import statistics_alternatives
from reproduction.yolo.mistakes.layers import layer_alternatives, training_alternatives
from reproduction.yolo.rebuilt import STATISTICS
from reproduction.yolo.walk import reads

# A case of one layer -> causes that must be found in its last layer.
CASES = {
    "act_bn_leaky": {"batch_norm_epsilon", "batch_norm_epsilon_outside", "batch_norm_variance", "leaky_slope", "weights_layout"},
    "act_bn_mish": {"mish_softplus_clipped", "batch_norm_epsilon", "activation_other", "batch_norm_training_mode"},
    "conv_5x5_s2": {"stride_alignment", "bias_missing"},  # of odd sides: SAME pads as Darknet does
    "conv_depthwise_s2": {"stride_alignment"},
    "conv_s2_even": {"padding_same", "stride_alignment"},
    "conv_dilation3": {"weights_layout", "batch_norm_epsilon"},
    "maxpool_3s2_even": {"maxpool_zero_padding", "pooling_shift"},
    "maxpool_2s1": {"maxpool_zero_padding", "pooling_shift"},
    "local_avgpool_3s1": {"average_counts_padding"},
    "upsample2": {"upsample_bilinear"},
    "upsample2_scale": {"upsample_scale"},
    "route_groups2_1": {"route_groups"},
    "route_four": {"route_order"},
    "shortcut_more_from": {"shortcut_channels", "shortcut_missing"},
    "shortcut_fewer_from": {"shortcut_channels"},
    "shortcut_leaky": {"shortcut_activation"},
    "reorg_s2": {"reorg_order"},
    "connected": {"flatten_order", "bias_missing"},
}  # fmt: skip


def last_layer(case: Case, mode: str):
    """(the section, its recorded inputs, its parameters, its recorded output)."""
    layer = network_of(case).layers[-1]
    names = [f"{mode}/L{index:03d}_output" if index >= 0 else "X" for index in reads(layer)]
    prefix = f"init/L{layer.index:03d}_"
    parameters = {name.removeprefix(prefix): case.trace[name] for name in case.trace if name.startswith(prefix)}
    inputs = [case.trace[name] for name in names]
    return layer, inputs, parameters, case.trace[f"{mode}/L{layer.index:03d}_output"]


@pytest.mark.parametrize("name", CASES)
def test_a_layer_with_a_mistake_is_told(golden, name):
    layer, inputs, parameters, expected = last_layer(Case(golden(f"layers/{name}.npz")), "eval")
    alternatives = layer_alternatives(layer, inputs, parameters)
    assert CASES[name] <= {key.partition(" ")[0] for key in alternatives}
    for key, mistaken in alternatives.items():
        assert mistaken().size == expected.size, key
        ours = mistaken().reshape(expected.shape)
        if np.abs(ours - expected).max() <= 2e-6 * np.abs(expected).max():
            continue  # here the mistake makes no difference
        hints = explain(ours, expected, Clue("layer", "NCHW", alternatives))
        assert key.partition(" ")[0] in [hint.cause for hint in hints[:2]], key


@pytest.mark.parametrize("name", ["act_bn_leaky", "act_bn_mish", "conv_stride_xy", "conv_groups2", "conv_dilation2"])
@pytest.mark.parametrize("mode, compute", [("eval", layer_alternatives), ("train", training_alternatives)])
def test_a_mistake_that_undoes_a_wrong_parameter_gives_what_was_recorded(golden, name, mode, compute):
    """Without its bias a layer is that with a bias of 0; an epsilon of 2e-5 is a variance that is 1e-5 more."""
    folder = "layers" if mode == "eval" else "layers_cudnn_emulated"
    layer, inputs, parameters, expected = last_layer(Case(golden(f"{folder}/{name}.npz")), mode)
    assert isinstance(layer, sections.Convolutional)
    if not layer.batch_normalize or mode == "train":
        without = compute(layer, inputs, {**parameters, "biases": 0 * parameters["biases"]})["bias_missing"]()
        right = compute(layer, inputs, parameters)["bias_missing"]()
        np.testing.assert_allclose(without, right, rtol=0, atol=1e-5 * np.abs(right).max())
        return
    harmed = {**parameters, "rolling_variance": parameters["rolling_variance"] - 1e-5}
    ours = compute(layer, inputs, harmed)["batch_norm_epsilon 2e-05"]()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["act_bn_leaky", "act_bn_mish"])
def test_moving_statistics(golden, name):
    case = Case(golden(f"layers_cudnn_emulated/{name}.npz"))
    layer, inputs, parameters, _ = last_layer(case, "train")
    for statistic, alternatives in statistics_alternatives(layer, inputs, parameters).items():
        assert statistic in STATISTICS
        expected = case.trace[f"after_train_forward/L{layer.index:03d}_{statistic}"]
        for key, mistaken in alternatives.items():
            hints = explain(mistaken(), expected, Clue("statistics", "", alternatives))
            assert key.partition(" ")[0] in [hint.cause for hint in hints[:2]], (statistic, key)
