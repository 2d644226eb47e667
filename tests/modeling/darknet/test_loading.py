"""Darknet's parameters in Keras models, built from a cfg or from parts, and back; conversion between file formats."""

import contextlib

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.darknet.build import build_network
from modeling.darknet.cfg import parse_cfg, read_cfg
from modeling.darknet.loading import load_into, load_weights, model_records, save_weights
from modeling.darknet.weights import (
    Header,
    WeightsError,
    WeightsFile,
    cut_weights,
    network_records,
    read_weights,
    write_weights,
)
from modeling.weights.keras_file import KerasFileError
from modeling.yolo.network import build_detector, build_folded, fold_batch_norm
from official.core.errors import UserError

SIZE = (64, 96)  # (height, width)
# One of every layer with weights; local, connected and reshaped layers would show a wrong order of axes.
KINDS = (
    "[net]\nwidth=12\nheight=10\nchannels=2\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\ngroups=4\nstride=2\nactivation=mish\n"
    "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n"
    "[convolutional]\nfilters=4\nsize=1\nshare_index=2\nactivation=swish\n"
    "[shortcut]\nfrom=-2\nweights_type=per_channel\nweights_normalization=relu\n"
    "[batchnorm]\n"
    "[local]\nfilters=3\nsize=3\npad=1\nactivation=leaky\n"
    "[connected]\noutput=5\nbatch_normalize=1\nactivation=linear\n"
)
# cfg -> backbone, levels, lateral
PARTS = {
    "yolov3-tiny": ("yolov3_tiny", 2, "half_of_skip"),
    "yolov4-tiny": ("yolov4_tiny", 2, "half_of_skip"),
    "yolov3-tiny_3l": ("yolov3_tiny", 3, "half_of_incoming"),
    "yolov4-tiny-3l": ("yolov4_tiny", 3, "half_of_skip"),
}


def random_weights(records, seed=0):
    draw = np.random.default_rng(seed)
    values = {}
    for record in records:
        values[record.name] = {}
        for name, shape in record.parameters.items():
            scale = (2 / np.prod(shape[1:])) ** 0.5 if name == "weights" else 0.1
            value = draw.normal(size=shape) * scale
            value = 1 + np.abs(value) if name in ("scales", "rolling_variance") else value
            values[record.name][name] = value.astype(np.float32)
    return WeightsFile(Header(seen=640), values)


@pytest.fixture
def kinds(tmp_path):
    """A network with one of every layer with weights, its records, and a file of weights for it."""
    (tmp_path / "x.cfg").write_text(KINDS)
    network = read_cfg(str(tmp_path / "x.cfg"))
    records = network_records(network)
    write_weights(str(tmp_path / "x.weights"), random_weights(records), records)
    return network, records, tmp_path


def images(*size):
    return np.random.default_rng(1).uniform(size=(2, *size)).astype(np.float32)


def outputs(model, batch):
    return [np.asarray(output) for output in keras.tree.flatten(model(batch, training=False))]


def test_a_model_gives_back_what_it_was_given(kinds):
    network, records, folder = kinds
    model = build_network(network, seed=3).model
    loaded = load_weights(model, str(folder / "x.weights"), records)
    assert loaded.examples_seen == 640
    assert loaded.report.startswith("loaded 7 of 7 layers with weights")
    save_weights(model, str(folder / "y.weights"), records, seen=640)
    assert (folder / "y.weights").read_bytes() == (folder / "x.weights").read_bytes()


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_folded_models_take_the_same_file(kinds, epsilon):
    network, records, folder = kinds
    batch = images(10, 12, 2)
    results = []
    for norm in ("local", "folded"):
        model = build_network(network, seed=3, norm=norm, norm_epsilon=epsilon).model
        load_weights(model, str(folder / "x.weights"), records)
        results.append(outputs(model, batch)[0])
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)
    with pytest.raises(WeightsError, match="L000_convolutional: its batch-norm is folded into its kernel"):
        save_weights(model, str(folder / "y.weights"), records)


def test_damaged_and_foreign_keras_files(kinds):
    network, records, folder = kinds
    build_network(network, seed=3).model.save_weights(str(folder / "x.weights.h5"))
    content = bytearray((folder / "x.weights.h5").read_bytes())
    (folder / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    (folder / "none.keras").write_bytes(b"no zip file")
    small = parse_cfg(KINDS.replace("output=5", "output=6"), "small.cfg")
    fewer = parse_cfg(KINDS.partition("[connected]")[0], "fewer.cfg")
    whole, cut = "x.weights.h5", "cut.weights.h5"
    for other, name, says in [
        (network, cut, "cannot read this file of weights"),
        (network, "none.keras", "cannot read this file of weights: File is not a zip file"),
        (network, "missing.keras", "cannot read this file of weights"),
        (small, whole, r"layer L007_connected has arrays of shape \[\(90, 5\)\]; the network has \[\(90, 6\)\]"),
        (fewer, whole, r"it lacks 0 layers \(\) and has 2 others \(L007_connected, L007_connected_norm\)"),
    ]:
        model = build_network(other, seed=0).model
        before = [np.asarray(variable) for variable in model.variables]
        with pytest.raises(KerasFileError, match=f"{name}: .*{says}"):
            load_weights(model, str(folder / name), records)
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_keras_file_with_flipped_bits(whole_file, place, bit):
    """A .weights.h5 file has no checksums: HDF5 may read another number."""
    model, path, records = whole_file
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.with_name("damaged.keras").write_bytes(content)
    before = [np.asarray(variable) for variable in model.variables]
    with contextlib.suppress(UserError):
        load_weights(model, str(path.with_name("damaged.keras")), records)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    network = parse_cfg(KINDS, "x.cfg")
    model = build_network(network, seed=0).model
    path = tmp_path_factory.mktemp("whole") / "x.keras"
    model.save(path)
    return model, path, network_records(network)


def test_damaged_values_and_foreign_models_change_nothing(kinds):
    network, records, folder = kinds
    model = build_network(network, seed=0).model
    before = [np.asarray(variable) for variable in model.variables]
    weights = read_weights(str(folder / "x.weights"), records)
    last = weights.values["L007_connected"]
    for name, value in [("weights", np.nan), ("biases", np.inf), ("rolling_variance", -1.0)]:
        damaged = {name: np.where(np.arange(last[name].size).reshape(last[name].shape) == 3, value, last[name])}
        values = weights.values | {"L007_connected": last | {name: damaged[name].astype(np.float32)}}
        with pytest.raises(
            WeightsError, match=f"x: {name} of L007_connected hold NaN, infinity or a negative variance"
        ):
            load_into(model, records, weights._replace(values=values), "x")
    for text, says in [
        (
            KINDS.replace("output=5", "output=6"),
            r"biases of L007_connected are \(5,\) in Keras's order of axes; the mod",
        ),
        (KINDS.partition("[local]")[0], "the model has no layer L006_local"),
    ]:
        other = build_network(parse_cfg(text, "other.cfg"), seed=0).model
        with pytest.raises(WeightsError, match=says):
            load_into(other, records, weights)
    with pytest.raises(WeightsError, match="L007_connected needs all of biases, weights, scales"):
        folded = build_network(network, seed=0, norm="folded").model
        load_into(folded, records, weights._replace(values={"L007_connected": {"weights": last["weights"]}}))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("name", PARTS)
def test_parts_built_models_equal_cfg_built_ones(shared, yolo_model, tmp_path, name):
    backbone, levels, lateral = PARTS[name]
    network = read_cfg(str(shared / f"assets/darknet/cfg/{name}.cfg"))
    records = network_records(network)
    path = shared / f"assets/darknet/{name}/{name}.weights"
    if not path.is_file():
        path = tmp_path / "x.weights"
        write_weights(str(path), random_weights(records), records)
    whole = build_network(network, seed=0, input_size=SIZE).model
    load_weights(whole, str(path), records)
    config, classes = yolo_model(backbone, levels, SIZE, lateral=lateral), network.heads[0].classes
    parts = build_detector(config, classes, seed=1)
    assert load_weights(parts, str(path), model_records(parts)).report.startswith(f"loaded {len(records)} of")
    folded = build_folded(config, classes)
    load_weights(folded, str(path), model_records(folded))
    batch = images(*SIZE, 3)
    expected = outputs(whole, batch)
    for actual, twin, again, value in zip(
        *(outputs(model, batch) for model in (parts, folded, fold_batch_norm(config, classes, parts))),
        expected,
        strict=True,
    ):
        np.testing.assert_allclose(actual, value, atol=1e-5)
        np.testing.assert_allclose(twin, value, atol=1e-4)
        np.testing.assert_array_equal(twin, again)
    save_weights(parts, str(tmp_path / "y.weights"), model_records(parts))
    assert (tmp_path / "y.weights").read_bytes()[20:] == path.read_bytes()[20:]


def test_parts_built_models_start_from_a_partial_file(shared, yolo_model, tmp_path):
    """With another class count; what is not in the file keeps its initial weights."""
    folder = shared / "assets/darknet/yolov4-tiny"
    whole, partial = str(folder / "yolov4-tiny.weights"), str(tmp_path / "yolov4-tiny.conv.29")
    cut_weights(str(folder / "yolov4-tiny.cfg"), whole, partial, 29)
    model = build_detector(yolo_model("yolov4_tiny", 2, SIZE), num_classes=3, seed=0)
    records = model_records(model)
    loaded = load_weights(model, partial, records)
    assert loaded.report.splitlines() == [
        f"loaded 17 of 21 layers with weights from {partial}: backbone_conv00 to decoder_0_fuse",
        "  not in the file, so with their initial weights: head_0, decoder_1_reduce, decoder_1_fuse, head_1",
    ]
    original = read_weights(whole, network_records(read_cfg(str(folder / "yolov4-tiny.cfg"))))
    kernel = np.asarray(model.get_layer("decoder_0_fuse").kernel)
    np.testing.assert_array_equal(np.transpose(kernel, (3, 2, 0, 1)), original.values["L028_convolutional"]["weights"])
    with pytest.raises(WeightsError, match="fits a network of 80 classes: head_0 has 255 filters in the file, here 24"):
        load_weights(model, whole, records)
    with pytest.raises(WeightsError, match="the first 5 layers are those of a cfg"):
        read_weights(whole, records, upto=5)
    v3 = build_detector(yolo_model("yolov3_tiny", 2, SIZE), num_classes=80, seed=0)
    with pytest.raises(WeightsError, match=r"is too short: it ends at head_1, whose weights .* floats are|is too"):
        load_weights(v3, whole, model_records(v3))


def test_a_model_that_does_not_say_its_order():
    image = keras.Input((8, 8, 3))
    with pytest.raises(WeightsError, match="does not say its convolutions' order"):
        model_records(keras.Model(image, image))
