"""Any backbone that gives features by stride with any decoder and any head; options of style that no original has."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetModel
from configs.yolo.task import YoloModel
from modeling.backbones import BACKBONES
from modeling.centernet.network import build_centernet, build_folded_centernet
from modeling.centernet.weights import load_centernet_weights, save_centernet_weights
from modeling.darknet.loading import load_weights, model_records, save_weights
from modeling.darknet.weights import WeightsError
from modeling.decoders import DECODERS, maps_from
from modeling.decoders.levels import FIXED, features_read
from modeling.folding import fold_into
from modeling.layers.activations import Activation
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from modeling.layers.style import Style
from modeling.layers.torch_blocks import TorchConvolution
from modeling.weights.torch_file import TorchFileError
from modeling.yolo.network import build_detector, fold_batch_norm
from official.core.errors import UserError
from tests.modeling.trained import trained_like

SIZE = (64, 96)  # (height, width)
SMALL = {  # by type: the backbone's options
    "yolov3_tiny": {"width": 0.25},
    "yolov4_tiny": {"width": 0.25},
    "darknet53": {"width": 0.125, "blocks": (1, 1, 1, 1, 1)},
    "cspdarknet53": {"width": 0.125, "blocks": (1, 1, 1, 1, 1)},
    "elan": {
        "stem": ((8, 2), (8, 2)),
        "stages": ((8, 16), (8, 16), (16, 32), (16, 32)),
        "join": (3, 2, 1, 0),
        "down": "pool",
    },
    "resnet": {},
    "dla34": {},
}
OPTIONS = {"deconv": {"filters": (16, 8, 8)}}  # of a decoder
COMBINATIONS = list(itertools.product(SMALL, DECODERS))
# Each backbone and each decoder is in a quick one, in a combination that no original has.
QUICK = {
    *(("yolov3_tiny", "pan"), ("yolov4_tiny", "deconv"), ("darknet53", "tiny"), ("cspdarknet53", "dla_up")),
    *(("elan", "fpn"), ("resnet", "fpn"), ("dla34", "tiny")),
}
PARTS = [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in COMBINATIONS]


def parts(backbone: str, decoder: str) -> dict:
    return {
        "input_size": SIZE,
        "backbone": {"type": backbone, **SMALL[backbone]},
        "decoder": {"type": decoder, **OPTIONS.get(decoder, {})},
    }


def yolo(backbone: str, decoder: str, levels: int, **more) -> YoloModel:
    anchors = [(8 * number, 8 * number) for number in range(1, 6)]
    head = {"anchors": anchors, "levels": [{"mask": [number]} for number in range(levels)]}
    return YoloModel(**parts(backbone, decoder), head=head, **more)


def sides(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(output.shape[1:3]) for output in model.outputs]


def test_all_but_the_hourglass_give_features_by_stride():
    assert SMALL.keys() == BACKBONES.keys() - {"hourglass"}
    assert QUICK.issubset(COMBINATIONS)
    assert {one for one, _ in QUICK} == SMALL.keys() and {other for _, other in QUICK} == DECODERS.keys()


@pytest.mark.parametrize(("backbone", "decoder"), PARTS)
def test_heads_of_anchors_on_any_backbone_and_decoder(backbone, decoder):
    """Folded, it gives the same."""
    config = yolo(backbone, decoder, 1 if decoder in FIXED else 3)
    model = trained_like(build_detector(config, 2, seed=0))
    expected = [(16, 24)] if decoder in FIXED else [(2, 3), (4, 6), (8, 12)]
    assert sorted(sides(model)) == expected
    images = np.random.default_rng(0).uniform(size=(1, *SIZE, 3)).astype(np.float32)
    outputs, folded = model(images, training=False), fold_batch_norm(config, 2, model)
    assert not any(isinstance(layer, BatchNorm) for layer in folded.layers)
    for one, two in zip(tf.nest.flatten(folded(images)), tf.nest.flatten(outputs), strict=True):
        scale = np.abs(two).max()
        assert np.isfinite(scale) and np.abs(one - two).max() < 1e-4 * scale


@pytest.mark.parametrize(("backbone", "decoder"), PARTS)
def test_heads_of_points_on_any_backbone_and_decoder(backbone, decoder):
    """Folded, it gives the same."""
    config = CenterNetModel(**parts(backbone, decoder), head={"head_conv": 8})
    model = trained_like(build_centernet(config, 2, seed=0))
    assert [output.shape[1:] for output in model.outputs] == [(16, 24, 2)] * 3
    # Nothing is made that the outputs do not need.
    assert {one.convolution for one in model.made} <= {layer.name for layer in model.layers}
    images = np.random.default_rng(0).uniform(size=(1, *SIZE, 3)).astype(np.float32)
    folded = build_folded_centernet(config, 2)
    fold_into(folded, model)
    for one, two in zip(folded(images), model(images, training=False), strict=True):
        scale = np.abs(two).max()
        assert np.isfinite(scale) and np.abs(one - two).max() < 1e-4 * scale


@pytest.mark.parametrize("decoder", ["tiny", "fpn", "pan"])
def test_a_fourth_level_is_at_stride_4(decoder):
    model = build_detector(yolo("resnet", decoder, 4), 2, seed=0)
    assert sorted(sides(model)) == [(2, 3), (4, 6), (8, 12), (16, 24)]


def test_other_numbers_of_levels_than_a_decoder_makes_are_an_error():
    with pytest.raises(UserError, match=r"3 given, but the deconv decoder makes 1 from this backbone \(strides \[32"):
        build_detector(yolo("resnet", "deconv", 3), 2, seed=0)


def test_the_error_says_which_strides_a_backbone_lacks():
    features = {stride: keras.Input((64 // stride, 96 // stride, 8)) for stride in (8, 16, 32)}
    model = CenterNetModel(**parts("resnet", "dla_up"))
    with pytest.raises(
        UserError, match=r"dla_up reads .*\[4, 8, 16, 32\]; the backbone has \[8, 16, 32\] and lacks \[4\]"
    ):
        maps_from(features, model.decoder, (4,), Style.of(model, 0))
    with pytest.raises(UserError, match=r"fpn reads features of strides \[4, 8, 16, 32\]; .* lacks \[4\]"):
        features_read(features, "fpn", (4,))
    with pytest.raises(UserError, match=r"deconv makes maps of strides \[4\]; the head reads \[32, 16\]"):
        features_read(features, "deconv", (32, 16))


def test_the_hourglass_goes_with_heads_of_points_alone():
    with pytest.raises(ValueError, match=r"backbone hourglass gives stacks, .* it goes with CenterNet alone"):
        YoloModel(input_size=SIZE, backbone={"type": "hourglass"}, head=yolo("resnet", "fpn", 2).head)


def test_style_is_an_option_of_the_configuration():
    """SiLU, another epsilon and momentum and PyTorch's start, as YOLOX has them."""
    style = {"norm_epsilon": 1e-3, "norm_momentum": 0.97, "activation": "swish", "initialiser": "pytorch"}
    config = yolo("cspdarknet53", "pan", 3, **style)
    model = build_detector(config, 2, seed=0)
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    assert {(layer.epsilon, layer.momentum) for layer in norms} == {(1e-3, 0.97)}
    assert {layer.activation for layer in model.layers if isinstance(layer, Activation)} == {"swish"}
    convolutions = [layer for layer in model.layers if isinstance(layer, Convolution)]
    assert all(isinstance(layer, TorchConvolution) for layer in convolutions)
    kernel = np.asarray(model.get_layer("decoder_0_1").kernel)
    limit = 1 / np.sqrt(np.prod(kernel.shape[:3]))
    assert 0.98 * limit < np.abs(kernel).max() <= limit


def test_epsilon_changes_what_a_network_computes_and_its_fold_follows():
    images = np.random.default_rng(0).uniform(size=(1, *SIZE, 3)).astype(np.float32)
    results = {}
    for epsilon in (1e-5, 1e-1):
        config = yolo("cspdarknet53", "fpn", 2, norm_epsilon=epsilon)
        model = trained_like(build_detector(config, 2, seed=0))
        results[epsilon] = model(images, training=False)[0]
        folded = fold_batch_norm(config, 2, model)(images)[0]
        scale = np.abs(results[epsilon]).max()
        assert np.abs(folded - results[epsilon]).max() < 1e-4 * scale
    assert np.abs(results[1e-5] - results[1e-1]).max() > 1e-2 * scale


def test_a_backbone_keeps_its_own_activation():
    model = build_detector(yolo("resnet", "fpn", 3), 2, seed=0)
    found = {(layer.name.split("_")[0], layer.activation) for layer in model.layers if isinstance(layer, Activation)}
    assert found == {("backbone", "relu"), ("decoder", "leaky")}


@pytest.mark.parametrize("initialiser", ["uniform", "pytorch"])
def test_weights_of_any_backbone_go_through_a_file_without_names(tmp_path, initialiser):
    """Also into a folded network, which takes the epsilon of its configuration."""
    config = yolo("resnet", "fpn", 3, initialiser=initialiser, norm_epsilon=1e-2)
    model, path = trained_like(build_detector(config, 2, seed=0)), str(tmp_path / "x.weights")
    save_weights(model, path, model_records(model))
    other = build_detector(config, 2, seed=1)
    assert load_weights(other, path, model_records(other)).complete
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)
    folded, by_file = fold_batch_norm(config, 2, model), fold_batch_norm(config, 2, build_detector(config, 2, seed=1))
    load_weights(by_file, path, model_records(by_file))
    for one, two in zip(folded.variables, by_file.variables, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("decoder", "layer"), [("deconv", "decoder_deconv_layers.0"), ("dla_up", "decoder_.*")])
def test_layers_that_no_cfg_has_do_not_go_into_darknets_files(decoder, layer):
    with pytest.raises(WeightsError, match=f"no place for the weights of {layer}"):
        model_records(build_detector(yolo("resnet", decoder, 1), 2, seed=0))


def test_weights_of_any_backbone_go_through_a_state_dict(tmp_path):
    config = CenterNetModel(**parts("cspdarknet53", "deconv"), head={"head_conv": 8})
    model, path = trained_like(build_centernet(config, 2, seed=0)), str(tmp_path / "x.pth")
    save_centernet_weights(model, path)
    other = build_centernet(config, 2, seed=1)
    assert load_centernet_weights(other, path).complete
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_two_parts_with_the_same_names_in_a_state_dict_are_an_error(tmp_path):
    config = parts("cspdarknet53", "fpn")
    config["decoder"]["block"] = config["decoder"]["coarsest"] = {"type": "csp", "layers": (3,)}
    model = build_centernet(CenterNetModel(**config), 2, seed=0)
    with pytest.raises(TorchFileError, match=r"two parts of this network have a 0_bypass.weight; take a .keras"):
        save_centernet_weights(model, str(tmp_path / "x.pth"))
