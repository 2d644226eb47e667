"""Weights of CenterNet's in our networks and back; the recorded network from a file; what does not agree is listed."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetModel
from modeling.backbones.dla import UNUSED_PROJECTIONS
from modeling.centernet.network import build_centernet, build_folded_centernet
from modeling.centernet.weights import load_centernet_weights, save_centernet_weights
from modeling.weights.keras_file import KerasFileError
from modeling.weights.torch_file import TorchFileError, read_state_dict, write_state_dict
from reproduction.centernet.network import head_names
from reproduction.traces.trace import read_trace
from tests.modeling.centernet.test_centernet_networks import ARCHITECTURES, NETWORKS, quick

TINY = {"type": "hourglass", "dims": (4, 6), "modules": (1, 1), "pre": 3, "cnv_dim": 5, "stacks": 1}
CONFIG = CenterNetModel(input_size=(16, 24), backbone=TINY, head={"head_conv": 2})


def build(classes: int = 3, seed: int = 0, config: CenterNetModel = CONFIG):
    return build_centernet(config, classes, seed)


@pytest.fixture(scope="module")
def built():
    model = build()
    return model, values(model)


@pytest.fixture
def model(built):
    """A small network of 3 classes, with the same weights in every test."""
    model, initial = built
    for variable, value in zip(model.variables, initial, strict=True):
        variable.assign(value)
    return model


def values(model) -> list[np.ndarray]:
    return [np.array(variable) for variable in model.variables]


def disturb(model) -> None:
    """Other values than initial ones in every variable, batch-norm's too."""
    draw = np.random.default_rng(5)
    for variable in model.variables:
        variable.assign(draw.uniform(0.1, 1, variable.shape))


def test_the_recorded_network_from_a_file(golden_centernet, tmp_path):
    tensors = dict(np.load(golden_centernet("hourglass_small_state_dict.npz")))
    trace = read_trace(golden_centernet("hourglass_small_trace.npz"))
    path = str(tmp_path / "model_best.pth")
    write_state_dict(path, {f"module.{name}": value for name, value in tensors.items()})
    parts, classes = NETWORKS["hourglass_small"]
    model = build(classes, 1, CenterNetModel(**{"input_size": trace["input"].shape[2:]} | parts))
    assert load_centernet_weights(model, path) == (f"loaded 334 of 334 variables from {path}", None, True)
    outputs = model(tf.constant(trace["input"].transpose(0, 2, 3, 1)), training=False)
    for output, name in zip(outputs, head_names(trace, "eval", len(outputs)), strict=True):
        expected = trace[name].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name)
    save_centernet_weights(model, path)
    written = read_state_dict(path)
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name], 0 if name.endswith("tracked") else value, err_msg=name)


@pytest.fixture(scope="module")
def whole_network(tmp_path_factory):
    """`whole_network(name)` -> (model, a file of it, what is read from that); tests leave its weights as they are."""

    @functools.cache
    def make(name: str):
        model = build(80, 0, CenterNetModel(**{"input_size": (32, 64)} | ARCHITECTURES[name]))
        path = str(tmp_path_factory.mktemp("whole") / "x.pth")
        return model, path, read_written(model, path)

    return make


@pytest.mark.parametrize("name", quick("resdcn_18", "dla_34 (DCN)", of=ARCHITECTURES))
def test_files_have_the_original_s_names_and_shapes(golden_centernet, whole_network, name):
    expected = json.loads(golden_centernet("architecture_shapes.json").read_text())[name]["state_dict"]
    model, path, written = whole_network(name)
    before = values(model)
    assert {name: list(value.shape) for name, value in written.items()} == expected
    for name, value in written.items():
        assert value.dtype == (np.int64 if name.endswith("num_batches_tracked") else np.float32), name
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    assert load_centernet_weights(model, path).complete
    for one, other in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_number_of_classes(model, tmp_path):
    """As when one's own data are trained from published weights."""
    path = str(tmp_path / "x.pth")
    other = build(80)
    disturb(other)
    save_centernet_weights(other, path)
    initial = values(model)
    loaded = load_centernet_weights(model, path)
    count = len(model.variables)
    assert not loaded.complete and loaded.examples_seen is None
    assert loaded.report.splitlines() == [
        f"loaded {count - 2} of {count} variables from {path}",
        "  of another shape, so with its initial weights: hm.0.1.weight, (80, 2, 1, 1) in the file, here (3, 2, 1, 1)",
        "  of another shape, so with its initial weights: hm.0.1.bias, (80,) in the file, here (3,)",
    ]
    for variable, own, theirs in zip(model.variables, initial, values(other), strict=True):
        np.testing.assert_array_equal(variable, own if "hm.0.1" in variable.path else theirs)


def test_backbones_of_imagenet(whole_network, tmp_path):
    """torchvision's ResNet and DLA's own file: without `base.`, with a classifier and the unused projections."""
    for name, prefix, heads in (("resdcn_18", "", "deconv_layers ("), ("dla_34 (DCN)", "base.", "dla_up (")):
        model, _, tensors = whole_network(name)
        path = str(tmp_path / "x.pth")
        parts = ("conv1.", "bn1.", "layer", "base.")
        backbone = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(parts)}
        write_state_dict(path, backbone | {"fc.weight": np.zeros((10, 512), "f4"), "fc.bias": np.zeros(10, "f4")})
        before = values(model)
        for variable in model.variables:
            if variable.path.startswith("backbone"):
                variable.assign(tf.zeros_like(variable))
        loaded = load_centernet_weights(model, path)
        assert not loaded.complete
        first, missing = loaded.report.splitlines()
        assert first.startswith(
            f"loaded {sum(variable.path.startswith('backbone') for variable in model.variables)} of"
        )
        assert missing.startswith(f"  not in the file, so with their initial weights: {heads}")
        assert missing.endswith("hm (4), wh (4), reg (4)")
        for one, other in zip(values(model), before, strict=True):
            np.testing.assert_array_equal(one, other)
    assert all(f"{name.removeprefix('base.')}.0.weight" in backbone for name in UNUSED_PROJECTIONS)


def test_what_the_network_has_not_is_listed(model, tmp_path):
    path = str(tmp_path / "x.pth")
    further = {f"hps.0.{number}": np.ones(2, "f4") for number in range(3)} | {"base.fc.bias": np.ones(2, "f4")}
    write_state_dict(path, read_written(model, path) | further)
    loaded = load_centernet_weights(model, path)
    assert loaded.complete
    assert loaded.report.splitlines()[1:] == ["  not in this network, so left out: hps (3)"]


def test_long_reports_are_cut(model, tmp_path):
    path = str(tmp_path / "x.pth")
    tensors = read_written(model, path)
    write_state_dict(path, {name: value[:1, :1] if value.ndim == 4 else value for name, value in tensors.items()})
    lines = load_centernet_weights(model, path).report.splitlines()
    left = len(model.variables) - int(lines[0].split()[1])
    assert len(lines) == 10 and lines[-1] == f"  and {left - 8} more of another shape"


def read_written(model, path: str) -> dict[str, np.ndarray]:
    save_centernet_weights(model, path)
    return read_state_dict(path)


def test_files_that_do_not_fit_change_nothing(model, tmp_path):
    path = str(tmp_path / "x.pth")
    before = values(model)
    tensors = read_written(model, path)
    broken = {
        "kps.0.up1.0.conv1.weight": (np.nan, "holds NaN, infinity or a negative variance"),
        "pre.0.bn.running_var": (-1.0, "holds NaN, infinity or a negative variance"),
        "pre.0.bn.bias": (np.inf, "holds NaN, infinity or a negative variance"),
    }
    for name, (value, says) in broken.items():
        write_state_dict(path, tensors | {name: np.full_like(tensors[name], value)})
        with pytest.raises(TorchFileError, match=rf"x\.pth: {name} {says}"):
            load_centernet_weights(model, path)
    write_state_dict(path, {"features.0.weight": np.ones((2, 3), "f4"), "pre.0.bn.bias": np.ones(99, "f4")})
    with pytest.raises(
        TorchFileError, match=r"is of another network: it has features \(1\), pre \(1\); none of its para"
    ):
        load_centernet_weights(model, path)
    for name, says in (("none.pth", "cannot read this file"), ("none.keras", "cannot read this file of weights")):
        with pytest.raises((TorchFileError, KerasFileError), match=says):
            load_centernet_weights(model, str(tmp_path / name))
    for one, other in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_folded_networks_are_an_error(model, tmp_path):
    folded = build_folded_centernet(CONFIG, 3)
    save_centernet_weights(model, path := str(tmp_path / "x.pth"))
    for use in (load_centernet_weights, save_centernet_weights):
        with pytest.raises(TorchFileError, match=r"x\.pth: the network's batch-norm is folded into its kernels"):
            use(folded, path)
