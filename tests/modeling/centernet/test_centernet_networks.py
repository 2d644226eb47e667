"""Whole networks against the original's (recorded traces; see their README): stages, heads, statistics in training."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetLoss, CenterNetModel
from losses.centernet.loss import centernet_loss
from losses.truth import Truth
from modeling.centernet.network import build_centernet, build_folded_centernet
from modeling.folding import fold_into
from modeling.weights.torch_names import torch_name
from official.core.task import Moment
from reproduction.centernet.losses import maps
from reproduction.centernet.model import Parameters, architecture, build
from reproduction.centernet.network import head_names
from reproduction.traces.case import Case
from reproduction.traces.compare import OfAbsmax, judge
from reproduction.traces.precision import precision

DCN = "_dcn_emulated"
RESDCN = {"type": "deconv", "filters": (256, 128, 64), "deformable": True}
SMALL_HOURGLASS = {"type": "hourglass", "dims": (16, 24, 32), "modules": (2, 1, 2), "pre": 8, "cnv_dim": 20}
# name of the trace -> model, classes
NETWORKS = {
    "res18": ({"backbone": {"type": "resnet"}, "decoder": {"type": "deconv"}}, 80),
    f"resdcn18{DCN}": ({"backbone": {"type": "resnet"}, "decoder": RESDCN}, 80),
    f"dla34{DCN}": ({"backbone": {"type": "dla34"}, "decoder": {"type": "dla_up"}, "head": {"head_conv": 256}}, 80),
    "hourglass_small": ({"backbone": SMALL_HOURGLASS, "head": {"head_conv": 16}}, 5),
}


def quick(*names: str, of=NETWORKS) -> list:
    """All of them as parameters, all but these marked as slow."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in of]


ARCHITECTURES = {
    **{
        f"res_{depth}": {"backbone": {"type": "resnet", "depth": depth}, "decoder": {"type": "deconv"}}
        for depth in (18, 34, 50, 101, 152)
    },
    **{f"resdcn_{depth}": {"backbone": {"type": "resnet", "depth": depth}, "decoder": RESDCN} for depth in (18, 101)},
    "dla_34 (DCN)": NETWORKS[f"dla34{DCN}"][0],
    "hourglass": {"backbone": {"type": "hourglass"}, "head": {"head_conv": 256}, "input_size": (128, 128)},
}


@pytest.fixture
def in_float64():
    with precision("float64"):
        yield


@pytest.mark.parametrize("network", quick(f"resdcn18{DCN}"))
def test_network_as_recorded(as_recorded, network):
    """Stages, heads and moving statistics; in float64 to ten digits where the record has them."""
    rows = as_recorded("centernet_network", f"{network}_trace")
    exact = [row for row in rows if re.fullmatch(r"((eval|train)_f64|f64)/\S+", row.quantity)]
    assert len(exact) > 2 * 3
    for row in exact:
        assert judge(row.metrics, OfAbsmax(bound=1e-10)).passed, row.quantity


@pytest.mark.slow
@pytest.mark.parametrize("network", quick("hourglass_small"))
def test_steps_of_adam_as_recorded(as_recorded, network):
    """Loss, gradient of every parameter, and the parameters after each step."""
    rows = as_recorded("centernet_adam", f"{network}_trace")
    compared = {row.quantity.split("/")[2] for row in rows if row.quantity.startswith("f64") and row.outcome == "pass"}
    assert compared >= {"loss", "hm_loss", "wh_loss", "off_loss", "grad", "after_adam"}


@pytest.mark.parametrize("network", quick(*NETWORKS))
def test_parts_and_sizes_are_read_from_the_parameters(golden_centernet, network):
    case = Case(golden_centernet(f"{network}_trace.npz"))
    parts, classes = architecture(Parameters.of(case).shapes())
    config, expected = NETWORKS[network]
    size = {"input_size": (128, 128)}
    assert CenterNetModel(**size, **parts) == CenterNetModel(**size | config) and classes == expected


@pytest.mark.parametrize("architecture", quick("res_50", "resdcn_18", "dla_34 (DCN)", of=ARCHITECTURES))
def test_state_dict_as_the_original_s(golden_centernet, architecture):
    """Names and shapes; without PyTorch's counters, and DLA's projections that the original makes but never uses."""
    expected = json.loads(golden_centernet("architecture_shapes.json").read_text())[architecture]["state_dict"]
    unused = ("num_batches_tracked", *(f"base.level{level}.project.{part}" for level in (3, 4) for part in (0, 1)))
    expected = {name: tuple(shape) for name, shape in expected.items() if not any(part in name for part in unused)}
    model = build_centernet(CenterNetModel(**{"input_size": (64, 96)} | ARCHITECTURES[architecture]), 80, seed=0)
    shapes = {torch_name(variable.path): variable.shape for variable in model.variables}
    shapes = {name: (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape for name, shape in shapes.items()}
    assert shapes == expected


@pytest.mark.parametrize("network", quick(f"resdcn18{DCN}", "hourglass_small"))
def test_folding_changes_nothing(in_float64, golden_centernet, network):
    case = Case(golden_centernet(f"{network}_trace.npz"))
    model, config = build(case)
    folded = build_folded_centernet(config, NETWORKS[network][1])
    fold_into(folded, model)
    assert not any("gamma" in variable.path for variable in folded.variables)
    outputs = folded(maps(case.trace, "input"), training=False)
    for output, name in zip(outputs, head_names(case.trace, "eval", len(outputs)), strict=True):
        expected = case.trace[name.replace("eval/", "eval_f64/")]
        row = case.compare(name, np.transpose(output, (0, 3, 1, 2)), OfAbsmax(bound=1e-10), expected)
        assert row.outcome == "pass", row.note


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {torch_name(variable.path): variable.numpy() for variable in model.variables}


def built(name: str, size=(64, 96), classes: int = 3, seed: int = 1) -> dict[str, np.ndarray]:
    return weights_of(build_centernet(CenterNetModel(**{"input_size": size} | ARCHITECTURES[name]), classes, seed))


@pytest.mark.parametrize(
    ("architecture", "spreads", "biases"),
    [
        ("res_18", (None, 0.001), (None, 0)),
        ("resdcn_18", (0.001, 0.001), (0, 0)),
        ("dla_34 (DCN)", (None, None), (0, 0)),
    ],
)
def test_heads_start_as_the_original_s(architecture, spreads, biases):
    """None: uniform within 1 / sqrt(fan_in), PyTorch's default."""
    weights = built(architecture)
    np.testing.assert_array_equal(weights["hm.2.bias"], np.float32(-2.19))
    for head, rules in {
        "hm": ((None, None), (None, "given")),
        "wh": (spreads, biases),
        "reg": (spreads, biases),
    }.items():
        for layer, spread, bias in zip((0, 2), *rules, strict=True):
            kernel = weights[f"{head}.{layer}.weight"]
            limit = np.float32(1 / np.sqrt(np.prod(kernel.shape[:3])))
            deviation = limit / np.sqrt(3) if spread is None else spread
            np.testing.assert_allclose(kernel.std(), deviation, rtol=0.25)
            if spread is None:
                assert np.abs(kernel).max() <= limit
            if bias is None:
                assert 0 < np.abs(weights[f"{head}.{layer}.bias"]).max() <= limit
            elif bias == 0:
                assert not weights[f"{head}.{layer}.bias"].any()


def test_upsampling_starts_as_the_original_s():
    line = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    kernel = built("resdcn_18")["deconv_layers.3.weight"]  # [4, 4, filters, channels]
    np.testing.assert_allclose(kernel[:, :, 0], np.broadcast_to(np.outer(line, line)[..., None], kernel[:, :, 0].shape))
    assert np.abs(kernel[:, :, 1:]).max() <= 1 / np.sqrt(16 * 256)
    np.testing.assert_allclose(built("res_18")["deconv_layers.0.weight"].std(), 0.001, rtol=0.01)
    kernel = built("dla_34 (DCN)")["ida_up.up_2.weight"]  # [8, 8, 1, channels]
    line = np.array([1, 3, 5, 7, 7, 5, 3, 1], np.float32) / 8
    np.testing.assert_allclose(kernel, np.broadcast_to(np.outer(line, line)[..., None, None], kernel.shape))


def test_seed_decides_the_weights():
    one, same, other = built("resdcn_18"), built("resdcn_18"), built("resdcn_18", seed=2)
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    assert np.any(one["layer1.0.conv1.weight"] != other["layer1.0.conv1.weight"])


def test_class_specific_sizes_and_no_offset():
    config = NETWORKS["hourglass_small"][0] | {"head": {"head_conv": 8, "cat_spec_wh": True, "reg_offset": False}}
    model = build_centernet(CenterNetModel(input_size=(32, 48), **config), 5, seed=0)
    assert [output.shape for output in model.outputs] == [(None, 8, 12, 5), (None, 8, 12, 10)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resdcn_18", "hourglass_small"])
def test_training_step_compiles_and_equals_eager(not_deterministic, name):
    """Network, loss with its heatmaps, and backward pass, in static shapes under XLA."""
    parts = ARCHITECTURES.get(name) or NETWORKS[name][0]
    config = CenterNetModel(**{"input_size": (32, 64)} | parts)
    model = build_centernet(config, 3, seed=0)
    boxes = np.array([[[2, 1, 9, 6], [4, 3, 5, 7]], [[0, 0, 15, 7], [np.nan] * 4]], np.float32)
    truth = Truth(tf.constant(boxes), tf.constant([[0, 2], [1, -7]]), tf.constant([[True, True], [True, False]]))
    image = tf.constant(np.random.default_rng(0).random((2, 32, 64, 3)), tf.float32)

    def step(image, truth):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
            tape.watch(weights)
            outputs, _ = model.stateless_call(weights, model.non_trainable_variables, image, training=True)
            moment = Moment(tf.constant(1, tf.int64), config.input_size)
            total, _ = centernet_loss(outputs, truth, config.head, CenterNetLoss(), moment)
        return total, tape.gradient(total, weights)

    total, gradients = tf.function(step, autograph=False, jit_compile=True)(image, truth)
    expected, expected_gradients = step(image, truth)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in expected_gradients))
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * norm)


def test_weights_survive_a_file(tmp_path):
    model = build_centernet(CenterNetModel(input_size=(32, 64), **ARCHITECTURES["resdcn_18"]), 2, seed=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    image = tf.fill([1, 32, 64, 3], 0.3)
    for one, other in zip(model(image, training=False), again(image, training=False), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bfloat16_puts_out_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_centernet(CenterNetModel(input_size=(32, 64), **ARCHITECTURES["resdcn_18"]), 2, seed=0)
        outputs = model(tf.fill([1, 32, 64, 3], 0.3), training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(output.dtype == tf.float32 and np.isfinite(output).all() for output in outputs)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_for_any_size_takes_two_sizes(network):
    """Evaluation with `resize: keep` and every export build one; DLA's decoder asked for sides that are not known."""
    parts, classes = NETWORKS[network]
    model = build_folded_centernet(CenterNetModel(input_size=(64, 96), **parts), classes, (None, None))
    for height, width in ((64, 96), (96, 64)):
        heat = tf.nest.flatten(model(tf.zeros([1, height, width, 3])))[0]
        assert heat.shape == (1, height // 4, width // 4, classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": None}, "backbone resnet goes with a decoder .the original's: deconv or dla_up., got null"),
        ({"backbone": {"type": "hourglass"}, "input_size": (128, 128)}, "hourglass goes with decoder null, got deconv"),
        ({"input_size": (64, 80)}, "multiples of 32"),
        ({"backbone": {"type": "hourglass"}, "decoder": None}, "multiples of 128"),
        ({"backbone": {"type": "hourglass", "dims": (8, 8)}, "decoder": None}, "modules has 6 numbers, dims 2"),
    ],
)
def test_parts_that_do_not_fit_are_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        CenterNetModel(**{"input_size": (64, 96)} | NETWORKS["res18"][0] | change)


def test_no_class_is_an_error():
    with pytest.raises(ValueError, match="at least one class"):
        build_centernet(CenterNetModel(input_size=(64, 96), **NETWORKS["res18"][0]), 0, seed=0)
