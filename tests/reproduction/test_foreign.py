"""A Keras model beside a foreign trace, by a map of names: sound, with a mistake, and what wrong input is told."""

import json
import zipfile

import keras
import numpy as np
import pytest

from official.core.errors import UserError
from reproduction.foreign import compare
from reproduction.traces.trace import Layout, Source, write_trace
from tests.reproduction.traces.test_walk import small_model

NAMES = {"image": "X", "stem": "model.0", "branch": "model.1", "sum": "model.2", "head": "model.3"}
MAP = "\n".join(f"{ours}: {theirs}" for ours, theirs in NAMES.items())


def arrays_of(model) -> dict:
    """What another program might have recorded of the model: its own names, NCHW."""
    image = np.random.default_rng(5).normal(size=(1, 10, 14, 3)).astype(np.float32)
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in list(NAMES)[1:]])([image])
    arrays = [image, *(np.asarray(output) for output in outputs)]
    return {name: array.transpose(0, 3, 1, 2) for name, array in zip(NAMES.values(), arrays, strict=True)}


@pytest.fixture
def files(tmp_path):
    """(model, trace, map): paths of a sound model, its trace and the map of their names."""
    model = small_model()
    model.save(tmp_path / "model.keras")
    arrays = arrays_of(model)
    layouts = {name: Layout(layout="NCHW") for name in arrays}
    write_trace(tmp_path / "x.npz", arrays, Source(program="other", commit="abc"), layouts)
    (tmp_path / "map.yaml").write_text(MAP)
    return tuple(str(tmp_path / name) for name in ("model.keras", "x.npz", "map.yaml"))


def outcomes(report) -> dict[str, str]:
    (gate,) = report.gates
    return {row.quantity: row.outcome for row in gate.rows}


def test_a_sound_model_equals_the_trace_whole_and_alone(files):
    report = compare(*files)
    names = list(NAMES.values())[1:]
    assert outcomes(report) == dict.fromkeys([*names, *(f"alone/{name}" for name in names)], "pass")
    assert report.exit_code == 0 and report.verdict == "As recorded: 1 of 1 gates passed."
    assert report.provenance["recorded by"] == "other abc" and "SHA-256" in report.provenance["model"]


def test_a_wrong_layer_is_named_alone_and_explained(files):
    model = keras.models.load_model(files[0])
    kernel = model.get_layer("branch").kernel
    kernel.assign(kernel * 1.5)
    model.save(files[0])
    report = compare(*files)
    failed = [name for name, outcome in outcomes(report).items() if outcome == "fail"]
    assert failed == ["model.1", "model.2", "model.3", "alone/model.1"]
    assert report.exit_code == 1 and report.divergence[1].hints[0].cause == "constant_ratio"


def test_layers_without_an_array_are_skipped_and_said(files, tmp_path):
    some = {ours: theirs for ours, theirs in NAMES.items() if ours != "sum"}
    (tmp_path / "map.json").write_text(json.dumps(some))
    report = compare(*files[:2], str(tmp_path / "map.json"))
    assert outcomes(report)["sum"] == "skip" and report.exit_code == 0
    (row,) = [row for row in report.gates[0].rows if row.outcome == "skip"]
    assert "no array of this name" in row.note and "model.2" in row.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAP.replace("branch", "brunch"), "names 'brunch', which our model does not have; the nearest: branch"),
        (MAP.replace("model.1", "modle.1"), "names 'modle.1', which .*x.npz does not have; the nearest: .*model.1"),
        (MAP.replace("X", "x"), "no array 'x' for the model's input 'image'; .*`image: NAME`"),
        (MAP.replace("image: X\n", ""), "no array 'image' for the model's input 'image'; it has X"),
        (MAP.replace("model.0", "X"), "gives 'X', which the model is given, to 'stem' as well"),
        (MAP.replace("model.0", "model.1"), "gives 'model.1' of .* to two of ours"),
        ("image: X", "no array has the name of a layer. The model has .*stem.* the trace has model.0.*--map"),
        ("- image", "expected a mapping of our names"),
        ("image: [", "neither YAML nor JSON"),
    ],
)
def test_a_map_that_does_not_fit(files, text, message):
    with open(files[2], "w") as file:
        file.write(text)
    with pytest.raises(UserError, match=message):
        compare(*files)


def test_a_model_of_another_input_shape(files):
    image = keras.Input((12, 14, 3), name="image")
    keras.Model(image, keras.layers.Conv2D(4, 3, padding="same", name="stem")(image)).save(files[0])
    with open(files[2], "w") as file:
        file.write("image: X\nstem: model.0")
    with pytest.raises(UserError, match=r"X: recorded with shape \(1, 3, 10, 14\).*ours is \(None, 12, 14, 3\)"):
        compare(*files)


def test_what_is_no_model_and_no_trace(files, tmp_path):
    model, trace, names = files
    for name in ("text.keras", "model.h5"):
        (tmp_path / name).write_text("no model")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    for wrong, message in {
        "none.keras": "no such file",
        "model.h5": "expected a model that Keras saved",
        "text.keras": "cannot load this model",
        "empty.keras": "cannot load this model",
    }.items():
        with pytest.raises(UserError, match=message):
            compare(str(tmp_path / wrong), trace, names)
    (tmp_path / "text.npz").write_text("no trace")
    with pytest.raises(UserError, match=r"not a whole .npz file"):
        compare(model, str(tmp_path / "text.npz"), names)
    (tmp_path / "map.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="neither YAML nor JSON"):
        compare(model, trace, names)


def saved(tmp_path, model, arrays):
    """(model, trace) on disk, by the names of the model's own layers."""
    model.save(tmp_path / "model.keras")
    write_trace(tmp_path / "x.npz", arrays)
    return str(tmp_path / "model.keras"), str(tmp_path / "x.npz")


def test_a_layer_that_is_called_twice(tmp_path):
    """What Keras cannot cut out is skipped, and compared whole all the same."""
    image, twice = keras.Input((6, 8, 3), name="image"), keras.layers.Conv2D(3, 3, padding="same", name="twice")
    model = keras.Model(image, keras.layers.ReLU(name="last")(twice(twice(image))))
    x = np.random.default_rng(1).normal(size=(1, 6, 8, 3)).astype(np.float32)
    last = np.asarray(model(x))
    files = saved(tmp_path, model, {"image": x, "last": last, "twice": np.asarray(twice(x))})
    found = {"twice": "pass", "last": "pass", "alone/twice": "pass", "alone/last": "skip"}
    assert outcomes(compare(*files)) == found
    assert compare(*saved(tmp_path, model, {"image": x, "last": 1.1 * last})).exit_code == 1


def test_two_inputs_of_other_types(tmp_path):
    inputs = [keras.Input((4, 5), name=name) for name in ("left", "right")]
    model = keras.Model(inputs, keras.layers.Subtract(name="apart")(inputs))
    left, right = np.full((1, 4, 5), 7, np.uint8), np.full((1, 4, 5), 2, np.float64)
    files = saved(tmp_path, model, {"left": left, "right": right, "apart": np.full((1, 4, 5), 5.0)})
    assert outcomes(compare(*files)) == {"apart": "pass", "alone/apart": "pass"}


@pytest.mark.parametrize("stem", [np.array("text"), np.zeros((0, 10, 14, 4), np.float32)], ids=["text", "no image"])
def test_arrays_that_cannot_be_computed_with_fail(tmp_path, stem):
    images = np.zeros((0 if stem.ndim else 1, 10, 14, 3), np.float32)
    report = compare(*saved(tmp_path, small_model(), {"image": images, "stem": stem}))
    assert report.exit_code == 1 and "fail" in outcomes(report).values()


def test_code_in_a_model_file_is_not_run(files, tmp_path):
    """Neither a Python lambda nor a function that the file names by its module."""
    image = keras.Input((10, 14, 3), name="image")
    model = keras.Model(image, keras.layers.Lambda(lambda x: 2 * x, name="stem")(image))
    model.save(files[0])
    with pytest.raises(UserError, match=r"cannot load this model: .*Lambda"):
        compare(*files)
    ran = tmp_path / "ran"
    with zipfile.ZipFile(files[0]) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(inside["config.json"])
    call = {"module": "os", "class_name": "mkdir", "config": {"path": str(ran)}, "registered_name": None}
    config["config"]["layers"][1] |= call
    with zipfile.ZipFile(files[0], "w") as archive:
        for name, content in (inside | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"cannot load this model: .*mkdir"):
        compare(*files)
    assert not ran.exists()
