"""A network built from a cfg, and any Keras model, beside a trace: sound, and with mistakes planted in layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.darknet import sections
from modeling.darknet.cfg import parse_cfg
from official.core.errors import UserError
from reproduction.traces.align import AlignError, align, cfg_names, read_map
from reproduction.traces.case import Case
from reproduction.traces.compare import CompareError
from reproduction.traces.trace import Layout, Source, Trace, read_trace, write_trace
from reproduction.traces.walk import first_divergence, keras_walk, layer_tensors
from reproduction.yolo.case import network_of
from reproduction.yolo.inference import inference
from reproduction.yolo.rebuilt import Rebuilt
from reproduction.yolo.walk import darknet_walk, recorded_parameters

CFG = """
[net]
width=24
height=16
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=6
size=3
stride=1
pad=1
activation=mish
[maxpool]
size=2
stride=1
[route]
layers=-1,-3
[convolutional]
batch_normalize=1
filters=6
size=1
activation=leaky
[shortcut]
from=-4
activation=leaky
[upsample]
stride=2
[convolutional]
filters=5
size=3
pad=1
activation=linear
"""
LAYERS = [f"L{index:03d}_output" for index in range(8)]


def record(path, seed: int = 3) -> None:
    """A trace of CFG as Darknet would write it, of images that are not square, by our own sound network."""
    random = np.random.default_rng(seed)
    network = parse_cfg(CFG, "test.cfg")
    bare = Trace({"meta/cfg": np.array(CFG)}, "memory")
    case = Case(path)
    case.__dict__.update(trace=bare, network=network)
    rebuilt = Rebuilt.fresh(case)
    for variable in rebuilt.graph.model.variables:
        low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.7
        variable.assign(random.uniform(low, 1.3, variable.shape))
    image = random.uniform(0, 1, (2, 16, 24, 3)).astype(np.float32)
    outputs = rebuilt.all_outputs(tf.constant(image), training=False)
    outputs = [rebuilt.in_darknets_form(output) for output in outputs]
    arrays = {"meta/cfg": np.array(CFG), "X": image.transpose(0, 3, 1, 2)}
    arrays |= {f"init/{name}": array for name, array in rebuilt.parameters().items()}
    arrays |= dict(zip(LAYERS, outputs, strict=True))
    write_trace(path, arrays, Source(program="test"), {name: Layout(layout="NCHW") for name in ["X", *LAYERS]})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("walk") / "case.npz"
    record(path)
    return path


@pytest.fixture
def walk(recorded):
    case = Case(recorded)
    return darknet_walk(Rebuilt.of(case), recorded_parameters(case))


def failing(rows) -> list[str]:
    return [row.quantity for row in rows if row.outcome == "fail"]


def layer(walk, name: str) -> keras.Layer:
    return keras.Model(walk.inputs[0].tensor, walk.places[-1].tensor).get_layer(name)


def test_a_sound_network_passes_whole_and_alone(walk):
    rows = [*walk.whole(), *walk.alone()]
    assert [row.quantity for row in rows] == [*LAYERS, *(f"alone/{name}" for name in LAYERS)]
    assert {row.outcome for row in rows} == {"pass"}


def test_two_mistakes_are_both_found(walk):
    """Whole names the first and all that follows; alone, each layer answers for itself."""
    norm = layer(walk, "L000_convolutional_norm")
    norm.moving_variance.assign_add(np.full(6, 1e-3 - 1e-5))  # an epsilon of 1e-3
    bias = next(v for v in layer(walk, "L001_convolutional").trainable_variables if "bias" in v.path)
    bias.assign(np.zeros(6))
    whole, alone = list(walk.whole()), list(walk.alone())
    assert failing(whole) == LAYERS
    assert failing(alone) == ["alone/L000_output", "alone/L001_output"]
    causes = {row.quantity: row.hints[0].cause for row in [*whole, *alone] if row.hints}
    assert causes == {
        "L000_output": "batch_norm_epsilon",
        "alone/L000_output": "batch_norm_epsilon",
        "alone/L001_output": "bias_missing",
    }


def test_the_second_mistake_is_found_behind_layers_without_one(walk):
    layer(walk, "L001_convolutional").kernel.assign_add(np.full((3, 3, 6, 6), 0.01))
    norm = layer(walk, "L004_convolutional_norm")
    norm.gamma.assign(-norm.gamma)
    assert failing(walk.whole())[0] == "L001_output"
    assert failing(walk.alone()) == ["alone/L001_output", "alone/L004_output"]


def test_bisection_along_the_network(walk):
    assert walk.bisect() is None
    layer(walk, "L004_convolutional").kernel.assign_add(np.full((1, 1, 12, 6), 0.01))
    found = walk.bisect()
    assert (found.layer, found.last_good) == ("L004_output", "L003_output") and found.recordings <= 4


def changed(recorded, tmp_path, edit):
    """A case with `edit(arrays)` applied to what was recorded, without a manifest."""
    with np.load(recorded) as file:
        arrays = {name: file[name] for name in file.files}
    edit(arrays)
    np.savez(tmp_path / "case.npz", **arrays)
    return Case(tmp_path / "case.npz")


def test_another_shape_fails_and_is_never_transposed(recorded, tmp_path):
    def edit(arrays):
        arrays["L002_output"] = arrays["L002_output"].swapaxes(2, 3)

    case = changed(recorded, tmp_path, edit)
    walk = darknet_walk(Rebuilt.of(case), recorded_parameters(case))
    whole, alone = list(walk.whole()), list(walk.alone())
    assert failing(whole) == ["L002_output"]
    assert failing(alone) == ["alone/L002_output", "alone/L003_output"]  # its own, and what would be given it
    (note,) = [row.note for row in whole if row.outcome == "fail"]
    assert "expected shape (2, 6, 12, 8), ours is (2, 6, 8, 12)" in note
    assert "ours is" in next(row.note for row in alone if row.quantity == "alone/L003_output")


def test_what_was_not_recorded_fails_whole_and_is_bridged_alone(recorded, tmp_path):
    case = changed(recorded, tmp_path, lambda arrays: arrays.pop("L003_output"))
    walk = darknet_walk(Rebuilt.of(case), recorded_parameters(case))
    (row,) = [row for row in walk.whole() if row.outcome != "pass"]
    assert (row.quantity, row.note) == ("L003_output", "not recorded")
    assert [row.quantity for row in walk.alone()] == [f"alone/{name}" for name in LAYERS if name != "L003_output"]
    assert not failing(walk.alone())


@pytest.mark.slow
def test_every_layer_of_a_recorded_detector(golden, shared):
    case = Case(golden("infer/yolo-fastest-1.1_96x64_all_layers.npz"), "", shared / "assets")
    rows = list(inference(case))
    assert {row.outcome for row in rows} == {"pass"}
    layers = zip(network_of(case).layers, Rebuilt.fresh(case).graph.outputs, strict=True)
    tensors = {id(tensor) for layer, tensor in layers if not isinstance(layer, sections.HEAD_SECTIONS)}
    assert sum(row.quantity.startswith("alone/") for row in rows) == len(tensors) > 100


def test_names_of_a_network_built_from_a_cfg(golden):
    """Without a map the Keras layers of a cfg are paired with Darknet's numbers."""
    rebuilt = Rebuilt.fresh(Case(golden("layers/conv_share_index.npz")))
    names = cfg_names(rebuilt.graph.model)
    tensors = layer_tensors(rebuilt.graph.model)
    graph = {f"L{index:03d}_output": tensor for index, tensor in enumerate(rebuilt.graph.outputs)}
    assert names and all(tensors[ours] is graph[theirs] for ours, theirs in names.items())


def small_model() -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((10, 14, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(image)
    y = keras.layers.Conv2D(4, 3, padding="same", name="branch")(x)
    x = keras.layers.Add(name="sum")([x, y])
    return keras.Model(image, keras.layers.Conv2D(2, 1, name="head")(x))


def trace_of(path, model, layouts=True):
    """Recorded in NCHW, as PyTorch would."""
    image = np.random.default_rng(5).normal(size=(1, 10, 14, 3)).astype(np.float32)
    tensors = layer_tensors(model)
    names = [name for name in tensors if name != "image"]
    outputs = keras.Model(model.inputs, [tensors[name] for name in names])([image])
    arrays = {"image": image, **{name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}}
    arrays = {name: array.transpose(0, 3, 1, 2) for name, array in arrays.items()}
    write_trace(path, arrays, layouts={name: Layout(layout="NCHW") for name in arrays} if layouts else {})


def test_any_keras_model_beside_a_trace_in_another_layout(tmp_path):
    model = small_model()
    trace_of(tmp_path / "case.npz", model)
    walk, alignment = keras_walk(model, Case(tmp_path / "case.npz"), {}, ["image"])
    assert list(alignment.pairs) == ["stem", "branch", "sum", "head"] and not alignment.unused
    assert not failing([*walk.whole(), *walk.alone()])
    kernel = model.get_layer("branch").kernel
    kernel.assign(kernel * 1.5)
    assert failing(walk.whole()) == ["branch", "sum", "head"]
    assert failing(walk.alone()) == ["alone/branch"]


def test_without_a_layout_the_sides_are_not_guessed(tmp_path):
    model = small_model()
    trace_of(tmp_path / "case.npz", model, layouts=False)
    walk, _ = keras_walk(model, Case(tmp_path / "case.npz"), {}, ["image"])
    with pytest.raises(AlignError, match=r"image: recorded with shape \(1, 3, 10, 14\).*it would fit as NCHW"):
        list(walk.whole())


def test_names_by_a_map(tmp_path):
    trace = Trace({"a": np.zeros((1, 2, 3)), "b.conv": np.zeros((1, 4, 5))}, "theirs")
    ours = {"first": (None, 2, 3), "b_conv": (None, 4, 5)}
    found = align(ours, trace, {"first": "a"})
    assert found.pairs == {"first": "a"} and found.unused == ("b.conv",)
    assert found.suggestions == {"b_conv": ("b.conv",)} and "# b_conv: b.conv" in found.as_yaml()
    (tmp_path / "map.yaml").write_text("first: a\nb_conv: b.conv\n")
    assert align(ours, trace, read_map(tmp_path / "map.yaml")).unused == ()
    with pytest.raises(AlignError, match="names 'c', which theirs does not have"):
        align(ours, trace, {"first": "c"})
    with pytest.raises(AlignError, match="our model does not have; the nearest: first"):
        align(ours, trace, {"firts": "a"})
    with pytest.raises(AlignError, match="to two of ours"):
        align(ours, trace, {"first": "a", "b_conv": "a"})
    (tmp_path / "bad.yaml").write_text("- first\n")
    with pytest.raises(AlignError, match="expected a mapping"):
        read_map(tmp_path / "bad.yaml")


@pytest.mark.parametrize("wrong_from", [0, 1, 37, 63])
def test_bisection_finds_the_first_layer(wrong_from):
    names = [f"layer{number}" for number in range(64)]
    asked = []

    def theirs(name):
        asked.append(name)
        return np.full((2, 3), names.index(name) + 1.0)

    def ours(name):
        return theirs(name) * (1 + 1e-3 * (names.index(name) >= wrong_from))

    found = first_divergence(ours, theirs, names)
    assert found.layer == names[wrong_from]
    assert found.last_good == (names[wrong_from - 1] if wrong_from else None)
    assert found.recordings == len(asked) / 2 <= 7


def test_bisection_of_what_agrees_or_does_not_fit():
    assert first_divergence(lambda name: np.ones(2), lambda name: np.ones(2), ["a", "b"]) is None
    with pytest.raises(CompareError, match="no layer"):
        first_divergence(str, str, [])
    with pytest.raises(UserError, match="another layout"):
        first_divergence(lambda name: np.ones((2, 3)), lambda name: np.ones((3, 2)), ["a"])


def test_the_recorded_trace_reads_back(recorded):
    trace = read_trace(recorded)
    assert trace.source.program == "test" and trace.layout("X") == "NCHW"
