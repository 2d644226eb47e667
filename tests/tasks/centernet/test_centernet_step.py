"""CenterNet under the trainer's step and through the doors' functions: real data, real loss, all shapes non-square."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import UserError
from official.core.evaluation import Scorer
from official.core.initialise import find_weights
from official.core.task import HostShare
from serving.jobs import export_checkpoint
from serving.predict import detect_files
from tasks import build_task, jobs
from tests.conftest import EXPERIMENTS
from tests.tasks.yolo.test_yolo_step import first_batch, make_run
from tools.demo_data import write_synthetic

SMALL = {
    "resnet": [
        "task.model.backbone={type: resnet, depth: 18}",
        "task.model.decoder={type: deconv, filters: [16, 8, 8]}",
    ],
    "hourglass": [
        "task.model.backbone={type: hourglass, stacks: 2, dims: [8, 12], modules: [1, 1], pre: 8, cnv_dim: 8}",
        "task.model.decoder=null",
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("centernet") / "data"
    write_synthetic(folder, 10, 5, workers=1)
    return folder


def experiment(data: Path, backbone: str, *overrides: str, name: str = "demo_centernet") -> Experiment:
    """A shipped experiment with a small network at a small size, on the embedded data set."""
    source = "{{type: coco, annotations: {0}/instances_{1}.json, images: {0}/{1}}}"
    common = [
        f"task.data.train.source={source.format(data, 'train')}",
        f"task.data.validation.source={source.format(data, 'val')}",
        "task.data.classes=[target, flag, tent, cross, star, moon]",
        "task.data.train.batch_size=4",
        "task.data.validation.batch_size=1",
        "task.data.train.max_boxes=12",
        "task.model.input_size=[64, 96]",
        "task.model.head.head_conv=8",
        "trainer.duration={steps: 2}",
        "trainer.steps_per_loop=2",
        "trainer.checkpoint.every={steps: 2}",
        "runtime.device=cpu",
    ]
    return load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, [*common, *SMALL[backbone], *overrides])


@pytest.mark.slow
def test_the_step_compiles_under_xla_and_equals_the_plain_one(data, tmp_path, not_deterministic):
    run = make_run(experiment(data, "hourglass", "task.model.backbone.stacks=1"), tmp_path)
    state = tf.nest.map_structure(tf.convert_to_tensor, run.variables)
    batch = first_batch(run)
    _, metrics = tf.function(run.train_step, autograph=False, jit_compile=True)(state, batch)
    _, plain = run.train_step(state, batch)
    for name, value in plain.scalars.items():
        np.testing.assert_allclose(metrics.scalars[name], value, rtol=2e-4, err_msg=name)


def test_what_the_host_sends_is_pixels_and_boxes(data, tmp_path):
    run = make_run(experiment(data, "hourglass"), tmp_path)
    batch = first_batch(run)
    pixels = batch.image.numpy().nbytes
    assert batch.image.dtype == tf.uint8
    at_most = 4 * 12 * (16 + 4 + 1) + 4 * (8 + 1 + 3 * 12)  # boxes, classes, valid; id, flip, colour draws
    assert sum(part.numpy().nbytes for part in tf.nest.flatten(batch)) <= pixels + at_most


def test_boxes_lie_on_what_the_network_sees(tmp_path):
    """A white square on black, mapped and mirrored at random: the network sees it where its box says it is."""
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[30:70, 20:44] = 255
    Image.fromarray(pixels).save(folder / "square.png")
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [20, 30, 24, 40]}
    image = {"id": 1, "file_name": "square.png", "height": 120, "width": 160}
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 3, "name": "target"}]}
    (folder / "truth.json").write_text(json.dumps(truth))
    source = f"{{type: coco, annotations: {folder}/truth.json, images: {folder}}}"
    config = experiment(
        folder, "hourglass", f"task.data.train.source={source}", "task.data.classes=[target]",
        "task.data.train.augmentation={type: centernet, crop: shift_scale, colour: false}",
    )  # fmt: skip
    task = build_task(config)
    mirrored, seen = set(), 0
    for batch in task.train_inputs(0, HostShare(), (64, 96)).take(4):
        images, labels = task.prepare(batch)
        white = images.numpy()[..., 1] > 0  # half of the range, standardised
        mirrored |= set(batch.draws.flip.numpy().tolist())
        for one, (left, top, right, bottom) in zip(white, 4 * labels.boxes.numpy()[:, 0], strict=True):
            assert not_as_boxed(one, (top, left, bottom, right)) < 0.03
            seen += one.any()
        # For people, too: pictures once took these boxes for others.
        shown = task.shown(batch)
        for images, boxes in ((shown.images.numpy() > 0.5, shown.boxes), (batch.image.numpy() > 127, shown.sent)):
            for one, box in zip(images[..., 1], boxes.numpy()[:, 0] * (64, 96, 64, 96), strict=True):
                assert not_as_boxed(one, box) < 0.03
    assert mirrored == {False, True} and seen > 8
    picture = task.pictures(batch)[:64, :96]  # of the first image: its box is drawn about what is white
    edges = np.nonzero((picture != picture[..., :1]).any(axis=-1))  # neither grey nor black nor white
    _, _, bottom, right = np.clip(shown.boxes[0, 0].numpy(), 0, 1) * (64, 96, 64, 96)  # its label is at the upper left
    assert abs(edges[0].max() - bottom) < 2 and abs(edges[1].max() - right) < 2


def not_as_boxed(white, box):
    """The share of pixels that are white outside a box (yxyx in pixels) or not white inside it."""
    inside, (top, left, bottom, right) = np.zeros_like(white), box
    # Pixels count from their centres: the last one that is white is one before the box's right edge.
    rows, columns = (slice(max(0, round(low)), max(0, round(high))) for low, high in ((top, bottom), (left, right)))
    inside[rows, columns] = True
    return (white != inside).mean()


def test_an_empty_batch_trains(data, tmp_path):
    run = make_run(experiment(data, "hourglass"), tmp_path)
    batch = first_batch(run)
    state = tf.nest.map_structure(tf.convert_to_tensor, run.variables)
    _, metrics = run.train_step(state, batch._replace(valid=tf.zeros_like(batch.valid)))
    assert all(bool(finite) for finite in metrics.finite.values())
    assert float(metrics.scalars["wh_loss"]) == float(metrics.scalars["off_loss"]) == 0
    assert float(metrics.scalars["hm_loss"]) > 0


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[Experiment, Path, dict]:
    folder = tmp_path_factory.mktemp("centernet_run")
    config = experiment(data, "resnet")
    return config, folder, jobs.train(config, str(folder), evaluate=True)


@pytest.mark.slow
def test_train_evaluate_export_and_detect(trained, data, tmp_path):
    """The reloaded export finds what the evaluation found, in the same pixels."""
    config, folder, metrics = trained
    assert metrics["protocol"]["resize"] == "affine" and metrics["protocol"]["nms"] == "none" and metrics["images"] == 5
    export_checkpoint(config, str(folder), str(tmp_path / "export"))
    done = detect_files(str(tmp_path / "export"), [str(data / "val")], str(tmp_path / "found"), 0.0)
    assert done["images"] == 5
    evaluated = json.loads((folder / "detections.json").read_text())
    found = json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"]
    assert len(found) == len(evaluated) > 0
    best = max(evaluated, key=lambda detection: detection["score"])
    assert abs(max(detection["score"] for detection in found) - best["score"]) < 0.0051  # rounded to two decimals


@pytest.mark.slow
@pytest.mark.slow
def test_evaluation_without_resizing_and_its_export(trained, data, tmp_path):
    """`keep`: each image in an input of its own size; the export too detects in images of several sizes."""
    _, folder, _ = trained
    kept = experiment(data, "resnet", "task.evaluation={resize: keep, flip_test: true}")
    metrics = jobs.evaluate(kept, str(folder), str(tmp_path / "evaluation"))
    assert metrics["protocol"]["resize"] == "keep" and metrics["protocol"]["flip_test"]
    export_checkpoint(kept, str(folder), str(tmp_path / "export"))
    images = sorted((data / "val").glob("*.jpg"))
    signature = tf.saved_model.load(str(tmp_path / "export")).signatures["encoded"]
    found = signature(contents=tf.constant([path.read_bytes() for path in images]))
    scores = {round(float(score), 2) for score in found["detection_scores"][:, 0]}
    detections = json.loads((tmp_path / "evaluation" / "detections.json").read_text())
    best = {
        max(d["score"] for d in detections if d["image_id"] == image) for image in {d["image_id"] for d in detections}
    }
    assert scores == {round(score, 2) for score in best}


@pytest.mark.slow
@pytest.mark.slow
def test_several_scales_are_merged(trained, data, tmp_path):
    """At one scale, without overlaps to suppress, soft-NMS finds what plain decoding finds; export says it cannot."""
    _, folder, _ = trained
    results = {}
    for name, resize in (("affine", "affine"), ("keep", "keep")):
        plain = experiment(data, "resnet", f"task.evaluation={{resize: {resize}, decimals: null}}")
        soft = experiment(data, "resnet", f"task.evaluation={{resize: {resize}, decimals: null, nms: soft_nms}}")
        for kind, config in (("plain", plain), ("soft", soft)):
            scorer = Scorer(build_task(config))
            results[name, kind] = scorer.score(find_weights(str(folder))).first[1]
        one, other = results[name, "plain"], results[name, "soft"]
        np.testing.assert_allclose(other.boxes[0, 0], one.boxes[0, 0], atol=1e-5)
        np.testing.assert_allclose(other.scores[0, 0], one.scores[0, 0], atol=1e-6)
    many = experiment(data, "resnet", "task.evaluation={nms: soft_nms, scales: [0.5, 1.0, 1.5], flip_test: true}")
    metrics = jobs.evaluate(many, str(folder), str(tmp_path / "evaluation"))
    assert metrics["protocol"]["scales"] == [0.5, 1.0, 1.5]
    with pytest.raises(UserError, match="runs on the host"):
        export_checkpoint(many, str(folder), str(tmp_path / "export"))
