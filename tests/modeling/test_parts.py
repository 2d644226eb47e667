"""Models of the experiments made of parts, beside the networks of the originals' cfgs, layer by layer."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from configs.experiment import Experiment
from modeling.darknet.build import build_network, layer_name
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import load_weights, model_records, save_weights
from modeling.darknet.weights import network_records
from modeling.detector import build_detector, fold_batch_norm
from modeling.flops import bflops
from official.core.config_io import load_config

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"
SIZE = (96, 160)  # (height, width)
CFGS = {  # experiment -> cfg
    "yolov3": "yolov3.cfg",
    "yolov3_spp": "yolov3-spp.cfg",
    "yolov4": "yolov4.cfg",
    "yolov4_csp": "yolov4-csp.cfg",
    "yolov4x_mish": "yolov4x-mish.cfg",
    "yolov7_tiny": "yolov7-tiny.cfg",
    "yolov7": "yolov7.cfg",
}
QUICK = ("yolov7_tiny",)


def heavy(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def model_of(experiment):
    return load_config(str(EXPERIMENTS / f"{experiment}_coco.yaml"), Experiment).task.model


def trained_like(model, seed=0):
    """Gives every variable a value that an untrained network does not have."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 2.0, variable.shape))
        elif name != "kernel":
            variable.assign(random.normal(0.0, 0.3, variable.shape))


def within(actual, expected, bound):
    """The largest difference as a share of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape and np.isfinite(expected).all() and expected.std() > 0
    return np.abs(actual - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("experiment", heavy(CFGS))
def test_every_layer_equals_the_cfgs_with_a_file_of_random_weights(shared, tmp_path, experiment):
    network = read_cfg(str(shared / "assets/darknet/cfg" / CFGS[experiment]))
    original = build_network(network, seed=1, input_size=SIZE).model
    trained_like(original)
    path, records = str(tmp_path / "random.weights"), network_records(network)
    save_weights(original, path, records)
    config = model_of(experiment).model_copy(update={"input_size": SIZE})
    model = build_detector(config, 80, seed=2)
    loaded = load_weights(model, path, model_records(model))
    assert loaded.complete

    def outputs(model, names):
        """After each convolution's activation, or of itself where it has none; then the heads."""
        have = {layer.name for layer in model.layers}
        last = [f"{name}_activation" if f"{name}_activation" in have else name for name in names]
        return keras.Model(model.input, [*(model.get_layer(name).output for name in last), *model.outputs])

    images = np.random.default_rng(3).uniform(size=(1, *SIZE, 3)).astype(np.float32)
    theirs = outputs(original, [record.name for record in records])(images, training=False)
    ours = outputs(model, [name for name, _ in model.convolutions])(images, training=False)
    names = [record.name for record in records] + [layer_name(head) for head in network.heads]
    wrong = [name for name, one, two in zip(names, ours, theirs, strict=True) if not within(one, two, 1e-5)]
    assert wrong == []
    folded = fold_batch_norm(config, 80, model)
    for one, two in zip(folded(images), model(images, training=False), strict=True):
        assert within(one, two, 1e-4)


@pytest.mark.parametrize("experiment", heavy(CFGS))
def test_shapes_weights_and_operations_are_those_darknet_counts(golden, experiment):
    path = golden("misc/layer_shapes_all_detector_cfgs.json")
    recorded = json.loads(path.read_text())["cfgs"][f"cfg/{CFGS[experiment]}"]
    _, height, width = recorded["net"]
    model = build_detector(model_of(experiment).model_copy(update={"input_size": (height, width)}), 80, seed=0)
    shapes = [(c, h, w) for _, kind, c, h, w, *_ in recorded["layers"] if kind == "convolutional"]
    ours = [model.get_layer(name).output.shape[1:] for name, _ in model.convolutions]
    assert [(c, h, w) for h, w, c in ours] == shapes
    assert model.count_params() == recorded["weight_floats_before_sharing"]
    assert bflops(model) == pytest.approx(recorded["bflops"], abs=0.0006)  # recorded with three decimals, in float32
