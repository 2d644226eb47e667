"""Mistakes in what is decoded, detected, folded and exported: gate 3."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pytest import MonkeyPatch

import modeling.yolo.heads
import serving.formats.graph
import tasks.centernet.task
import tasks.detection
from configs.yolo.heads import YoloHead, YoloLevel
from modeling import folding
from modeling.yolo.heads import yolo
from official.vision import detect
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol
from tests.reproduction.known_bugs.run_experiments import CELLS, CENTERNET, DARKNET, DEMO, of_run

Plant = Callable[[MonkeyPatch], None]


def _decoded_with(change: Callable[[YoloLevel], dict[str, Any]]) -> Plant:
    """Decoding alone has other options of its levels; the loss has the right ones."""

    def plant(patch: MonkeyPatch) -> None:
        right = modeling.yolo.heads.BOX_DECODERS["yolo"]

        def decode(outputs: Any, head: YoloHead, size: tuple[int, int]) -> Any:
            levels = tuple(level.model_copy(update=change(level)) for level in head.levels)
            return right(outputs, head.model_copy(update={"levels": levels}), size)

        patch.setitem(modeling.yolo.heads.BOX_DECODERS, "yolo", decode)

    return plant


def _sides_exchanged(patch: MonkeyPatch) -> None:
    """The decoder takes (width, height)."""
    right = modeling.yolo.heads.BOX_DECODERS["yolo"]
    patch.setitem(
        modeling.yolo.heads.BOX_DECODERS, "yolo", lambda outputs, head, size: right(outputs, head, size[::-1])
    )


def _classes_alone(patch: MonkeyPatch) -> None:
    """A score is the class probability, without objectness. The loss has its own name of this function."""
    right = yolo.decode_level

    def level(*args: Any) -> yolo.DecodedLevel:
        found = right(*args)
        return found._replace(objectness=tf.ones_like(found.objectness))

    patch.setattr(yolo, "decode_level", level)


def _offset_left_out(patch: MonkeyPatch) -> None:
    right = tasks.centernet.task.decode
    patch.setattr(tasks.centernet.task, "decode", lambda outputs, head: right(outputs[:2], head))


def _epsilon(value: float) -> Plant:
    """Of the fold alone."""
    right = folding.folding_scale
    return lambda patch: patch.setattr(
        folding, "folding_scale", lambda gamma, variance, epsilon: right(gamma, variance, value)
    )


def _folded_from(change: Callable[[str, Any], Any]) -> Plant:
    """What the fold reads of a batch-norm."""

    def plant(patch: MonkeyPatch) -> None:
        right = folding._read
        patch.setattr(
            folding, "_read", lambda source, like, path=None: change(path or like.path, right(source, like, path))
        )

    return plant


def _no_root(path: str, values: Any) -> Any:
    """gamma / variance."""
    return values**2 if path.endswith("moving_variance") else values


def _no_mean(path: str, values: Any) -> Any:
    return 0 * values if path.endswith("moving_mean") else values


def _evaluates_levels(patch: MonkeyPatch) -> None:
    """The network is given 0..255, wherever something is detected."""
    patch.setattr(detect, "normalise", lambda images: tf.cast(images, tf.float32))


def _protocol(module: Any, **changed: Any) -> Plant:
    """What `module` detects by another protocol than the experiment's."""

    def plant(patch: MonkeyPatch) -> None:
        right = module.detect

        def wrong(
            model: Any, decode: Any, images: Any, sizes: Any, protocol: EvaluationProtocol, size: Any
        ) -> Detections:
            return right(model, decode, images, sizes, protocol.model_copy(update=changed), size)

        patch.setattr(module, "detect", wrong)

    return plant


def _exported_pixels(factor: float) -> Plant:
    """The graph's own step from levels to 0..1 is there a second time, or undone."""

    def plant(patch: MonkeyPatch) -> None:
        right = serving.formats.graph.detect
        patch.setattr(
            serving.formats.graph,
            "detect",
            lambda model, *rest: right(lambda images, training: model(factor * images, training=training), *rest),
        )

    return plant


def _exported_classes(patch: MonkeyPatch) -> None:
    """A background class in front."""
    right = serving.formats.graph.detect

    def wrong(*args: Any) -> Detections:
        found = right(*args)
        return found._replace(classes=found.classes + 1)

    patch.setattr(serving.formats.graph, "detect", wrong)


def _exported_relative(patch: MonkeyPatch) -> None:
    """Boxes stay relative, where the signature says pixels."""
    right = serving.formats.graph.detect

    def wrong(model: Any, decode: Any, images: Any, sizes: tf.Tensor, *rest: Any) -> Detections:
        found = right(model, decode, images, sizes, *rest)
        pixels = tf.cast(tf.tile(sizes, [1, 2]), tf.float32)[:, tf.newaxis]
        return found._replace(boxes=tf.clip_by_value(found.boxes, 0.0, 1.0) / pixels)

    patch.setattr(serving.formats.graph, "detect", wrong)


def _exported_in_input(patch: MonkeyPatch) -> None:
    """Boxes are relative to the letterboxed input; nothing takes them back to the image."""
    _protocol(serving.formats.graph, resize="stretch")(patch)


def _exported_first_size(patch: MonkeyPatch) -> None:
    """`encoded` takes the first image's size for the whole batch."""
    right = tf.map_fn

    def wrong(function: Callable[[Any], Any], elements: Any, **others: Any) -> Any:
        found = right(function, elements, **others)
        if not isinstance(found, tuple):  # resized images alone, of one size
            return found
        resized, sizes = found
        return resized, tf.tile(sizes[:1], [tf.shape(sizes)[0], 1])

    patch.setattr(serving.formats.graph.tf, "map_fn", wrong)


BUGS = (
    of_run("run: the decoder without scale_x_y", _decoded_with(lambda level: {"scale_x_y": 1.0}), 3, "own_decoding",
           "boxes", "scale_x_y", DARKNET, quick=True),
    of_run("run: the decoder's anchors in reverse order", _decoded_with(lambda level: {"mask": level.mask[::-1]}), 3,
           "own_decoding", "boxes", "anchors_permuted", CELLS),
    of_run("run: the decoder takes (width, height)", _sides_exchanged, 3, "own_decoding", "boxes",
           "height_width_swapped", DEMO),
    of_run("run: scores without objectness", _classes_alone, 3, "own_decoding", "scores", "score_product", DEMO),
    of_run("run: the fold's epsilon is Keras's", _epsilon(1e-3), 3, "own_inference", "output 0",
           "batch_norm_epsilon", DEMO),
    of_run("run: the fold divides by the variance", _folded_from(_no_root), 3, "own_inference", "output 0",
           "fold_statistics", DEMO),
    of_run("run: the fold forgets the mean", _folded_from(_no_mean), 3, "own_inference", "output 0",
           "fold_statistics", DEMO),
    of_run("run: evaluation gives 0..255", _evaluates_levels, 3, "own_detections", "image of *", "image_range", DEMO),
    of_run("run: evaluation drops scores below 0.2", _protocol(tasks.detection, score_floor=0.2), 3, "own_detections",
           "image of *", "score_floor", DARKNET),
    of_run("run: evaluation's NMS at 0.6", _protocol(tasks.detection, nms_threshold=0.6), 3, "own_detections",
           "image of *", "nms_threshold", DARKNET),
    of_run("run: the export normalises twice", _exported_pixels(1 / 255), 3, "own_export", "serving_default, image *",
           "image_range", DEMO),
    of_run("run: the export does not normalise", _exported_pixels(255.0), 3, "own_export", "serving_default, image *",
           "image_range", DEMO),
    of_run("run: the export without NMS", _protocol(serving.formats.graph, nms="none"), 3, "own_export",
           "serving_default, image *", "nms_kind", DEMO),
    of_run("run: the export's classes from 1", _exported_classes, 3, "own_export", "serving_default, image *",
           "class_ids_shifted", DEMO),
    of_run("run: the export's boxes are relative", _exported_relative, 3, "own_export", "serving_default, image *",
           "box_units", DEMO),
    of_run("run: the export's boxes stay letterboxed", _exported_in_input, 3, "own_export", "serving_default, image *",
           "letterbox_or_stretch", DEMO),
    of_run("run: the export has one size for a batch", _exported_first_size, 3, "own_export", "encoded, image 1",
           "image_size_of_another", DEMO),
    of_run("run: CenterNet decodes without offset", _offset_left_out, 3, "own_decoding", "boxes", "offset_missing",
           CENTERNET),
)  # fmt: skip
