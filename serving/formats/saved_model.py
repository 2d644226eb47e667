"""Export to a SavedModel with its own preprocessing, NMS and description: it detects what evaluation detects."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from official.core.errors import UserError
from official.vision.detect import Decode, detect
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import decode_image, pixel_type, resize_image, static_size

METADATA_FILE = "detector.json"
FORMAT = 1

_DETECTIONS = {
    "detection_boxes": "float32 [batch, n, 4]: top, left, bottom, right in pixels of the input image, clipped to it",
    "detection_scores": "float32 [batch, n]: 0..1, the best first",
    "detection_classes": "int32 [batch, n]: position in `classes`",
    "num_detections": "int32 [batch]: how many of the n rows are detections; the others are zeros",
}
SIGNATURES = {
    "serving_default": {
        "inputs": {"images": "uint8 [batch, height, width, 3]: RGB images of any one size"},
        "outputs": _DETECTIONS,
    },
    "encoded": {
        "inputs": {"contents": "string [batch]: the bytes of JPEG or PNG files; sizes may differ"},
        "outputs": _DETECTIONS,
    },
    "raw": {
        "inputs": {"images": "float32 [batch, *input_size, 3]: the network's own input, RGB 0..1"},
        "outputs": {
            "boxes": "float32 [batch, boxes, 4]: top, left, bottom, right relative to the network input, not clipped",
            "scores": "float32 [batch, boxes, classes]: of every box as every class, without floor and NMS",
        },
    },
}


def export_saved_model(
    model: keras.Model,
    decode: Decode,
    protocol: EvaluationProtocol,
    classes: Sequence[str],
    input_size: tuple[int, int],
    directory: str | os.PathLike,
    category_ids: Sequence[int] | None = None,
) -> Path:
    """Writes a SavedModel with the signatures of `SIGNATURES`, its description beside it (detector.json, README.md).

    The folder appears whole or not at all, and replaces an earlier export.

    Args:
        model: the network for inference, usually with batch norm folded; images float32 [b, *input_size, 3] 0..1.
        decode: turns its outputs into boxes (yxyx relative to the input) and scores.
        protocol: how evaluation detects; resizing, score floor and NMS become part of the graph.
        classes: names; the position is the contiguous class id.
        input_size: (height, width) of the network input.
        directory: of the export; its parents are made.
        category_ids: the data set's own id of each class, for COCO results; none: 1, 2, ... in the order of `classes`.

    Raises:
        UserError: `directory` is remote, or holds something that is not an export.
    """
    directory = local_path(directory, "export to a local folder, then copy that")
    if protocol.not_exportable:
        raise UserError(f"export: {protocol.not_exportable}")
    category_ids = range(1, len(classes) + 1) if category_ids is None else category_ids
    if len(classes) != len(category_ids):
        raise UserError(f"export: {len(category_ids)} category ids for {len(classes)} classes; expected one per class")
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    try:
        module, signatures = _build_signatures(model, decode, protocol, input_size)
        tf.saved_model.save(module, str(fresh), signatures=signatures)
        _describe(fresh, protocol, classes, category_ids, input_size)
        _replace(directory, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


def local_path(path: str | os.PathLike, remedy: str) -> Path:
    """The path, if it is one of this machine; `remedy` says what to do instead (gs://b/x would become gs:/b/x)."""
    if "://" in os.fspath(path):
        raise UserError(f"{path}: expected a local path; {remedy}")
    return Path(path)


def _refuse_foreign(directory: Path) -> None:
    is_ours = (directory / METADATA_FILE).is_file()
    if directory.exists() and not is_ours and (directory.is_file() or any(directory.iterdir())):
        raise UserError(f"{directory}: is in use and not an earlier export; choose another folder, or remove it")


def _build_signatures(
    model: keras.Model, decode: Decode, protocol: EvaluationProtocol, input_size: tuple[int, int]
) -> tuple[tf.Module, dict[str, tf.types.experimental.ConcreteFunction]]:
    sides = static_size(input_size, protocol)
    network = _with_constants(model, sides)

    def name_outputs(resized: tf.Tensor, image_sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        found = detect(network, decode, resized, image_sizes, protocol, input_size)
        pixels = tf.cast(tf.tile(image_sizes, [1, 2]), tf.float32)[:, tf.newaxis, :]  # [batch, 1, 4]
        return {
            "detection_boxes": tf.clip_by_value(found.boxes, 0.0, 1.0) * pixels,
            "detection_scores": found.scores,
            "detection_classes": found.classes,
            "num_detections": tf.reduce_sum(tf.cast(found.valid, tf.int32), axis=-1),  # [batch]
        }

    resized_spec = tf.TensorSpec([*sides, 3], pixel_type(protocol))

    def of_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        resized = tf.map_fn(
            lambda image: resize_image(image, input_size, protocol), images, fn_output_signature=resized_spec
        )
        shape = tf.shape(images)
        return name_outputs(resized, tf.tile(shape[tf.newaxis, 1:3], [shape[0], 1]))  # sizes [batch, 2]

    def of_contents(contents: tf.Tensor) -> dict[str, tf.Tensor]:
        def prepare(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = decode_image(encoded)
            return resize_image(image, input_size, protocol), tf.shape(image)[:2]

        def of_one(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
            found = name_outputs(*(part[tf.newaxis] for part in prepare(encoded)))
            return {name: part[0] for name, part in found.items()}

        if None in sides:  # inputs of several sizes make no batch
            most = protocol.detections_per_image
            rows = {"boxes": ([most, 4], tf.float32), "scores": ([most], tf.float32), "classes": ([most], tf.int32)}
            outputs = {f"detection_{name}": tf.TensorSpec(*spec) for name, spec in rows.items()}
            outputs["num_detections"] = tf.TensorSpec([], tf.int32)
            return tf.map_fn(of_one, contents, fn_output_signature=outputs)

        specs = (resized_spec, tf.TensorSpec([2], tf.int32))
        return name_outputs(*tf.map_fn(prepare, contents, fn_output_signature=specs))

    def of_input(images: tf.Tensor) -> dict[str, tf.Tensor]:
        boxes, scores = decode(network(images, training=False))
        return {"boxes": boxes, "scores": scores}

    inputs = {
        "serving_default": (of_images, tf.TensorSpec([None, None, None, 3], tf.uint8, "images")),
        "encoded": (of_contents, tf.TensorSpec([None], tf.string, "contents")),
        "raw": (of_input, tf.TensorSpec([None, *sides, 3], tf.float32, "images")),
    }
    return tf.Module(), {
        name: tf.function(function, autograph=False).get_concrete_function(spec)
        for name, (function, spec) in inputs.items()
    }


def _with_constants(model: keras.Model, input_size: tuple[int | None, int | None]) -> Callable[..., Any]:
    """The network for inference with its weights as constants, one function for all signatures.

    TensorFlow lays a constant kernel out for the processor once, a variable's anew at each call.
    """
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(variable) for variable in model.non_trainable_variables]

    def call(images: tf.Tensor) -> Any:
        constants = [[tf.constant(value) for value in values] for values in (weights, others)]
        return model.stateless_call(*constants, images, training=False)[0]

    spec = tf.TensorSpec([None, *input_size, 3], tf.float32, "images")
    concrete = tf.function(call, autograph=False).get_concrete_function(spec)

    def network(images: tf.Tensor, training: bool) -> Any:
        """The outputs, for as many images as are known to be given."""
        return tf.nest.map_structure(
            lambda output: tf.ensure_shape(output, [images.shape[0], *output.shape[1:]]), concrete(images)
        )

    return network


def _describe(
    directory: Path,
    protocol: EvaluationProtocol,
    classes: Sequence[str],
    category_ids: Sequence[int],
    input_size: tuple[int, int],
) -> None:
    metadata = {
        "format": FORMAT,
        "classes": list(classes),
        "category_ids": [int(category) for category in category_ids],
        "input_size": list(input_size),
        "protocol": protocol.model_dump(mode="json"),
        "signatures": SIGNATURES,
        "tensorflow": tf.__version__,
    }
    (directory / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"# A detector of {len(classes)} classes, as a TensorFlow SavedModel",
        "",
        f"Network input {input_size[0]} x {input_size[1]} (height x width). Resizing, decoding and NMS are inside, by",
        f"the protocol that evaluation used. {METADATA_FILE} holds it, the class names, and what is written here.",
        "",
    ]
    for name, signature in SIGNATURES.items():
        lines += [f"## Signature `{name}`", ""]
        for side in ("inputs", "outputs"):
            lines += [f"{side.capitalize()}:", "", *(f"- `{key}`: {text}" for key, text in signature[side].items()), ""]
    (directory / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _replace(directory: Path, fresh: Path) -> None:
    """Puts `fresh` in the place of `directory`: two renames, so there is never half an export under the name."""
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
