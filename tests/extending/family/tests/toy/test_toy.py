"""The toy family through all doors, and through the gates of a proof."""

import json

import numpy as np
import pytest
import tensorflow as tf
import yaml
from absl import flags
from PIL import Image, ImageDraw

import losses.toy.loss
from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import UserError
from reproduction.prove import prove
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import build_task, jobs
from tasks.toy.task import Toy
from tools.replay.rebuild import rebuild

CLASSES = ["disc", "card"]
BACKBONE = {"type": "yolov3_tiny", "width": 0.125}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six images, each with a disc and a card."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 7):
        picture = Image.new("RGB", (80, 64), tuple(rng.integers(0, 100, 3).tolist()))
        for category, (left, draw) in enumerate(((4, "ellipse"), (44, "rectangle")), 1):
            x, y = (left + int(rng.integers(0, 8)), int(rng.integers(0, 30)))
            width, height = rng.integers(16, 28, 2).tolist()
            getattr(ImageDraw.Draw(picture), draw)([x, y, x + width, y + height], fill=(220, 40 * number, 90))
            box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
        picture.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 64})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def config(data):
    """A YAML file of the family, as a user writes it."""
    source = {"type": "coco", "annotations": str(data / "instances.json"), "images": str(data)}
    augmentation = {"type": "darknet", "jitter": 0.2}
    train = {"source": source, "batch_size": 4, "max_boxes": 8, "augmentation": augmentation}
    split = {"classes": CLASSES, "train": train, "validation": {"source": source, "batch_size": 4}}
    content = {
        "runtime": {"device": "cpu"},
        "task": {"type": "toy", "model": {"input_size": [64, 96], "backbone": BACKBONE}, "data": split},
        "trainer": {
            "duration": {"steps": 5},
            "optimizer": {"type": "sgd", "momentum": 0.9},
            "schedule": {"type": "constant", "learning_rate": 0.01},
            "moving_average": {"decay": 0.9},
            "checkpoint": {"every": {"steps": 5}},
        },
    }
    path = data / "toy.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture(scope="module")
def experiment(config):
    return load_config(config, Experiment, [])


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """Folder and metrics of five steps of training."""
    folder = tmp_path_factory.mktemp("run")
    return folder, jobs.train(experiment, str(folder), evaluate=True)


def test_it_is_trained_for_five_steps(run):
    folder, metrics = run
    assert metrics["step"] == 5 and metrics["images"] == 6
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-00000005"]


def test_it_is_evaluated_with_its_class_names(run, experiment, tmp_path):
    folder, metrics = run
    assert jobs.evaluate(experiment, str(folder), str(tmp_path))["AP"] == metrics["AP"]
    assert {one["image_id"] for one in json.loads((tmp_path / "detections.json").read_text())} <= set(range(1, 7))


def test_it_is_exported_and_detects_in_files(run, experiment, data, tmp_path):
    export_checkpoint(experiment, str(run[0]), str(tmp_path / "export"))
    done = detect_files(tmp_path / "export", [str(data)], tmp_path / "found", 0.0)
    assert done["images"] == 6 and done["detections"] > 0


def test_it_goes_on_from_weights_in_a_file(run, experiment, tmp_path):
    task = build_task(experiment)
    model, other = task.build_model(), Toy(experiment.task, 1, experiment.trainer.duration).build_model()
    model.save_weights(tmp_path / "toy.weights.h5")
    assert any(np.any(a != b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    task.load_weights(other, str(tmp_path / "toy.weights.h5"))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


def test_an_example_is_replayed_and_its_pictures_drawn(experiment):
    task = build_task(experiment)
    batch = next(iter(task.stream.batches(3, (64, 96))))
    replayed = rebuild(experiment, 3, 2)
    assert np.array_equal(replayed.batch.image[0], batch.image[2])
    assert [stage.title for stage in replayed.stages[-2:]] == ["the host sends", "the network sees"]
    assert task.pictures(batch).std() > 0
    seen = next(iter(task.eval_inputs()))
    assert task.draw(seen, task.detect(task.build_inference_model(), seen)).shape[-1] == 3


def proof(config, gates):
    """What `reproduce.py --config toy.yaml --gates ...` asks."""
    asked = flags.FlagValues()
    for name in ("traces", "set", "cases"):
        flags.DEFINE_list(name, [], "", flag_values=asked)
    for name in ("compare", "trace", "map", "assets", "run", "config", "weights", "darknet"):
        flags.DEFINE_string(name, config if name == "config" else None, "", flag_values=asked)
    flags.DEFINE_string("gates", gates, "", flag_values=asked)
    asked.mark_as_parsed()
    return prove(asked)


def test_its_gates_pass(config):
    report = proof(config, "3,5-9")
    failed = [
        f"{row.check} {row.quantity}: {row.note}" for gate in report.gates for row in gate.rows if row.outcome == "fail"
    ]
    assert failed == []
    assert {gate.number: (gate.outcome, gate.note) for gate in report.gates} == dict.fromkeys(
        (3, 5, 6, 7, 8, 9), ("pass", "")
    )
    asked = {row.check for gate in report.gates for row in gate.rows if row.outcome == "pass"}
    assert set(report.unproven) == {"task.model.backbone", "input stream"}  # nothing is recorded; no check exists
    own = "inference decoding detections export assignment loss rates updates pixels steps"
    assert asked == {*(f"own_{name}" for name in own.split()), "draws"}


def test_a_mistake_in_its_loss_is_found(config, monkeypatch):
    right = losses.toy.loss.assign

    def mistaken(truth, grid, num_classes):
        return right(truth._replace(boxes=tf.gather(truth.boxes, [1, 0, 3, 2], axis=-1)), grid, num_classes)

    monkeypatch.setattr(losses.toy.loss, "assign", mistaken)
    (gate,) = proof(config, "6").gates
    first = gate.first_divergence
    assert (gate.outcome, first.quantity, first.hints[0].cause) == ("fail", "gradient of boxes", "height_width_swapped")


def test_words_of_another_family_are_refused(config):
    with pytest.raises(UserError, match="multi_scale: the toy trains at one size"):
        load_config(config, Experiment, ["task.data.train.multi_scale={}"])
