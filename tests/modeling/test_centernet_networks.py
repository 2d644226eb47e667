"""Whole networks against the original's (recorded traces; see their README): stages, heads, statistics in training."""

import json
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.centernet import CenterNetHead, CenterNetLoss, CenterNetModel
from losses.centernet import centernet_loss, loss_against
from losses.centernet_targets import Targets, Truth
from modeling.centernet import build_centernet, build_folded_centernet, fold_centernet_into
from modeling.heads.centernet import stacks_of
from modeling.layers.batch_norm import EPSILON, BatchNorm
from modeling.torch_names import from_torch, to_torch, torch_name
from official.core.task import Moment

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
# The original's stages whose layer here has another name: Sequentials are named by their last part.
LAST_PART = {
    **{f"layer{number}": f"layer{number}.1" for number in range(1, 5)},
    **{f"base.level{number}": f"base.level{number}.root" for number in (2, 5)},
    **{f"base.level{number}": f"base.level{number}.tree2.root" for number in (3, 4)},
    "pre": "pre.1",
    "kps.0.up1": "kps.0.up1.1",
    "kps.0.low1": "kps.0.low1.1",
    "kps.0.low3": "kps.0.low3.1",
    "kps.0.low2.low2": "kps.0.low2.low2.1",
}


def regenerated(name: str, shape: list[int], kind: str, salt: str) -> np.ndarray:
    """The parameter of this name, by the rule the traces' README gives."""
    draw = np.random.RandomState(zlib.crc32((salt + name).encode())).uniform(-1, 1, int(np.prod(shape))).reshape(shape)
    per_filter = np.prod(shape[1:])
    rules = {
        "conv": lambda u: u * np.sqrt(6 / per_filter),
        "deconv": lambda u: u * np.sqrt(6 / (shape[0] * shape[2] ** 2 / 4)),
        "updeconv": lambda u: (0.5 * u + 1) / 4,
        "last": lambda u: u * np.sqrt(3 / per_filter),
        "gamma": lambda u: 1 + 0.4 * u,
        "beta": lambda u: 0.2 * u,
        "mean": lambda u: 0.1 * u,
        "var": lambda u: 1 + 0.5 * u,
        "bias": lambda u: 0.1 * u,
        "hm_bias": lambda u: np.full(shape, -2.19),
    }
    value = rules[kind](draw).astype(np.float32)
    return value * np.float32(0.4) if name.endswith("conv_offset_mask.weight") else value


def load_recorded(model: keras.Model, golden_centernet, network: str) -> None:
    params = json.loads(golden_centernet(f"{network}_params.json").read_text())
    for variable in model.variables:
        name = torch_name(variable.path)
        rule = params["rule"][name]
        value = regenerated(name, rule["shape"], rule["kind"], params["salt"])
        np.testing.assert_array_equal(value.ravel()[:3], rule["first3"])
        variable.assign(from_torch(value))


def recorded(golden_centernet, network: str):
    """(model with the recorded weights, the same with every recorded stage as output, trace, stages)."""
    trace = np.load(golden_centernet(f"{network}_trace.npz"))
    config, classes = NETWORKS[network]
    model = build_centernet(CenterNetModel(**{"input_size": trace["input"].shape[2:]} | config), classes, seed=0)
    load_recorded(model, golden_centernet, network)
    stages = [name.split("/", 2)[2] for name in trace.files if name.startswith("eval/stage/")]
    outputs = [model.get_layer(layer_name(stage)).output for stage in stages]
    return model, keras.Model(model.inputs, outputs + model.outputs), trace, stages


def layer_name(stage: str) -> str:
    part = "decoder" if stage.startswith(("deconv_layers", "dla_up", "ida_up")) else "backbone"
    return f"{part}_{LAST_PART.get(stage, stage)}"


def heads_of(trace, moment: str) -> list[np.ndarray]:
    """The recorded heads in the order of our outputs."""
    stacks = sorted({name.split("/")[1] for name in trace.files if name.startswith(f"{moment}/stack")}) or [""]
    names = [f"{moment}/{stack}/{head}".replace("//", "/") for stack in stacks for head in ("hm", "wh", "reg")]
    return [trace[name] for name in names]


def assert_close(actual, expected: np.ndarray, what: str, tolerance: float = 1e-4) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, what
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"{what}: {error:.2e} of the largest value"


@pytest.fixture
def in_float64(monkeypatch):
    """Networks that are built now compute in float64, batch-norm too, whose fused operation has no float64."""

    def fused(self, inputs, mean, variance, is_training):
        mean, variance = (
            tf.nn.moments(inputs, [0, 1, 2]) if is_training else map(tf.convert_to_tensor, (mean, variance))
        )
        scale = tf.convert_to_tensor(self.gamma) / tf.sqrt(variance + EPSILON)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float64)
        outputs = (inputs - mean) * scale + tf.convert_to_tensor(self.beta)
        return outputs, mean, variance * count / (count - 1)

    monkeypatch.setattr(BatchNorm, "_fused", fused)
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


# In evaluation DLA's activations reach 1000, and its float32 record is itself 1.3e-4 to 2.5e-4 from float64 in these
# stages. The heads behind them are recorded in float64 and compared there.
WRONG_IN_FLOAT32 = {"dla_up.ida_1.node_2.actf", "ida_up.node_1.actf", "ida_up.node_2.actf"}


def assert_network_as_recorded(golden_centernet, network: str, of_heads: float) -> None:
    model, staged, trace, stages = recorded(golden_centernet, network)
    image = tf.constant(trace["input"].transpose(0, 2, 3, 1))
    for moment, training in (("eval", False), ("train", True)):
        outputs = [np.transpose(part, (0, 3, 1, 2)) for part in staged(image, training=training)]
        for stage, output in zip(stages, outputs, strict=False):
            if network == f"dla34{DCN}" and moment == "eval" and stage in WRONG_IN_FLOAT32:
                continue
            assert_close(output, trace[f"{moment}/stage/{stage}"], f"{moment} {stage}")
        for output, expected in zip(outputs[len(stages) :], heads_of(trace, f"{moment}_f64"), strict=True):
            assert_close(output, expected, f"{moment} head", of_heads)
    statistics = [variable for variable in model.variables if "moving" in variable.path]
    assert len(statistics) == 2 * sum("gamma" in variable.path for variable in model.variables)
    for variable in statistics:
        expected = trace[f"f64/after_train_forward/{torch_name(variable.path)}"]
        assert_close(variable, expected, f"after training: {variable.path}", of_heads)


@pytest.mark.parametrize("network", quick("res18", f"resdcn18{DCN}", "hourglass_small"))
def test_network_as_recorded_in_float64(in_float64, golden_centernet, network):
    assert_network_as_recorded(golden_centernet, network, of_heads=1e-10)


@pytest.mark.parametrize("network", [name for name in quick("res18") if "dla34" not in name.values[0]])
def test_network_as_recorded_in_float32(golden_centernet, network):
    """DLA's float32 record is 1.7e-4 from its own float64 in the heads; only float64 can be compared there."""
    assert_network_as_recorded(golden_centernet, network, of_heads=1e-4)


@pytest.mark.parametrize("network", quick("hourglass_small"))
def test_loss_and_gradient_as_recorded(in_float64, golden_centernet, network):
    """Of every parameter; the loss is float32, the network float64."""
    model, _, trace, _ = recorded(golden_centernet, network)
    targets = Targets(
        hm=tf.constant(trace["target/hm"].transpose(0, 2, 3, 1)),
        wh=tf.constant(trace["target/wh"]),
        reg=tf.constant(trace["target/reg"]),
        ind=tf.constant(trace["target/ind"], tf.int32),
        reg_mask=tf.constant(trace["target/reg_mask"].astype(bool)),
        classes=tf.zeros(trace["target/ind"].shape, tf.int32),
    )
    with tf.GradientTape() as tape:
        outputs = model(tf.constant(trace["input"].transpose(0, 2, 3, 1)), training=True)
        stacks = stacks_of([tf.cast(output, tf.float32) for output in outputs], CenterNetHead())
        total, parts = loss_against(stacks, targets, None, CenterNetHead(), CenterNetLoss())
    for name, value in {"loss": total, **parts}.items():
        if name != "objects":
            np.testing.assert_allclose(value, trace[f"f64/step0/{name}"], rtol=1e-5)
    gradients = tape.gradient(total, [variable.value for variable in model.trainable_variables])
    names = [torch_name(variable.path) for variable in model.trainable_variables]
    recorded_names = {name.split("/", 3)[3] for name in trace.files if name.startswith("f64/step0/grad/")}
    assert set(names) == recorded_names
    for name, gradient in zip(names, gradients, strict=True):
        flat, expected = to_torch(gradient.numpy()).ravel(), trace[f"f64/step0/grad/{name}"]
        chosen = flat[trace[f"sample_idx/{name}"]] if f"sample_idx/{name}" in trace else flat
        if np.abs(expected).max() < 1e-12:  # of a bias before batch-norm, which takes it out again
            assert np.abs(chosen).max() < 1e-9
        else:
            assert_close(chosen, expected.ravel(), f"gradient of {name}")


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
    model, _, trace, _ = recorded(golden_centernet, network)
    config, classes = NETWORKS[network]
    folded = build_folded_centernet(CenterNetModel(**{"input_size": trace["input"].shape[2:]} | config), classes)
    fold_centernet_into(folded, model)
    assert not any("gamma" in variable.path for variable in folded.variables)
    outputs = folded(tf.constant(trace["input"].transpose(0, 2, 3, 1)), training=False)
    for output, expected in zip(outputs, heads_of(trace, "eval_f64"), strict=True):
        assert_close(np.transpose(output, (0, 3, 1, 2)), expected, "head", 1e-10)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": None}, "backbone resnet goes with decoder deconv, got null"),
        ({"decoder": {"type": "dla_up"}}, "goes with decoder deconv, got dla_up"),
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
