"""What an earlier version saved is read: run folders, `.keras` files and shards give what they gave when written.

The README in tests/saved_by_version_1 says what the files are and how they were made.
"""

import hashlib
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.initialise import find_weights, load_trained
from tasks import build_task, jobs

SAVED = Path(__file__).with_name("saved_by_version_1")
RUNS = ("yolo", "centernet")
# Of an output's largest value. Without oneDNN, which adds in another order, it is at most 2e-7.
ROUNDING = 1e-5
# After a step. AdamW moves a weight whose gradient is rounding alone by a whole learning rate: 4e-5 with AVX2. A fourth
# step without what the optimiser kept makes 3e-4 (SGD) and 6e-3 (AdamW).
AFTER_A_STEP = 1e-4


def experiment_of(run: str, *overrides: str) -> Experiment:
    """The configuration in a run folder; it names its shards from the repository's root, where tests may not run."""
    sources = [f"task.data.{split}.source.manifest={SAVED}/shards/train.json" for split in ("train", "validation")]
    return load_config(str(SAVED / run / "config.yaml"), Experiment, [*sources, *overrides])


def outputs(model: keras.Model) -> list[np.ndarray]:
    """Of the images that were used to record them: whole numbers, so that they are the same everywhere."""
    height, width = model.input_shape[1:3]
    numbers = np.arange(height * width * 3) * 7919 % 256
    images = (numbers.reshape(1, height, width, 3) / 255).astype(np.float32)
    return [np.asarray(output) for output in keras.tree.flatten(model(images, training=False))]


def trained(experiment: Experiment, weights: str) -> keras.Model:
    task = build_task(experiment)
    model = task.build_model()
    load_trained(model, find_weights(weights), task)
    return model


def weights_in(checkpoint: Path, group: str) -> dict[str, np.ndarray]:
    """A group of a checkpoint's arrays by variable, read by TensorFlow alone."""
    reader, end = tf.train.load_checkpoint(str(checkpoint / "state")), "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = [key for key in reader.get_variable_to_shape_map() if key.startswith(f"{group}/") and key.endswith(end)]
    names = [key.removeprefix(f"{group}/").removesuffix(end) for key in keys]
    names = [name.replace(".S", "/").replace("..", ".") for name in names]  # TensorFlow's way to write / and . in a key
    return {name: reader.get_tensor(key) for name, key in zip(names, keys, strict=True)}


def assert_same_weights(model: keras.Model, expected: dict[str, np.ndarray]) -> None:
    assert {variable.path for variable in model.variables} == expected.keys()
    for variable in model.variables:
        np.testing.assert_array_equal(variable, expected[variable.path])


def assert_as_recorded(name: str, model: keras.Model, bound: float = ROUNDING) -> None:
    with np.load(SAVED / "recorded.npz") as recorded:
        expected = [recorded[key] for key in sorted(recorded) if key.rpartition("_")[0] == name]
    assert expected
    for one, other in zip(outputs(model), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=bound * np.abs(other).max())


@pytest.mark.parametrize(("run", "group"), [("yolo", "average"), ("centernet", "weights")])
def test_a_checkpoint_gives_the_weights_and_outputs_it_gave(run, group):
    model = trained(experiment_of(run), str(SAVED / run))
    assert_same_weights(model, weights_in(SAVED / run / "checkpoints" / "step-00000003", group))
    assert_as_recorded(run, model)


@pytest.mark.parametrize(("run", "decimal"), [("yolo", 0), ("centernet", 0.01)])  # CenterNet writes two decimals
def test_evaluating_a_run_finds_what_it_found(run, decimal, tmp_path):
    metrics = jobs.evaluate(experiment_of(run), str(SAVED / run), str(tmp_path))
    then, now = (json.loads((folder / "detections.json").read_text()) for folder in (SAVED / run, tmp_path))
    assert len(then) > 20
    assert [row["image_id"] for row in now] == [row["image_id"] for row in then]
    assert [row["category_id"] for row in now] == [row["category_id"] for row in then]
    for key, bound in (("bbox", 1e-2), ("score", 1e-5)):  # pixels; of 0..1
        np.testing.assert_allclose([row[key] for row in now], [row[key] for row in then], atol=decimal + bound, rtol=0)
    saved = json.loads((SAVED / run / "metrics.json").read_text())
    assert (metrics["step"], metrics["images"]) == (saved["step"], saved["images"]) == (3, 4)
    assert metrics["AP"] == pytest.approx(saved["AP"], abs=1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_a_run_goes_on_from_its_third_step_to_the_fourth_it_made(run, tmp_path, capsys):
    folder = tmp_path / run
    shutil.copytree(SAVED / run, folder)
    experiment = experiment_of(run, "trainer.duration={steps: 4}")
    jobs.train(experiment, str(folder), evaluate=False)
    assert f"resumed from {folder}/checkpoints/step-00000003 at step 3" in capsys.readouterr().err
    model = trained(experiment, str(folder / "checkpoints" / "step-00000004"))
    assert_as_recorded(f"{run}_step_4", model, AFTER_A_STEP)


@pytest.mark.parametrize("name", ["yolo", "mixed"])
def test_a_keras_file_is_a_whole_model(name):
    assert_as_recorded(name, keras.saving.load_model(SAVED / f"{name}.keras", safe_mode=True))


def test_a_keras_file_has_the_weights_of_a_run():
    average = weights_in(SAVED / "yolo" / "checkpoints" / "step-00000003", "average")
    assert_same_weights(trained(experiment_of("yolo"), str(SAVED / "yolo.keras")), average)
    assert_same_weights(keras.saving.load_model(SAVED / "yolo.keras", safe_mode=True), average)


def test_every_class_that_a_keras_file_may_name_has_its_name_still():
    names = json.loads((SAVED / "registered.json").read_text())
    assert set(names) <= set(keras.saving.get_custom_objects())


def test_shards_hold_the_images_and_boxes_they_were_made_of():
    data = build_task(experiment_of("yolo")).train_data
    truth = json.loads((SAVED / "shards" / "instances_train.json").read_text())
    hashes = {line.split()[0] for line in (SAVED / "shards" / "images.sha256").read_text().splitlines()}
    rows = list(data.stored(range(len(data))))
    assert {hashlib.sha256(encoded).hexdigest() for _, encoded in rows} == hashes and len(rows) == 4
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for image, encoded in rows:
        own = [box for box in truth["annotations"] if box["image_id"] == image.image_id]
        assert image.size == sizes[image.image_id] == tuple(tf.io.decode_image(encoded).shape[:2])
        np.testing.assert_allclose(image.pixel_boxes, np.reshape([box["bbox"] for box in own], (-1, 4)), atol=1e-9)
        ids = [data.category_ids[index] for index in image.classes]
        assert ids == [box["category_id"] for box in own]
    assert sum(len(image.classes) for image, _ in rows) == len(truth["annotations"]) > 4
