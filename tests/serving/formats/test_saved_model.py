import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from official.core.errors import UserError
from official.vision.detect import detect
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import decode_image, resize_image
from serving.formats import write_export
from serving.formats.graph import SIGNATURES, detection_graph
from serving.predict import detect_files


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported.directory))


def as_evaluated(exported, contents):
    """Evaluation's path from the bytes of images: detections with boxes in pixels."""
    images = [decode_image(tf.constant(encoded)) for encoded in contents]
    resized = tf.stack([resize_image(image, exported.input_size, exported.protocol) for image in images])
    sizes = tf.constant([image.shape[:2] for image in images], tf.int32)
    evaluate = tf.function(detect, autograph=False)
    found = evaluate(exported.model, exported.decode, resized, sizes, exported.protocol, exported.input_size)
    clipped = tf.clip_by_value(found.boxes, 0.0, 1.0)
    return found._replace(boxes=clipped * np.tile(sizes, 2)[:, None].astype(np.float32))


def assert_equal(outputs, found):
    count = found.valid.numpy().sum(axis=1)
    assert count.min() >= 2  # otherwise the comparison says little
    np.testing.assert_array_equal(outputs["num_detections"], count)
    np.testing.assert_array_equal(outputs["detection_classes"], found.classes)
    np.testing.assert_allclose(outputs["detection_scores"], found.scores, atol=1e-6)
    np.testing.assert_allclose(outputs["detection_boxes"], found.boxes, atol=1e-3)


def test_encoded_images_of_different_sizes_equal_the_evaluation(exported, loaded, photos):
    contents = [(photos / name).read_bytes() for name in ("a.jpg", "b.png", "c.JPEG")]
    assert_equal(loaded.signatures["encoded"](contents=tf.constant(contents)), as_evaluated(exported, contents))


def test_image_batch_equals_the_evaluation(exported, loaded):
    for size in ((120, 90), (33, 71)):
        images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        contents = [tf.io.encode_png(image).numpy() for image in images]
        assert_equal(loaded.signatures["serving_default"](images=tf.constant(images)), as_evaluated(exported, contents))


def test_raw_is_the_decoded_network(exported, loaded):
    images = tf.constant(np.random.default_rng(0).random((2, *exported.input_size, 3)), tf.float32)
    outputs = loaded.signatures["raw"](images=images)
    boxes, scores = exported.decode(exported.model(images, training=False))
    np.testing.assert_allclose(outputs["boxes"], boxes, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], scores, atol=1e-5)
    assert outputs["scores"].shape == (2, 2 * (3 * 2 + 6 * 4), 3)


def test_signatures_are_as_documented(exported, loaded):
    assert set(loaded.signatures) == set(SIGNATURES)
    metadata = json.loads((exported.directory / "detector.json").read_text())
    readme = (exported.directory / "README.md").read_text()
    assert metadata["signatures"] == SIGNATURES
    for name, signature in SIGNATURES.items():
        function = loaded.signatures[name]
        assert set(function.structured_input_signature[1]) == set(signature["inputs"])
        assert set(function.structured_outputs) == set(signature["outputs"])
        sides = {"inputs": function.structured_input_signature[1], "outputs": function.structured_outputs}
        for side, specs in sides.items():
            for key, spec in specs.items():
                assert signature[side][key].startswith(spec.dtype.name), key
                assert f"- `{key}`: {signature[side][key]}" in readme


def test_description_holds_the_protocol(exported):
    metadata = json.loads((exported.directory / "detector.json").read_text())
    assert EvaluationProtocol.model_validate(metadata["protocol"]) == exported.protocol
    assert metadata["classes"] == ["circle", "star", "square"] and metadata["category_ids"] == [3, 7, 90]
    assert metadata["input_size"] == [96, 64]


def one_box(outputs):
    """Decodes the mean colour of the image as the scores of three classes for one fixed box."""
    scores = outputs[:, tf.newaxis, :]  # [b, 1, 3]
    return tf.zeros_like(scores[..., :1]) + tf.constant([0.1, 0.2, 0.6, 0.9]), scores


def export_small(directory, **changes):
    image = keras.Input((16, 24, 3))
    arguments = {
        "model": keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)),
        "decode": one_box,
        "protocol": EvaluationProtocol(),
        "classes": ("x", "y", "z"),
        "input_size": (16, 24),
    }
    return write_export(detection_graph(**arguments | changes), "saved_model", directory)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(
    ("interpolation", "nms"),
    [
        ("opencv", "greedynms"),
        pytest.param("bilinear", "per_class_iou", marks=pytest.mark.slow),
        pytest.param("align_corners", "diounms", marks=pytest.mark.slow),
    ],
)
def test_every_interpolation_and_nms_is_the_evaluations(tmp_path, photos, resize, interpolation, nms):
    keras.utils.set_random_seed(3)
    corners = np.random.default_rng(0).random((1, 40, 2, 2), np.float32)
    boxes = tf.constant(np.sort(corners, axis=2).reshape(1, 40, 4))
    image = keras.Input((16, 24, 3))
    scores = keras.layers.Dense(120, "sigmoid")(keras.layers.Flatten()(image))
    exported = SimpleNamespace(
        directory=tmp_path / "model",
        model=keras.Model(image, keras.layers.Reshape((40, 3))(scores)),
        decode=lambda outputs: (tf.tile(boxes, [tf.shape(outputs)[0], 1, 1]), outputs),
        protocol=EvaluationProtocol(
            resize=resize, interpolation=interpolation, nms=nms, beta_nms=0.8, nms_threshold=0.2
        ),
        input_size=(16, 24),
    )
    export_small(**vars(exported))
    signatures = tf.saved_model.load(str(exported.directory)).signatures
    contents = [(photos / name).read_bytes() for name in ("a.jpg", "b.png")]
    outputs = signatures["encoded"](contents=tf.constant(contents))
    found = as_evaluated(exported, contents)
    assert_equal(outputs, found)
    assert found.valid.numpy().sum() < 2 * 120  # some were suppressed
    for row, encoded in enumerate(contents):
        single = signatures["serving_default"](images=decode_image(tf.constant(encoded))[tf.newaxis])
        np.testing.assert_allclose(single["detection_scores"][0], outputs["detection_scores"][row], atol=1e-6)
    done = detect_files(exported.directory, [str(photos / "a.jpg")], tmp_path / "found", 0.0)
    assert done["detections"] == outputs["num_detections"][0]


def test_replaces_an_export_but_nothing_else(tmp_path):
    export_small(tmp_path / "model")
    (tmp_path / "model" / "stale").touch()
    export_small(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]  # no temporary folders stay
    assert not (tmp_path / "model" / "stale").exists()
    assert json.loads((tmp_path / "model" / "detector.json").read_text())["category_ids"] == [1, 2, 3]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    for foreign in (photos, photos / "holiday.jpg"):
        with pytest.raises(UserError, match="not an earlier export"):
            export_small(foreign)
    assert (photos / "holiday.jpg").is_file()


def test_a_failing_export_leaves_the_earlier_one(tmp_path):
    directory = export_small(tmp_path / "model")

    def broken(outputs):
        raise RuntimeError("decode failed")

    with pytest.raises(RuntimeError, match="decode failed"):
        export_small(directory, decode=broken)
    assert (directory / "saved_model.pb").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_category_ids_that_do_not_fit_the_classes(tmp_path):
    with pytest.raises(ValueError, match="2 category ids for 3 classes"):
        export_small(tmp_path / "model", category_ids=(1, 2))
    assert not list(tmp_path.iterdir())


def test_a_remote_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^gs://b/x: expected a local path; export to a local folder, then copy that$"):
        export_small("gs://b/x")
    assert not list(tmp_path.iterdir())
