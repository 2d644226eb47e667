"""The table of originals: which one an experiment is compared with."""

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from reproduction import originals
from reproduction.experiment.subject import Subject
from reproduction.originals import ORIGINALS, original_of, with_original
from tests.conftest import ROOT
from tests.reproduction.known_bugs.run_experiments import EXPERIMENTS

SECOND = ORIGINALS["darknet"]._replace(name="second", recognises=lambda text: text.endswith(".yaml"))


def experiment(name: str, *overrides: str) -> Experiment:
    return load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, overrides)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_has_one_of_its_family(path):
    shipped = experiment(path.stem)
    found = with_original(Subject(shipped)).original
    assert found is original_of(shipped) and found.family == shipped.task.type
    if shipped.reproduces and shipped.reproduces.original:
        assert found.recognises(shipped.reproduces.original)


@pytest.mark.parametrize(
    ("named", "name"), [("yolov4-tiny.cfg", "darknet"), ("yolov7.yaml", "second"), ("", "darknet")]
)
def test_of_several_of_a_family_the_one_that_recognises_the_recipe(monkeypatch, named, name):
    monkeypatch.setitem(ORIGINALS, "second", SECOND)
    asked = experiment("yolov4_tiny_coco", f"reproduces.original='{named}'")
    assert original_of(asked).name == name
    assert original_of(asked.model_copy(update={"reproduces": None})).name == "darknet"


def test_traces_alone_have_none_and_are_asked_all_that_reads_recordings():
    subject = with_original(Subject(traces=(ROOT,)))
    assert subject.original is None
    assert {check.name for check in originals.checks_of(subject)} >= {"loss", "centernet_loss"}
    assert all(check.files for check in originals.checks_of(subject))


def test_each_is_called_as_in_the_table():
    assert all(original.name == name for name, original in ORIGINALS.items())
