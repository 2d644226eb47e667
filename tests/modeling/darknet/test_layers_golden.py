"""One-layer networks against recorded Darknet: outputs, gradients and moving statistics to 1e-5 of the largest value.

The recorded `delta` and `updates` are minus the gradient: they point to where the loss gets smaller.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.darknet.build import Graph, build_network
from modeling.darknet.cfg import parse_cfg
from modeling.darknet.loading import load_into, values_of
from modeling.darknet.weights import Header, WeightsFile, network_records

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"
SUBSET = Path(__file__).resolve().parents[2] / "golden"
ROOT = GOLDEN if GOLDEN.is_dir() else SUBSET
EVALUATED = {path.stem for path in (ROOT / "layers").glob("*.npz")} - {"act_relu6"}  # Darknet's CPU computes 0
# Darknet's [connected] has its own batch-norm, which is not cuDNN's; dropout draws.
TRAINED = {f"layers_cudnn_emulated/{path.stem}" for path in (ROOT / "layers_cudnn_emulated").glob("*.npz")}
TRAINED = TRAINED - {f"layers_cudnn_emulated/{name}" for name in ("act_relu6", "dropout")}
TRAINED |= {"layers/connected_bn"} if "connected_bn" in EVALUATED else set()


def test_all_recorded_cases_are_compared(shared):
    assert (len(EVALUATED), len(TRAINED)) == (101, 100)


def nhwc(array):
    return np.transpose(array, (0, 2, 3, 1)) if array.ndim == 4 else array


def assert_close(actual, expected, what):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, what
    error = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
    assert error < 1e-5, f"{what}: {error:.2e} of the largest value"


def built(trace) -> tuple[Graph, keras.Model]:
    """The trace's cfg with its initial weights; and the model with every layer's output."""
    network = parse_cfg(str(trace["meta/cfg"]), "trace")
    graph = build_network(network, seed=0)
    records = network_records(network)
    values = {}
    for record in records:
        prefix = f"init/L{record.index:03d}_"
        values[record.name] = {name: trace[prefix + name].reshape(shape) for name, shape in record.parameters.items()}
    load_into(graph.model, records, WeightsFile(Header(), values))
    return graph, keras.Model(graph.model.input, graph.outputs)


def recorded_outputs(trace, mode):
    keys = sorted(key for key in trace.files if key.startswith(f"{mode}/L") and key.endswith("_output"))
    return {int(key[len(mode) + 2 :][:3]): nhwc(trace[key]) for key in keys}


@pytest.mark.parametrize("case", sorted(EVALUATED))
def test_evaluates_as_recorded(golden, case):
    trace = np.load(golden(f"layers/{case}.npz"))
    _, model = built(trace)
    outputs = tf.nest.flatten(model(nhwc(trace["X"]), training=False))
    expected = recorded_outputs(trace, "eval")
    assert expected
    for index, value in expected.items():
        assert_close(outputs[index], value, f"output of layer {index}")
        symbolic = tf.nest.flatten(model.outputs)[index].shape
        assert tuple(symbolic)[1:] == value.shape[1:]


def assert_gradients(trace, ours):
    """To 1e-5 of the layer's largest: that of a bias before a batch-norm is 0, and rounding errors all there is."""
    keys = [key for key in trace.files if key.startswith("grad/")]
    for key in keys:
        index, name = int(key[6:9]), key[10:].removesuffix("_updates")
        name = {"weight": "weights", "bias": "biases", "scale": "scales"}[name]
        owner = index if index in ours else 0  # share_index; what is shared is recorded twice
        scale = max(np.abs(trace[other]).max() for other in keys if other[:9] == key[:9])
        error = np.abs(ours[owner][name].reshape(trace[key].shape) - trace[key]).max() / max(scale, 1e-30)
        assert error < 1e-5, f"{key}: {error:.2e} of the layer's largest"


@pytest.mark.parametrize("case", sorted(TRAINED))
def test_trains_as_recorded(golden, case):
    trace = np.load(golden(f"{case}.npz"))
    graph, model = built(trace)
    inputs = tf.constant(nhwc(trace["X"]))
    records = network_records(graph.network)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = tf.nest.flatten(model(inputs, training=True))
    for index, value in recorded_outputs(trace, "train").items():
        assert_close(outputs[index], value, f"output of layer {index}")
    statistics = values_of(graph.model, records)
    for record in records:
        for name, value in statistics[record.name].items():
            moved = f"after_train_forward/L{record.index:03d}_{name}"
            if moved in trace:
                assert_close(value, trace[moved], moved)
    if "upstream_delta" not in trace:  # of three cases only the forward pass was recorded
        return
    variables = {variable.path: variable.value for variable in model.trainable_variables}
    upstream = nhwc(trace["upstream_delta"])
    gradients = tape.gradient(outputs[-1], {"input": inputs, **variables}, output_gradients=upstream)
    assert_close(gradients["input"], nhwc(trace["input_delta"]), "gradient of the input")
    for variable in model.trainable_variables:  # the gradients in the variables' place, to read them in Darknet's form
        variable.assign(tf.zeros_like(variable) if gradients[variable.path] is None else gradients[variable.path])
    assert_gradients(
        trace,
        {
            record.index: values
            for record, values in zip(records, values_of(graph.model, records).values(), strict=True)
        },
    )
