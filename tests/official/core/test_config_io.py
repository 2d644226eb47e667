"""Experiment files: include, overrides, and one clear error for everything a user can get wrong."""

from pathlib import Path

import pytest
import yaml

from configs.experiment import Experiment
from official.core.config_io import ConfigError, check_config, dump_config, load_config
from tests.conftest import EXPERIMENTS

FILES = sorted(EXPERIMENTS.glob("*.yaml"))


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.fixture
def good(tmp_path: Path) -> dict:
    """A complete, small experiment as plain data."""
    source = {"type": "coco", "annotations": "a.json", "images": "images"}
    return {
        "task": {
            "type": "yolo",
            "model": {
                "input_size": [64, 96],
                "backbone": {"type": "yolov4_tiny"},
                "head": {"anchors": [[10, 14], [23, 27]], "levels": [{"mask": [1]}, {"mask": [0]}]},
            },
            "data": {
                "classes": ["cat", "dog"],
                "train": {"source": source, "batch_size": 4},
                "validation": {"source": source, "batch_size": 4},
            },
        },
        "trainer": {
            "duration": {"steps": 5},
            "optimizer": {"type": "sgd"},
            "schedule": {"type": "constant", "learning_rate": 0.1},
            "checkpoint": {"every": {"epochs": 1}},
        },
    }


def load(folder: Path, data: dict, *overrides: str) -> Experiment:
    return load_config(write(folder, "experiment.yaml", yaml.safe_dump(data)), Experiment, overrides)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_experiment_loads_and_survives_a_round_trip(path: Path, tmp_path: Path):
    experiment = load_config(str(path), Experiment)
    assert load_config(write(tmp_path, "resolved.yaml", dump_config(experiment)), Experiment) == experiment


def test_an_experiment_is_frozen(tmp_path, good):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, good).trainer.micro_batches = 2


def test_include_merges_and_the_including_file_wins(tmp_path, good):
    write(tmp_path, "base.yaml", yaml.safe_dump(good))
    path = write(tmp_path, "top.yaml", "include: base.yaml\ntrainer: {micro_batches: 2, duration: {steps: 9}}\n")
    experiment = load_config(path, Experiment)
    assert (experiment.trainer.micro_batches, experiment.trainer.duration.steps) == (2, 9)
    assert experiment.task.data.classes == ("cat", "dog")


def test_an_including_file_may_change_the_unit_of_a_duration(tmp_path, good):
    write(tmp_path, "base.yaml", yaml.safe_dump(good))
    path = write(tmp_path, "top.yaml", "include: base.yaml\ntrainer: {duration: {epochs: 3}}\n")
    assert load_config(path, Experiment).trainer.duration.epochs == 3


def test_another_type_replaces_the_included_part_whole(tmp_path, good):
    good["trainer"]["optimizer"] = {"type": "sgd", "momentum": 0.5}
    write(tmp_path, "base.yaml", yaml.safe_dump(good))
    path = write(tmp_path, "top.yaml", "include: base.yaml\ntrainer: {optimizer: {type: adamw}}\n")
    assert load_config(path, Experiment).trainer.optimizer.type == "adamw"


def test_overrides_reach_lists_and_keep_types(tmp_path, good):
    experiment = load(
        tmp_path, good, "task.model.head.levels.1.scale_x_y=1.1", "trainer.duration={examples: 400}",
        "trainer.schedule.learning_rate=1e-3",
    )  # fmt: skip
    assert experiment.task.model.head.levels[1].scale_x_y == 1.1
    assert experiment.trainer.duration.in_steps(batch_size=4, examples_per_epoch=7) == 100
    assert experiment.trainer.schedule.learning_rate == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.micro_batchs=2", r"--set .*: trainer\.micro_batchs: unknown key; did you mean 'micro_batches'\?"),
        ("task.model.backbone.widht=2", r"task\.model\.backbone\.widht: unknown key; did you mean 'width'\?"),
        ("task.model.backbone.type=yolov4tiny", r"unknown type 'yolov4tiny'; did you mean 'yolov4_tiny'\?"),
        ("trainer.micro_batches=two", r"trainer\.micro_batches: input should be a valid integer; got 'two' \(str\)"),
        ("trainer.micro_batches=2.0", r"trainer\.micro_batches: .*valid integer; got 2\.0 \(float\)"),
        ("trainer.duration.epochs=2", r"exactly one of steps, epochs or examples, not in \['steps', 'epochs'\]"),
        ("task.model.input_size=[64, 100]", r"multiples of 32"),
        ("task.model.head.levels.0.mask=[7]", r"names anchors \[7\], but there are 2 anchors"),
        ("runtime.seed=-1", r"runtime\.seed: .*greater than or equal to 0; got -1"),
        ("trainer.schedule.learning_rate=.nan", r"finite number"),
        ("trainer.duration.steps.deep=1", r"trainer\.duration\.steps is the value 5"),
        ("task.model.head.levels.5.mask=[0]", r"'5' is not an index into a list of 2 items"),
        ("nonsense", r"expected key\.path=value"),
        ("runtime.seed=[1", r"--set runtime\.seed=\[1:1: not valid YAML"),
        ("runtime.seed=!!python/name:os.system", "not valid YAML"),
        ("runtime.seed=!!int abc", "not valid YAML"),
        ("runtime.tpu=!!binary aGk=", "bytes values are not used here"),
        ("trainer.checkpoint.best_metric=AP05", r"best_metric: .*'AP50'"),
    ],
)
def test_a_wrong_override_is_one_clear_error(tmp_path, good, override, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, good, override)


def test_errors_name_file_and_line(tmp_path, good):
    text = yaml.safe_dump(good) + "runtime:\n  sede: 3\n"
    line = text.splitlines().index("  sede: 3") + 1
    with pytest.raises(ConfigError, match=rf"x\.yaml:{line}: runtime\.sede: unknown key; did you mean 'seed'"):
        load_config(write(tmp_path, "x.yaml", text), Experiment)


def test_an_error_in_an_included_file_names_that_file(tmp_path, good):
    good["trainer"]["typo"] = 1
    write(tmp_path, "base.yaml", yaml.safe_dump(good))
    with pytest.raises(ConfigError, match=r"base\.yaml:\d+: trainer\.typo"):
        load_config(write(tmp_path, "top.yaml", "include: base.yaml\n"), Experiment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {micro_batches: 1, micro_batches: 2}", "given twice"),
        ("trainer: [1, 2", "not valid YAML"),
        ("- 1\n- 2\n", "mapping of keys"),
        ("include: nowhere.yaml", r"nowhere\.yaml: no such configuration file \(included by"),
        ("include: top.yaml", "includes itself"),
        ("include: ./../{folder}/top.yaml", "includes itself"),
        ("? [a]\n: 1\n", "a key is a word"),
        ("include: {a: 1}", "include: expected a file name"),
        ("", "trainer: required, but not given"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, "top.yaml", text.replace("{folder}", tmp_path.name)), Experiment)


def test_a_file_that_is_not_text_is_one_clear_error(tmp_path):
    (tmp_path / "top.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(str(tmp_path / "top.yaml"), Experiment)


def test_a_missing_file_names_the_nearest_one(tmp_path, good):
    write(tmp_path, "bccd.yaml", "")
    with pytest.raises(ConfigError, match=r"did you mean 'bccd\.yaml'"):
        load_config(str(tmp_path / "bcdd.yaml"), Experiment)


def test_no_python_objects_from_yaml(tmp_path):
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, "top.yaml", "trainer: !!python/object/apply:os.system ['true']"), Experiment)


@pytest.mark.parametrize("value", ["from_fil", "-1", "1.5"])
def test_a_value_that_fits_no_member_of_a_union_is_named_by_its_own_key(value):
    data = {"trainer": {"initialise": {"checkpoint": "a", "start_step": yaml.safe_load(value)}}}
    with pytest.raises(ConfigError) as error:
        check_config(data, Experiment, "here")
    lines = [line for line in str(error.value).splitlines() if "start_step" in line]
    assert len(lines) == 2
    assert all(line.startswith("here: trainer.initialise.start_step: input should be") for line in lines)
