"""Experiments from Darknet's files: what is written, which class is which category, and every bad input."""

import json
from pathlib import Path

import pytest

from configs.experiment import Experiment
from dataloaders.reading.annotations import DataError
from modeling.darknet.cfg import parse_cfg
from modeling.darknet.grammar import CfgError, Note
from official.core.config_io import ConfigError, load_config
from official.core.errors import UserError
from tasks.yolo.darknet_files import (
    coco_classes,
    evaluation_experiment,
    export_experiment,
    listing,
    training_experiment,
)
from tests.tasks.yolo.darknet_files import LAYERS, NET, write_cfg


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """A cfg and a `.data`; its lists are not read for an experiment."""
    (tmp_path / "x.names").write_text("cat\ndog\n")
    (tmp_path / "x.data").write_text("classes=2\ntrain=train.txt\nvalid=valid.txt\nnames=x.names\n")
    return write_cfg(tmp_path / "x.cfg"), str(tmp_path / "x.data")


def coco(folder: Path, names: list[str]) -> str:
    """A COCO file of these categories, whose ids have gaps and are not in the order of the file."""
    categories = [{"id": 3 * number + 2, "name": name} for number, name in enumerate(names)]
    content = {"images": [], "annotations": [], "categories": categories[::-1]}
    (folder / "a.json").write_text(json.dumps(content))
    return str(folder / "a.json")


def network(classes: int):
    return parse_cfg(NET + LAYERS.format(classes=classes, filters=3 * (5 + classes)), "x.cfg")


def test_the_experiment_is_written_with_its_overrides_and_can_be_edited(files, tmp_path):
    run = str(tmp_path / "run")
    made = training_experiment(*files, None, False, ["runtime.seed=5", "task.loss.iou_loss=giou"], run)
    assert made.runtime.seed == 5 and made.task.loss.iou_loss == "giou" and made.trainer.initialise is None
    path = tmp_path / "run" / "experiment.yaml"
    assert load_config(str(path), Experiment) == made
    text = path.read_text()
    assert text.startswith(f"# Made by train.py --darknet from {files[0]}, {files[1]}.\n")
    assert "&id" not in text and "# not, or not wholly, honoured:" in text
    assert training_experiment(*files, None, False, ["runtime.seed=5", "task.loss.iou_loss=giou"], run) == made
    path.write_text(text.replace("seed: 5", "seed: 6"))
    with pytest.raises(ConfigError, match=r"experiment\.yaml: is there already and was edited. Run it by --config"):
        training_experiment(*files, None, False, ["runtime.seed=5", "task.loss.iou_loss=giou"], run)
    assert load_config(str(path), Experiment).runtime.seed == 6


def test_an_experiment_that_was_not_edited_is_replaced(files, tmp_path):
    """A first try that ended with bad data, say, must not stand in the way of the second."""
    run = str(tmp_path / "run")
    training_experiment(*files, None, False, [], run)
    made = training_experiment(*files, None, False, ["task.data.train.on_bad=skip"], run)
    assert made.task.data.train.on_bad == "skip"
    assert load_config(str(tmp_path / "run" / "experiment.yaml"), Experiment) == made
    (tmp_path / "run" / "experiment.yaml").write_text("trainer: {}\n")  # not made by us
    with pytest.raises(ConfigError, match="was edited"):
        training_experiment(*files, None, False, [], run)


def test_weights_to_start_from(files, tmp_path):
    def initialise(weights: str, clear: bool):
        folder = str(tmp_path / f"{weights}{clear}")
        return training_experiment(*files, weights, clear, [], folder).trainer.initialise

    assert initialise("x.conv.4", False).start_step == "from_file"
    assert initialise("x.weights", True).start_step == 0
    assert initialise("x.weights.h5", False).start_step == 0  # which does not say what it has seen
    assert "x.weights --clear" in (tmp_path / "x.weightsTrue" / "experiment.yaml").read_text()


def test_without_valid_the_training_images_are_evaluated_on(files, tmp_path, capsys):
    data = Path(files[1])
    data.write_text(data.read_text().replace("valid=valid.txt\n", "top=5\n"))
    made = training_experiment(*files, None, False, [], str(tmp_path / "run"))
    assert made.task.data.validation.source.split == "train"
    said = capsys.readouterr().err
    assert "no valid=: the training images are evaluated on" in said and "x.data:3: [data] top=5: it has no" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train=train.txt\n", ""), r"x\.data: no `train = …` in this \.data file"),
        (("train=", "trian="), r"x\.data: no `train = …`.*did you mean 'trian'"),
        (("names=x.names\n", ""), r"x\.data: no `names = …`"),
        (("names=x.names", "names=none.names"), r"cannot read the file of class names none\.names"),
        (("classes=2", "classes=3"), r"x\.data: classes = 3, but .*x\.names has 2 names"),
        (("valid=valid.txt", "valid"), r"x\.data:3: expected `key = value`, got 'valid'"),
    ],
)
def test_a_data_file_that_cannot_be_used(files, tmp_path, change, message):
    data = Path(files[1])
    data.write_text(data.read_text().replace(*change))
    with pytest.raises((UserError, FileNotFoundError), match=message):
        training_experiment(*files, None, False, [], str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_cfg_or_override_that_cannot_be_used_writes_nothing(files, tmp_path):
    run = str(tmp_path / "run")
    for cfg, overrides, message in (
        (str(tmp_path / "none.cfg"), [], r"none\.cfg: cannot read the cfg"),
        (files[0], ["task.loss.iou_los=2"], r"--set task\.loss\.iou_los=2: task\.loss\.iou_los: unknown key"),
        (files[0], ["nonsense"], "expected key"),
        (files[0], ["task.evaluation.nms=best"], r"task\.evaluation\.nms"),
    ):
        with pytest.raises(UserError, match=message):
            training_experiment(cfg, files[1], None, False, overrides, run)
    Path(files[0]).write_text(Path(files[0]).read_text().replace("filters=21", "filters=20"))
    with pytest.raises(CfgError, match=r"x\.cfg:\d+: \[yolo\] \(layer 8\).*filters=21"):
        training_experiment(*files, None, False, [], run)
    assert not (tmp_path / "run").exists()


def test_classes_are_categories_by_the_order_of_ids(tmp_path):
    assert coco_classes(network(2), coco(tmp_path, ["cat", "dog"]), None, None) == ("cat", "dog")
    with pytest.raises(DataError, match=r"x\.cfg has 2 classes, .*a\.json has 3 categories.*--names FILE"):
        coco_classes(network(2), coco(tmp_path, ["cat", "dog", "cow"]), None, None)


def test_classes_are_categories_by_name(tmp_path, capsys):
    path = coco(tmp_path, ["cat", "dog", "cow"])
    assert coco_classes(network(2), path, ("cow", "cat"), "x.names") == ("cow", "cat")
    with pytest.raises(DataError, match=r"x\.names: .*a\.json has no category named hen; it has: cat, dog, cow"):
        coco_classes(network(2), path, ("cow", "hen"), "x.names")
    with pytest.raises(DataError, match=r"x\.names has 3 names, x\.cfg has 2 classes"):
        coco_classes(network(2), path, ("cow", "cat", "dog"), "x.names")
    # Darknet's coco.names has other words for six of COCO's categories, at their places.
    assert coco_classes(network(3), path, ("cat", "hound", "cow"), "x.names") == ("cat", "dog", "cow")
    assert "by their order, hound is dog" in capsys.readouterr().err
    for names in (("cat", "cow", "hound"), ("a", "b", "c")):
        with pytest.raises(DataError, match="no category named"):
            coco_classes(network(3), path, names, "x.names")


def test_darknets_own_names_of_coco(shared):
    assets = shared / "assets"
    cfg, names = (str(assets / "darknet" / "yolov4-tiny" / name) for name in ("yolov4-tiny.cfg", "coco.names"))
    annotations = str(assets / "coco_val" / "instances_val2017_80.json")
    by_names, by_order = (
        evaluation_experiment(cfg, annotations, "images", None, given, []).task.data.classes for given in (names, None)
    )
    assert by_names == by_order and len(by_order) == 80 and by_order[4] == "airplane"


def test_a_cfg_for_evaluation_needs_no_training_and_says_what_it_means(files, tmp_path, capsys):
    cfg = write_cfg(tmp_path / "y.cfg", "max_batches=0\nlearning_rate=0\nadam=1\nburn_in=-1\nwidht=7\n")
    made = evaluation_experiment(cfg, None, None, files[1], None, [])
    assert made.task.model.input_size == (64, 96)
    assert "y.cfg:6: [net] Darknet does not know widht here and ignores it" in capsys.readouterr().err


def test_what_an_evaluation_or_export_lacks(files, tmp_path):
    cfg, data = files
    with pytest.raises(ConfigError, match="give --coco_json and --images, or --data"):
        evaluation_experiment(cfg, None, None, None, None, [])
    with pytest.raises(ConfigError, match="give --coco_json and --images, or --data"):
        evaluation_experiment(cfg, "a.json", None, None, None, [])
    with pytest.raises(FileNotFoundError, match=r"the COCO annotation file none\.json"):
        evaluation_experiment(cfg, "none.json", "images", None, None, [])
    assert evaluation_experiment(cfg, None, None, data, None, []).task.data.validation.source.split == "valid"
    (tmp_path / "x.names").write_text("cat\n")
    Path(data).write_text("names=x.names\nvalid=valid.txt\n")
    for call in (
        lambda: evaluation_experiment(cfg, None, None, data, None, []),
        lambda: export_experiment(cfg, data, None, []),
        lambda: export_experiment(cfg, None, str(tmp_path / "x.names"), []),
    ):
        with pytest.raises(DataError, match=r"x\.names has 1 names, .*x\.cfg has 2 classes"):
            call()
    with pytest.raises(FileNotFoundError, match="class names"):
        export_experiment(cfg, None, "none.names", [])


def test_the_same_remark_of_many_sections_is_one_line():
    notes = [Note("x.cfg", line, "yolo", "a", "a=1: no") for line in (9, 3, 9)] + [Note("x.cfg", 1, "net", "b", "b=2")]
    assert listing(notes) == ["x.cfg:3,9: [yolo] a=1: no", "x.cfg:1: [net] b=2"]
