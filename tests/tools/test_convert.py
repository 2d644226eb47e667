"""Conversion of weights between the originals' files and Keras's, of a cfg's network and of an experiment's."""

import functools
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from configs.experiment import Experiment
from modeling.centernet.weights import load_centernet_weights, save_centernet_weights
from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import load_weights
from modeling.darknet.weights import network_records, read_weights, write_weights
from official.core.config_io import dump_config, load_config
from official.core.errors import UserError
from tasks import TASKS, build_task
from tests.conftest import ROOT
from tests.modeling.centernet.test_centernet_weights import CONFIG, disturb, values
from tests.modeling.darknet.test_loading import KINDS, images, outputs, random_weights
from tools.convert import convert, main, of_cfg, of_experiment

DEMOS = {"yolo": "demo.yaml", "centernet": "demo_centernet.yaml"}


@pytest.fixture
def kinds(tmp_path, monkeypatch):
    """A cfg with one of every layer with weights and a file of weights for it, x.cfg and x.weights; its records."""
    monkeypatch.chdir(tmp_path)
    Path("x.cfg").write_text(KINDS)
    records = network_records(read_cfg("x.cfg"))
    write_weights("x.weights", random_weights(records), records)
    return records


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """`experiment(family, classes=2)` -> a task of a small network, whose experiment is x.yaml."""
    monkeypatch.chdir(tmp_path)

    def make(family: str, classes: int = 2):
        whole = load_config(str(ROOT / "configs/experiments" / DEMOS[family]), Experiment)
        config = yaml.safe_load(dump_config(whole))  # of one file
        task = config["task"]
        if family == "centernet":
            task["model"] = CONFIG.model_dump(mode="json", exclude_unset=True)
        else:
            task["model"]["backbone"]["width"] = 0.25
        task["data"]["classes"] = [f"class {number}" for number in range(classes)]
        Path("x.yaml").write_text(yaml.safe_dump(config))
        return build_task(load_config("x.yaml", Experiment))

    return make


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(argument, ...)` -> what the command prints; `command(..., fails=True)` -> its error."""

    def run(*arguments: str, fails: bool = False) -> str:
        monkeypatch.setattr("sys.argv", ["convert", *arguments])
        if not fails:
            main()
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5"])
def test_a_cfgs_weights_both_ways(kinds, name):
    assert convert(of_cfg("x.cfg"), "x.weights", name).endswith(f"wrote {name}")
    convert(of_cfg("x.cfg"), name, "y.weights", seen=640)
    assert Path("y.weights").read_bytes() == Path("x.weights").read_bytes()
    model = build_network(read_cfg("x.cfg"), seed=3).model
    assert load_weights(model, name, kinds).examples_seen is None
    if name == "x.keras":
        alone = keras.models.load_model(name)
        batch = images(10, 12, 2)
        for actual, expected in zip(outputs(alone, batch), outputs(model, batch), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_images_seen_are_the_sources_unless_given(kinds):
    for seen, expected in ((None, 640), (0, 0), (7, 7)):
        convert(of_cfg("x.cfg"), "x.weights", "y.weights", seen)
        assert read_weights("y.weights", kinds).header.seen == expected


def test_the_command_with_a_cfg(kinds, command):
    run = functools.partial(command, "--cfg", "x.cfg", "--from", "x.weights", "--to")
    assert "loaded 7 of 7 layers" in run("x.weights.h5")
    says = run("x.onnx", fails=True)
    assert "cannot tell what to write; expected *.weights, *.keras or *.weights.h5" in says
    assert "--seen 3: x.keras has no place for it; only *.weights has" in run("x.keras", "--seen", "3", fails=True)
    says = command("--cfg", "x.cfg", "--from", "x.pth", "--to", "x.keras", fails=True)
    assert says == (
        "error: x.pth: is of another original than this network; expected *.weights, *.keras or *.weights.h5\n"
    )


def test_the_first_layers(kinds, command):
    run = functools.partial(command, "--cfg", "x.cfg", "--from", "x.weights", "--to")
    assert run("x.conv.3", "--partial", "3") == "x.conv.3: 3 layers with weights, of the first 3\n"
    cut, whole = read_weights("x.conv.3", kinds), read_weights("x.weights", kinds)
    assert cut.header.seen == 0
    assert list(cut.values) == [record.name for record in kinds if record.index < 3]
    for name, parameters in cut.values.items():
        for parameter, value in parameters.items():
            np.testing.assert_array_equal(value, whole.values[name][parameter])
    assert "cannot cut out the first 9" in run("x.conv.9", "--partial", "9", fails=True)
    assert "name it *.conv.3" in run("x.weights.h5", "--partial", "3", fails=True)
    assert "leave it out with --partial" in run("x.conv.3", "--partial", "3", "--seen", "5", fails=True)
    says = command("--cfg", "x.cfg", "--from", "x.keras", "--to", "x.conv.3", "--partial", "3", fails=True)
    assert "x.keras: --partial cuts Darknet's own files; expected *.weights or *.conv.N" in says
    says = command("--config", "x.yaml", "--from", "x.weights", "--to", "x.conv.3", "--partial", "3", fails=True)
    assert "--partial 3: its layers are those of a cfg; give --cfg instead of --config" in says
    says = command("--cfg", "x.cfg", "--config", "x.yaml", "--from", "x.weights", "--to", "x.keras", fails=True)
    assert "not allowed with argument" in says
    assert "one of the arguments --config --cfg is required" in command("--from", "a", "--to", "b", fails=True)


FILES = {"yolo": ["x.weights", "x.keras", "y.weights"], "centernet": ["x.pth", "x.keras", "x.pth.tar"]}


@pytest.mark.parametrize("family", TASKS)
def test_an_experiments_weights_both_ways(experiment, family):
    task = experiment(family)
    model = task.build_model()
    disturb(model)
    first, _, last = FILES[family]
    task.save_weights(model, first, 0)
    for source, target in itertools.pairwise(FILES[family]):
        report = convert(of_experiment("x.yaml"), source, target)
        assert f"from {source}" in report and report.endswith(f"\nwrote {target}")
    assert Path(last).read_bytes() == Path(first).read_bytes()
    alone = keras.models.load_model("x.keras")
    for one, other in zip(values(alone), values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_experiment_that_is_a_cfg_for_other_classes(experiment, command):
    """The same bytes as of that cfg."""
    cfg = KINDS.partition("[local]")[0].replace("channels=2", "channels=3") + (
        "[convolutional]\nfilters={}\nsize=1\n[yolo]\nclasses={}\nnum=2\nanchors=1,2,3,4\nmask=0,1\n"
    )
    Path("x.cfg").write_text(cfg.format(14, 2))
    Path("y.cfg").write_text(cfg.format(16, 3))
    experiment("yolo", 3)
    config = yaml.safe_load(Path("x.yaml").read_text())
    head = {"type": "yolo", "anchors": [[1, 2], [3, 4]], "levels": [{"mask": [0, 1]}]}
    config["task"]["model"] = {"type": "darknet", "cfg": "x.cfg", "input_size": [32, 64], "head": head}
    Path("x.yaml").write_text(yaml.safe_dump(config))
    records = network_records(read_cfg("y.cfg"))
    write_weights("x.weights", random_weights(records), records)
    command("--config", "x.yaml", "--from", "x.weights", "--to", "x.weights.h5")
    command("--config", "x.yaml", "--from", "x.weights.h5", "--to", "y.weights", "--seen", "640")
    assert Path("y.weights").read_bytes() == Path("x.weights").read_bytes()


def test_the_command_with_an_experiment(experiment, command):
    model = experiment("centernet").build_model()
    save_centernet_weights(model, "x.pth")
    run = functools.partial(command, "--config", "x.yaml", "--from", "x.pth", "--to")
    count = len(model.variables)
    assert run("x.weights.h5") == f"loaded {count} of {count} variables from x.pth\nwrote x.weights.h5\n"
    before = values(model)
    disturb(model)
    assert load_centernet_weights(model, "x.weights.h5").complete
    for one, other in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    says = run("x.onnx", fails=True)
    assert "cannot tell what to write; expected *.pth, *.keras or *.weights.h5" in says
    says = command("--config", "x.yaml", "--from", "x.weights", "--to", "x.pth", fails=True)
    assert (
        says == "error: x.weights: is of another original than this network; expected *.pth, *.keras or *.weights.h5\n"
    )
    text = Path("x.yaml").read_text()
    Path("x.yaml").write_text(text.replace("stacks:", "stakcs:"))
    assert "task.model.backbone.stakcs: unknown key; did you mean 'stacks'?" in run("x.keras", fails=True)


def test_a_family_without_an_originals_file_says_so(experiment, monkeypatch, command):
    task = experiment("centernet")
    family = type(task)
    monkeypatch.delattr(family, "save_weights")
    monkeypatch.delattr(family, "weights_suffixes")
    model = task.build_model()
    with pytest.raises(UserError, match=r"x\.pth: CenterNet has no file of its own; expected \*\.keras or \*\.weights"):
        task.save_weights(model, "x.pth", 0)
    model.save_weights("x.weights.h5")
    says = command("--config", "x.yaml", "--from", "x.weights.h5", "--to", "x.pth", fails=True)
    assert says == "error: x.pth: cannot tell what to write; expected *.keras or *.weights.h5\n"
