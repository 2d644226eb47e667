"""Models of the experiments made of parts, beside the networks of the originals' cfgs, layer by layer."""

import json
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from configs.experiment import Experiment
from configs.yolo.task import YoloModel
from modeling.darknet.build import build_network, layer_name
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import load_weights, model_records, save_weights
from modeling.darknet.weights import cut_weights, network_records
from modeling.layers.activations import Activation
from modeling.yolo.network import build_detector, fold_batch_norm
from official.core.config_io import load_config
from official.core.errors import UserError
from tests.modeling.trained import compiled_step, trained_like
from tools.flops import bflops

ROOT = Path(__file__).parents[3]
EXPERIMENTS = ROOT / "configs/experiments"
SIZE = (96, 160)  # (height, width)
CFGS = {  # experiment -> cfg
    "yolov3_tiny": "yolov3-tiny.cfg",
    "yolov4_tiny": "yolov4-tiny.cfg",
    "yolov3": "yolov3.cfg",
    "yolov3_spp": "yolov3-spp.cfg",
    "yolov4": "yolov4.cfg",
    "yolov4_csp": "yolov4-csp.cfg",
    "yolov4x_mish": "yolov4x-mish.cfg",
    "yolov7_tiny": "yolov7-tiny.cfg",
    "yolov7": "yolov7.cfg",
}
QUICK = ("yolov3_tiny", "yolov4_tiny", "yolov7_tiny")


def heavy(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def model_of(experiment):
    return load_config(str(EXPERIMENTS / f"{experiment}_coco.yaml"), Experiment).task.model


def recorded_shapes(golden, *experiments):
    path = golden("misc/layer_shapes_all_detector_cfgs.json")
    recorded = json.loads(path.read_text())["cfgs"]
    missing = [CFGS[one] for one in experiments if f"cfg/{CFGS[one]}" not in recorded]
    if missing:
        pytest.skip(f"{path} has no {', '.join(missing)}")
    return recorded


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
    assert bflops(model) == bflops(original)

    def outputs(model, names):
        """After each convolution's activation, or of itself where it has none; then the heads."""
        have = {layer.name for layer in model.layers}
        last = [f"{name}_activation" if f"{name}_activation" in have else name for name in names]
        return keras.Model(model.input, [*(model.get_layer(name).output for name in last), *model.outputs])

    images = np.random.default_rng(3).uniform(size=(1, *SIZE, 3)).astype(np.float32)
    theirs = outputs(original, [record.name for record in records])(images, training=False)
    ours = outputs(model, [one.convolution for one in model.made])(images, training=False)
    names = [record.name for record in records] + [layer_name(head) for head in network.heads]
    wrong = [name for name, one, two in zip(names, ours, theirs, strict=True) if not within(one, two, 1e-5)]
    assert wrong == []
    folded = fold_batch_norm(config, 80, model)
    for one, two in zip(folded(images), model(images, training=False), strict=True):
        assert within(one, two, 1e-4)


@pytest.mark.parametrize("experiment", heavy(CFGS))
def test_shapes_weights_and_operations_are_those_darknet_counts(golden, experiment):
    recorded = recorded_shapes(golden, experiment)[f"cfg/{CFGS[experiment]}"]
    _, height, width = recorded["net"]
    model = build_detector(model_of(experiment).model_copy(update={"input_size": (height, width)}), 80, seed=0)
    shapes = [(c, h, w) for _, kind, c, h, w, *_ in recorded["layers"] if kind == "convolutional"]
    ours = [model.get_layer(name).output.shape[1:] for name in [one.convolution for one in model.made]]
    assert [(c, h, w) for h, w, c in ours] == shapes
    assert model.count_params() == recorded["weight_floats_before_sharing"]
    assert bflops(model) == pytest.approx(recorded["bflops"], abs=0.0006)  # recorded with three decimals, in float32


def test_the_readmes_table_says_what_darknet_counts(golden):
    recorded = recorded_shapes(golden, *CFGS)
    rows = [line.split(" | ") for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [`yolo")]
    stated = {re.search(r"experiments/(\w+)_coco.yaml", row[0])[1]: row for row in rows}
    assert stated.keys() == {*CFGS, "yolov4_512"}
    for experiment, (_, weights, operations, size, *_) in stated.items():
        config, original = model_of(experiment), recorded[f"cfg/{CFGS[experiment.removesuffix('_512')]}"]
        _, height, width = original["net"]
        area = math.prod(config.input_size) / (height * width)
        assert size == " x ".join(map(str, config.input_size))
        assert weights == f"{original['weight_floats_before_sharing']:,}"
        assert float(operations) == pytest.approx(original["bflops"] * area, abs=0.0006)


def test_the_first_layers_of_a_file_are_loaded(shared, tmp_path):
    """yolov7-tiny.conv.87: all but the convolutions that lie last, those before the heads and the heads."""
    cfg = str(shared / "assets/darknet/cfg/yolov7-tiny.cfg")
    network, whole, part = read_cfg(cfg), str(tmp_path / "whole.weights"), str(tmp_path / "part.conv.87")
    original = build_network(network, seed=1, input_size=SIZE).model
    save_weights(original, whole, network_records(network))
    cut_weights(cfg, whole, part, 87)
    model = build_detector(model_of("yolov7_tiny").model_copy(update={"input_size": SIZE}), 80, seed=2)
    loaded = load_weights(model, part, model_records(model))
    last = [f"{name}{number}" for number in range(3) for name in ("decoder_last", "head_")]
    assert loaded.report.splitlines()[1].endswith(f"initial weights: {', '.join(last)}")
    ours, theirs = model.get_layer("decoder_up2_merge"), original.get_layer("L086_convolutional")
    np.testing.assert_array_equal(ours.kernel, theirs.kernel)


def small(backbone, decoder, levels=3):
    masks = [(0, 1), (2,), (1, 2)]
    head = {"anchors": [(10, 14), (37, 58), (81, 82)], "levels": [{"mask": mask} for mask in masks[:levels]]}
    return YoloModel(input_size=(64, 96), backbone=backbone, decoder=decoder, head=head)


@pytest.mark.parametrize(("decoder", "rows"), [("fpn", [2, 4, 8]), ("pan", [8, 4, 2])])
def test_levels_come_in_the_order_in_which_they_are_made(decoder, rows):
    model = build_detector(small({"type": "darknet53", "width": 0.125}, {"type": decoder}), 4, seed=0)
    anchors = (2, 1, 2)
    assert [x.shape[1:] for x in model.outputs] == [
        (row, row * 3 // 2, count, 9) for row, count in zip(rows, anchors, strict=True)
    ]


@pytest.mark.parametrize("decoder", ["fpn", "pan"])
def test_two_levels_are_the_coarsest(decoder):
    model = build_detector(small({"type": "darknet53", "width": 0.125}, {"type": decoder}, 2), 4, seed=0)
    assert sorted(x.shape[1] for x in model.outputs) == [2, 4]


@pytest.mark.parametrize("decoder", ["fpn", "pan"])
def test_one_level_is_an_error(decoder):
    with pytest.raises(UserError, match=f"levels: 1 given, but the {decoder} decoder makes 2 to 4"):
        build_detector(small({"type": "darknet53", "width": 0.125}, {"type": decoder}, 1), 4, seed=0)


def test_width_leaves_the_first_convolution_and_scales_the_others():
    model = build_detector(small({"type": "cspdarknet53", "width": 0.25, "activation": "mish"}, {"type": "pan"}), 4, 0)
    assert model.get_layer("backbone_stem").filters == 32
    assert [model.get_layer(f"backbone_{stage}_down").filters for stage in range(5)] == [16, 32, 64, 128, 256]
    assert model.get_layer("decoder_0_0").filters == 128
    activations = {
        layer.name.split("_")[0]: layer.activation for layer in model.layers if isinstance(layer, Activation)
    }
    assert activations == {"backbone": "mish", "decoder": "leaky"}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["yolov4_csp", "yolov7"])
def test_train_step_graph_compiles(not_deterministic, experiment):
    """Forward and backward under XLA: every shape is static, and every weight has a gradient."""
    config = model_of(experiment).model_copy(update={"input_size": (64, 96)})
    model = build_detector(config, num_classes=4, seed=0)
    gradients, _ = compiled_step(model)
    assert all(np.isfinite(gradient).all() and np.abs(gradient).max() > 0 for gradient in gradients)
