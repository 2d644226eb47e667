"""Detectors from parts: the originals' shapes and number of weights, names, seeds, precision, folding."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.folding import fold_into
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from modeling.yolo.network import build_detector, build_folded, fold_batch_norm
from tests.modeling.trained import compiled_step, trained_like

SIZE = (96, 160)  # (height, width)
# cfg -> backbone, levels, lateral, classes
CFGS = {
    "yolov3-tiny.cfg": ("yolov3_tiny", 2, "half_of_skip", 80),
    "yolov4-tiny.cfg": ("yolov4_tiny", 2, "half_of_skip", 80),
    "yolov3-tiny_3l.cfg": ("yolov3_tiny", 3, "half_of_incoming", 2),
    "yolov4-tiny-3l.cfg": ("yolov4_tiny", 3, "half_of_skip", 80),
}


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("cfg", CFGS)
def test_shapes_and_number_of_weights_are_the_cfgs(golden, yolo_model, cfg):
    path = golden("misc/layer_shapes_all_detector_cfgs.json")
    recorded = json.loads(path.read_text())["cfgs"][f"cfg/{cfg}"]
    backbone, levels, lateral, classes = CFGS[cfg]
    model = build_detector(yolo_model(backbone, levels, SIZE, lateral=lateral), classes, seed=0)
    _, net_height, net_width = recorded["net"]
    expected = [
        (channels, height * SIZE[0] // net_height, width * SIZE[1] // net_width, weights)
        for _, kind, channels, height, width, _, weights in recorded["layers"]
        if kind == "convolutional"
    ]
    weights = {variable.path: int(np.prod(variable.shape)) for variable in model.variables}
    actual = []
    for name in [one.convolution for one in model.made]:
        _, height, width, channels = model.get_layer(name).output.shape
        own = [count for path, count in weights.items() if path.split("/")[0] in (name, f"{name}_norm")]
        actual.append((channels, height, width, sum(own)))
    assert actual == expected
    assert model.count_params() == recorded["weight_floats_before_sharing"]


@pytest.mark.parametrize("backbone", ["yolov3_tiny", "yolov4_tiny"])
@pytest.mark.parametrize("levels", [2, 3])
def test_raw_outputs_are_coarsest_first(yolo_model, backbone, levels):
    model = build_detector(yolo_model(backbone, levels, SIZE, width=0.25), num_classes=4, seed=0)
    images = np.random.default_rng(0).uniform(size=(2, *SIZE, 3)).astype(np.float32)
    outputs = model(images)
    assert [tuple(raw.shape) for raw in outputs] == [(2, 3, 5, 3, 9), (2, 6, 10, 3, 9), (2, 12, 20, 3, 9)][:levels]
    assert all(raw.dtype == tf.float32 for raw in outputs)
    assert model.input.name == "image"


def test_channels_of_a_cell_are_anchor_major(yolo_model):
    """Darknet's channel is anchor * (5 + classes) + entry."""
    model = build_detector(yolo_model("yolov4_tiny", width=0.25), num_classes=4, seed=0)
    model.get_layer("head_0").bias.assign(tf.range(27, dtype=tf.float32))
    model.get_layer("head_0").kernel.assign(tf.zeros_like(model.get_layer("head_0").kernel))
    raw = model(tf.zeros((2, 64, 96, 3)))[0]
    np.testing.assert_array_equal(raw[1, 1, 2], np.arange(27).reshape(3, 9))


def test_width_scales_every_filter_to_multiples_of_eight(yolo_model):
    for width in (0.1, 0.3, 0.5, 1.5):
        model = build_detector(yolo_model("yolov4_tiny", 3, width=width), num_classes=4, seed=0)
        convolutions = [layer for layer in model.layers if isinstance(layer, Convolution)]
        filters = [layer.filters for layer in convolutions if not layer.name.startswith("head")]
        assert all(count % 8 == 0 and count >= 8 for count in filters)
        assert model.get_layer("backbone_conv14").filters == max(8, round(512 * width / 8) * 8)


def test_every_layer_with_weights_is_named_after_its_part(yolo_model):
    model = build_detector(yolo_model("yolov3_tiny", 3), num_classes=4, seed=0)
    for layer in model.layers:
        if layer.variables:
            assert layer.name.startswith(("backbone_", "decoder_", "head_"))
            assert all(variable.path.startswith(f"{layer.name}/") for variable in layer.variables)
    assert len({variable.path for variable in model.variables}) == len(model.variables)


def test_seed_decides_the_weights_and_names_survive_a_second_build(yolo_model):
    config = yolo_model("yolov4_tiny", width=0.25)
    one, same, other = (build_detector(config, 4, seed) for seed in (1, 1, 2))
    assert [v.path for v in one.variables] == [v.path for v in same.variables]
    for a, b, c in zip(one.variables, same.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)
        if "kernel" in a.path:
            assert not np.array_equal(a, c)


def test_initial_weights_are_darknets(yolo_model):
    model = build_detector(yolo_model("yolov4_tiny"), num_classes=80, seed=0)
    for layer in model.layers:
        if isinstance(layer, Convolution):
            kernel = np.asarray(layer.kernel)
            limit = np.sqrt(2 / np.prod(kernel.shape[:3]))
            assert 0.98 * limit < np.abs(kernel).max() <= limit
            assert abs(kernel.std() - limit / np.sqrt(3)) < 0.05 * limit
    np.testing.assert_array_equal(model.get_layer("head_0").bias, np.zeros(255))


def test_bfloat16_computes_in_bfloat16_and_predicts_in_float32(yolo_model, bfloat16):
    model = build_detector(yolo_model("yolov4_tiny", width=0.25), num_classes=4, seed=0)
    outputs = model(np.random.default_rng(0).uniform(size=(2, 64, 96, 3)).astype(np.float32), training=True)
    assert all(raw.dtype == tf.float32 for raw in outputs)
    assert model.get_layer("backbone_conv05").output.dtype == "bfloat16"
    assert model.get_layer("head_1").output.dtype == "float32"
    assert {variable.dtype for variable in model.variables} == {"float32"}


@pytest.mark.parametrize("backbone", ["yolov3_tiny", "yolov4_tiny"])
def test_folding_keeps_the_outputs_and_leaves_no_batch_norm(yolo_model, backbone):
    config = yolo_model(backbone, 3, width=0.5)
    model = build_detector(config, num_classes=4, seed=0)
    trained_like(model)
    folded = fold_batch_norm(config, 4, model)
    assert not any(isinstance(layer, BatchNorm) for layer in folded.layers)
    assert {variable.path.split("/")[-1] for variable in folded.variables} == {"kernel", "bias"}
    images = np.random.default_rng(3).uniform(size=(2, 64, 96, 3)).astype(np.float32)
    for expected, actual in zip(model(images, training=False), folded(images), strict=True):
        assert np.abs(actual - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def test_one_folded_model_takes_the_weights_of_one_trained_model_after_another(yolo_model):
    config = yolo_model("yolov4_tiny", width=0.25)
    model, folded = build_detector(config, num_classes=4, seed=0), build_folded(config, 4)
    images = np.random.default_rng(3).uniform(size=(2, 64, 96, 3)).astype(np.float32)
    compiled = tf.function(lambda images: folded(images), autograph=False)
    for seed in (1, 2):
        trained_like(model, seed)
        fold_into(folded, model)
        for expected, actual in zip(model(images, training=False), compiled(images), strict=True):
            assert np.abs(actual - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def test_folding_another_network_is_an_error(yolo_model):
    model = build_detector(yolo_model("yolov4_tiny", width=0.25), num_classes=4, seed=0)
    with pytest.raises(ValueError, match=r"head_0/kernel is .* class count"):
        fold_batch_norm(yolo_model("yolov4_tiny", width=0.25), 5, model)
    with pytest.raises(ValueError, match="no weight decoder_2_reduce/kernel"):
        fold_batch_norm(yolo_model("yolov4_tiny", 3, width=0.25), 4, model)


@pytest.mark.parametrize("levels", [1, 5])
def test_impossible_number_of_levels_is_an_error(yolo_model, levels):
    config = yolo_model("yolov4_tiny", 1)
    head = config.head.model_copy(update={"levels": config.head.levels * levels})
    with pytest.raises(ValueError, match=f"{levels} given, but the tiny decoder makes 2 to 4"):
        build_detector(config.model_copy(update={"head": head}), 4, seed=0)


def test_no_class_is_an_error(yolo_model):
    with pytest.raises(ValueError, match="at least one class"):
        build_detector(yolo_model("yolov4_tiny"), 0, seed=0)


@pytest.mark.parametrize("backbone", ["yolov3_tiny", "yolov4_tiny"])
@pytest.mark.slow  # the whole step is compiled in tests/tasks/yolo/test_yolo_step.py
def test_train_step_graph_compiles(yolo_model, not_deterministic, backbone):
    """Forward and backward under XLA: the cheap proof that every shape is static."""
    model = build_detector(yolo_model(backbone, 3, width=0.25, norm="sync"), num_classes=4, seed=0)
    moving = [np.array(variable) for variable in model.non_trainable_variables]
    gradients, moved = compiled_step(model)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    assert not np.array_equal(moved[0], moving[0])
