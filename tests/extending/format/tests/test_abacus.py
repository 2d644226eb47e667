"""A model is exported in the new format by its name, and files are detected with what was written."""

import json

from absl import flags
from PIL import Image

import export
from configs.experiment import Experiment
from official.core.config_io import load_config
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import build_task
from tests.conftest import ROOT


def test_a_checkpoint_is_exported_and_files_are_detected(tmp_path):
    sets = ["task.model.backbone={type: yolov4_tiny, width: 0.125}", "task.model.input_size=[64, 96]"]
    experiment = load_config(str(ROOT / "configs" / "experiments" / "demo.yaml"), Experiment, sets)
    weights = tmp_path / "any.weights.h5"
    build_task(experiment).build_model().save_weights(weights)
    export_checkpoint(experiment, str(weights), str(tmp_path / "export"), "abacus")
    Image.new("RGB", (40, 30)).save(tmp_path / "black.png")
    detect_files(tmp_path / "export", [str(tmp_path / "black.png")], tmp_path / "found", 0.5)
    (found,) = json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"]
    assert found["bbox"] == [0, 0, 40, 15] and found["category_id"] == len(experiment.task.data.classes)


def test_the_command_offers_it():
    assert export.FORMAT.name == "format" and "abacus" in flags.FLAGS["format"].parser.enum_values
