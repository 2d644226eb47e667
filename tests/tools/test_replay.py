"""A replayed example is the run's, to the byte; its parameters are enough for another implementation."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import UserError
from tasks import build_task
from tests.conftest import EXPERIMENTS
from tools.replay.__main__ import main
from tools.replay.rebuild import rebuild

AUGMENTATIONS = {
    "plain": "null",
    "colour": "{jitter: 0.0, hue: 0.1}",
    "mixup": "{jitter: 0.3, mixup: 1.0}",
    "mosaic": "{jitter: 0.3, mosaic: 1.0}",
    "precise": "{jitter: 0.3, mosaic: 1.0, precise: true}",
    "window": "{jitter: 0.3, mosaic: 1.0, window: {examples: 4, reuse: 4}}",
    "affine": "{type: affine, mixup: 1.0, nine: 1.0}",
    "rotated": "{type: affine, mixup: 1.0, degrees: 10}",
    "centernet": "{type: centernet}",
    "centernet, precise": "{type: centernet, crop: shift_scale, precise: true}",
}


@pytest.fixture
def seven(folder):
    """Seven PNG images of several sizes; image 14 has no box."""
    for image_id in range(10, 17):
        folder.image(image_id, 20 + 4 * (image_id % 3), 40 + 4 * (image_id % 2), ending="png")
        if image_id != 14:
            folder.box(image_id, [4.5, 3.25, 12, 9.5], category=7 if image_id % 2 else 3)
    return folder


def _overrides(folder, augmentation, *more):
    source = f"{{type: coco, annotations: {folder.source.annotations}, images: {folder.source.images}}}"
    return [
        f"task.data.train.source={source}",
        f"task.data.validation.source={source}",
        "task.data.classes=[cell, dot]",
        "task.data.train.batch_size=4",
        "task.data.train.max_boxes=12",
        "task.data.train.on_bad=skip",
        f"task.data.train.augmentation={augmentation}",
        "task.model.input_size=[64, 96]",
        "trainer.duration={steps: 6}",
        *more,
    ]


def _experiment(folder, augmentation, *more):
    name = "demo_centernet" if "centernet" in augmentation else "demo"
    return load_config(str(EXPERIMENTS / f"{name}.yaml"), Experiment, _overrides(folder, augmentation, *more))


def _stream(experiment):
    return build_task(experiment).stream


def _batch_of_run(experiment, step):
    stream = _stream(experiment)
    return next(iter(stream.batches(step, stream.sizes.at(step)).take(1)))


def _differ(batch, index, replayed):
    rows = zip(tf.nest.flatten(batch), tf.nest.flatten(replayed), strict=True)
    return [at for at, (whole, one) in enumerate(rows) if not np.array_equal(whole[index : index + 1], one)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("mixup", "rotated", "window") else name
        for name in AUGMENTATIONS
    ],
)
def test_it_is_what_the_run_saw(seven, name):
    experiment, step, index = _experiment(seven, AUGMENTATIONS[name]), 2, 3
    batch, replay = _batch_of_run(experiment, step), rebuild(experiment, step, index)
    assert _differ(batch, index, replay.batch) == []
    sent, seen = replay.stages[-2:]
    np.testing.assert_array_equal(sent.image, batch.image[index])
    assert len(sent.boxes) == len(seen.boxes) == int(tf.reduce_sum(tf.cast(batch.valid[index], tf.int32)))
    sources = replay.parameters["sources"]
    assert len(sources) == sum(replay.parameters.get("kind", [1]))
    assert [f"image {source['image_id']}" for source in sources] == [
        stage.title.partition(" (")[0] for stage in replay.stages[: len(sources)]
    ]


@pytest.mark.parametrize("name", ["mixup", "mosaic", "affine", "centernet"])
def test_another_implementation_needs_the_parameters_alone(seven, name):
    replay = rebuild(_experiment(seven, AUGMENTATIONS[name]), 2, 3)
    parameters = json.loads(json.dumps(replay.parameters))
    at, images = 0, []
    for count in parameters["kind"]:
        pieces = list(zip(parameters["sources"], parameters["pieces"], strict=True))[at : at + count]
        images.append(_put_together(pieces, parameters["input_size"], parameters["fill"]))
        at += count
    share = parameters.get("share", 1.0)
    made = sum(weight * image for weight, image in zip((share, 1 - share), images, strict=False))
    assert np.abs(made - replay.batch.image[0].numpy()).max() < 1.5  # 0.5 of a resize, below 1 of a blend that cuts off
    compositions = [stage.image for stage in replay.stages if stage.title.startswith("composition")]
    assert len(compositions) == (len(images) if len(images) > 1 else 0)
    for ours, theirs in zip(compositions, images, strict=False):
        assert np.abs(ours - theirs).max() <= 0.501


def _put_together(pieces, input_size, fill):
    canvas = np.full((*input_size, 3), fill, np.float64)
    for source, piece in pieces:
        (top, left, height, width), (cell_top, cell_left, _, _) = piece["place"], piece["cell"]
        if height <= 0 or width <= 0:
            continue
        low_y, low_x, rows, columns = piece["crop"]
        assert piece["ratio"] == 1  # the images are smaller than the input
        pixels = np.asarray(Image.open(source["name"]).convert("RGB"))[low_y : low_y + rows, low_x : low_x + columns]
        sized = cv2.resize(pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        shown = sized[:, ::-1] if piece["flip"] else sized
        canvas[cell_top + top :, cell_left + left :][:height, :width] = shown
    return canvas


@pytest.mark.slow
def test_the_last_steps_and_other_sizes_are_the_runs(seven):
    more = "task.data.train.plain_last={steps: 2}", "task.data.train.multi_scale={every: {steps: 1}, sizes: 3}"
    experiment = _experiment(seven, AUGMENTATIONS["mosaic"], *more)
    sizes = set()
    for step in (0, 3, 5):
        replay = rebuild(experiment, step, 1)
        assert replay.parameters["augmented"] == (step < 4)
        assert _differ(_batch_of_run(experiment, step), 1, replay.batch) == []
        sizes.add(tuple(replay.parameters["input_size"]))
    assert len(sizes) > 1


def test_an_unreadable_image_is_replaced_as_in_the_run(seven):
    experiment = _experiment(seven, "{jitter: 0.0}")
    before = [rebuild(experiment, 0, index).parameters["sources"][0]["image_id"] for index in range(4)]
    path = Path(seven.source.images) / f"image_{before[2]}.png"
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT")
    content[place + 4 : place + 40] = b"\xff" * 36  # its header and its end are there
    path.write_bytes(content)
    replay = rebuild(experiment, 0, 2)
    (message,) = replay.parameters["unreadable"]
    assert path.name in message
    assert replay.parameters["sources"][0]["image_id"] == (before[2] - 10 + 1) % 7 + 10


def test_a_damaged_image_is_shown_until_something_that_is_seen_of_it_cannot_be_decoded(folder):
    for image_id in range(10, 14):
        path = folder.image(image_id, 160, 240)
        folder.box(image_id, [20, 20, 80, 60])
    content = bytearray(path.read_bytes())
    place = int(len(content) * 0.9)
    content[place : place + 4] = b"\xff\xc4\x00\x01"  # no scan goes on behind a table
    path.write_bytes(content)
    experiment = _experiment(folder, "{jitter: 0.4}")
    ways = []
    for step in range(6):
        index = _stream(experiment).rows(step, step + 1).index(3)
        shown = rebuild(experiment, step, index)
        try:
            batch = _batch_of_run(experiment, step)
        except tf.errors.OpError:
            assert path.name in shown.parameters["unreadable"][0]
            assert shown.parameters["sources"][0]["image_id"] == 10
        else:
            assert _differ(batch, index, shown.batch) == []
            assert shown.parameters["unreadable"] == [] and shown.stages[0].title == "image 13, damaged"
        ways.append(len(shown.parameters["unreadable"]))
    assert set(ways) == {0, 1}


@pytest.mark.parametrize(
    "step, index, message",
    [
        (6, 0, "step 6: the run has 6 steps; expected 0 to 5"),
        (-1, 0, "step -1"),
        (0, 4, "expected 0 to 3"),
        (0, -1, "index -1"),
    ],
)
def test_no_such_example(seven, step, index, message):
    with pytest.raises(UserError, match=message):
        rebuild(_experiment(seven, "null"), step, index)


def test_the_command_writes_a_picture_and_json(seven, tmp_path, monkeypatch, capsys):
    overrides = [word for override in _overrides(seven, AUGMENTATIONS["affine"]) for word in ("--set", override)]
    files = ["--output", str(tmp_path / "one.png"), "--json", str(tmp_path / "one.json")]
    asked = ["--config", str(EXPERIMENTS / "demo.yaml"), "--step", "2", "--index", "1", *files, *overrides]
    monkeypatch.setattr(sys, "argv", ["replay", *asked])
    main()
    assert "one.png" in capsys.readouterr().out
    parameters = json.loads((tmp_path / "one.json").read_text())
    assert parameters["step"] == 2 and parameters["position"] == 9
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width > 1000 and len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 50
