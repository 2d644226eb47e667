"""What is exported, whatever the format: the whole way from an image to its detections as functions, and what they are.

They detect what evaluation detects: resizing, score floor and NMS are inside, by the protocol of the experiment.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from official.core.errors import UserError
from official.vision.detect import Decode, detect
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import decode_image, pixel_type, resize_image, static_size

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


class DetectionGraph(NamedTuple):
    """A detector to be written in some format."""

    signatures: Mapping[str, tf.types.experimental.ConcreteFunction]  # those of `SIGNATURES`
    classes: tuple[str, ...]  # the position is the contiguous class id
    category_ids: tuple[int, ...]  # the data set's own id of each class
    input_size: tuple[int, int]  # (height, width) of the network's input in pixels
    protocol: EvaluationProtocol


def detection_graph(
    model: keras.Model,
    decode: Decode,
    protocol: EvaluationProtocol,
    classes: Sequence[str],
    input_size: tuple[int, int],
    category_ids: Sequence[int] | None = None,
) -> DetectionGraph:
    """Builds the functions of `SIGNATURES`; the network's weights are constants in them.

    Args:
        model: the network for inference, usually with batch norm folded; images float32 [b, *input_size, 3] 0..1.
        decode: turns its outputs into boxes (yxyx relative to the input) and scores.
        protocol: how evaluation detects; resizing, score floor and NMS become part of the graph.
        classes: names; the position is the contiguous class id.
        input_size: (height, width) of the network input.
        category_ids: the data set's own id of each class, for COCO results; none: 1, 2, ... in the order of `classes`.

    Raises:
        UserError: this protocol cannot be exported, or there is not one category id for each class.
    """
    if protocol.not_exportable:
        raise UserError(f"export: {protocol.not_exportable}")
    category_ids = range(1, len(classes) + 1) if category_ids is None else category_ids
    if len(classes) != len(category_ids):
        raise UserError(f"export: {len(category_ids)} category ids for {len(classes)} classes; expected one per class")
    signatures = _signatures(model, decode, protocol, input_size)
    return DetectionGraph(signatures, tuple(classes), tuple(map(int, category_ids)), tuple(input_size), protocol)


def _signatures(
    model: keras.Model, decode: Decode, protocol: EvaluationProtocol, input_size: tuple[int, int]
) -> dict[str, tf.types.experimental.ConcreteFunction]:
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
    return {
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
