"""A run's config.yaml as the version before this one saved it is read; its old words, typed anew, are refused."""

from pathlib import Path

import pytest
import yaml

from configs.experiment import Experiment
from configs.yolo.task import YoloProtocol, without_former_words
from official.core.config_io import ConfigError, dump_config, load_config

SAVED = Path(__file__).with_name("saved_by_version_1.yaml")
RENAMED = r"task\.loss\.gradient: 'true' is called autodiff now; write gradient: autodiff"


def gradients(experiment: Experiment) -> list[str | None]:
    losses = [experiment.task.loss, *(level.loss for level in experiment.task.model.head.levels)]
    return [loss and loss.gradient for loss in losses]


def typed(folder: Path, **changes: object) -> str:
    """The saved file as someone might type it: nothing says which version wrote it."""
    data = without_former_words(yaml.safe_load(SAVED.read_text()))
    del data["schema_version"], data["task"]["model"]["head"]["levels"][0]["loss"]
    data["task"]["loss"] |= changes
    (folder / "typed.yaml").write_text(yaml.safe_dump(data))
    return str(folder / "typed.yaml")


def test_a_saved_config_is_read_in_todays_words_and_says_so_once(caplog):
    experiment = load_config(str(SAVED), Experiment)
    assert gradients(experiment) == ["autodiff", "autodiff", None, None]
    said = f"{SAVED}: was saved by an older version: gradient: 'true' is read as autodiff"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_saved_again_it_is_of_todays_version_and_nothing_is_said(tmp_path, caplog):
    experiment = load_config(str(SAVED), Experiment)
    caplog.clear()
    (tmp_path / "config.yaml").write_text(dump_config(experiment))
    assert yaml.safe_load(dump_config(experiment))["schema_version"] == 3
    assert load_config(str(tmp_path / "config.yaml"), Experiment) == experiment
    assert not caplog.records


def test_a_saved_config_of_darknets_gradient_has_nothing_to_say(tmp_path, caplog):
    (tmp_path / "config.yaml").write_text(SAVED.read_text().replace("'true'", "darknet"))
    assert gradients(load_config(str(tmp_path / "config.yaml"), Experiment)) == ["darknet", "darknet", None, None]
    assert not caplog.records


@pytest.mark.parametrize("value", ["true", True])
def test_the_old_word_in_a_file_that_someone_types_is_one_clear_error(tmp_path, value):
    with pytest.raises(ConfigError, match=rf"^\S*typed\.yaml:\d+: {RENAMED}$"):
        load_config(typed(tmp_path, gradient=value), Experiment)
    assert load_config(typed(tmp_path, gradient="autodiff"), Experiment).task.loss.gradient == "autodiff"


@pytest.mark.parametrize("value", ["true", "'true'", "True"])
def test_the_old_word_by_set_is_one_clear_error_over_any_file(tmp_path, value):
    for path in (str(SAVED), typed(tmp_path)):
        with pytest.raises(ConfigError, match=rf"^--set .*: {RENAMED}$"):
            load_config(path, Experiment, [f"task.loss.gradient={value}"])


def test_a_typed_file_may_include_a_saved_one_but_not_say_the_old_word_itself(tmp_path):
    path = tmp_path / "top.yaml"
    path.write_text(f"include: {SAVED}\ntask: {{loss: {{iou_loss: diou}}}}\n")
    assert gradients(load_config(str(path), Experiment))[0] == "autodiff"
    path.write_text(f"include: {SAVED}\ntask: {{loss: {{gradient: 'true'}}}}\n")
    with pytest.raises(ConfigError, match=rf"top\.yaml:2: {RENAMED}"):
        load_config(str(path), Experiment)


@pytest.mark.parametrize("version", [1, 2])
def test_words_of_another_familys_protocol_may_be_saved_but_not_typed(tmp_path, version):
    """Each run saved them, switched off; one that someone types, or that was set, is one clear error."""
    saved = SAVED.read_text().replace("'true'", "autodiff")
    path = tmp_path / "config.yaml"
    path.write_text(saved.replace("schema_version: 1", f"schema_version: {version}"))
    assert load_config(str(path), Experiment).task.evaluation == YoloProtocol()
    path.write_text(path.read_text().replace("flip_test: false", "flip_test: true"))
    with pytest.raises(ConfigError, match=r"config\.yaml:\d+: task\.evaluation\.flip_test: unknown key.* Known here: "):
        load_config(str(path), Experiment)
    (tmp_path / "top.yaml").write_text(f"include: {typed(tmp_path)}\ntask: {{evaluation: {{flip_test: false}}}}\n")
    with pytest.raises(ConfigError, match=r"top\.yaml:2: task\.evaluation\.flip_test: unknown key"):
        load_config(str(tmp_path / "top.yaml"), Experiment)


def test_a_file_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(SAVED.read_text().replace("schema_version: 1", "schema_version: 4"))
    with pytest.raises(ConfigError, match="schema_version: input should be 3; got 4"):
        load_config(str(path), Experiment)
