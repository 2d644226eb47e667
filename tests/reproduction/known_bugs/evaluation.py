"""Bugs of evaluation and export: entries 8 and 29 to 32."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from pytest import MonkeyPatch

from modeling.darknet.cfg import read_cfg
from official.vision import evaluator, nms, resize
from reproduction.experiment.subject import Subject
from reproduction.originals import with_original
from reproduction.yolo import inference
from reproduction.yolo.recipe import darknet_experiment
from tasks.yolo.darknet_files import coco_classes
from tests.reproduction.known_bugs.bug import Bug

CFG, LABELS = "yolo-fastest-1.1.cfg", "instances_val2017_80.json"


def yolo_fastest(shared: Path) -> Subject:
    """With its weights, on the photographs."""
    folder = shared / "assets" / "darknet" / "yolo-fastest-1.1"
    photographs = shared / "assets" / "coco_val"
    source = f"{{type: coco, annotations: {photographs}/{LABELS}, images: {photographs}/images}}"
    # Nothing is trained; but type checks look at every property of a task, and some open its training data.
    data = [f"task.data.{split}.source={source}" for split in ("train", "validation")]
    classes = coco_classes(read_cfg(str(folder / CFG)), str(photographs / LABELS), None, None)
    data.append(f"task.data.classes={list(classes)}")
    experiment = darknet_experiment(str(folder / CFG), str(folder / "yolo-fastest-1.1.weights"), data)
    return with_original(Subject(experiment, (shared / "golden",), shared / "assets"))


def _least_score(floor: float) -> Callable[[MonkeyPatch], None]:
    """What scores less is dropped, whatever the protocol says (OpenCV: 0.2)."""

    def plant(patch: MonkeyPatch) -> None:
        right = nms.best_pairs

        def pairs(boxes, scores, protocol):
            higher = max(protocol.score_floor, floor)
            return right(boxes, scores, protocol.model_copy(update={"score_floor": higher}))

        patch.setattr(nms, "best_pairs", pairs)

    return plant


def _kind(name: str) -> Callable[[MonkeyPatch], None]:
    """One kind of NMS for all."""

    def plant(patch: MonkeyPatch) -> None:
        right = nms._suppresses
        change = {"nms": name}
        patch.setattr(nms, "_suppresses", lambda boxes, protocol: right(boxes, protocol.model_copy(update=change)))

    return plant


def _over_all_classes(patch: MonkeyPatch) -> None:
    right = nms._greedy
    patch.setattr(nms, "_greedy", lambda ranked, protocol: right(ranked._replace(classes=0 * ranked.classes), protocol))


def _threshold(value: float) -> Callable[[MonkeyPatch], None]:
    def plant(patch: MonkeyPatch) -> None:
        right = nms._suppresses
        change = {"nms_threshold": value}
        patch.setattr(nms, "_suppresses", lambda boxes, protocol: right(boxes, protocol.model_copy(update=change)))

    return plant


def _bars(level: float) -> Callable[[MonkeyPatch], None]:
    return lambda patch: patch.setattr(resize, "padding_level", lambda protocol, dtype: tf.constant(level, dtype))


def _boxes_stay_in_input(patch: MonkeyPatch) -> None:
    """A letterboxed image's boxes are taken for those of a stretched one."""
    right = inference.boxes_to_original

    def wrong(boxes, image_size, size, protocol):
        return right(boxes, image_size, size, protocol.model_copy(update={"resize": "stretch"}))

    patch.setattr(inference, "boxes_to_original", wrong)


def _index_plus_one(patch: MonkeyPatch) -> None:
    """COCO's ids taken for contiguous ones; what has no such id is lost."""
    right = evaluator.coco_results

    def results(detections, ids, sizes, categories, protocol):
        found = right(detections, ids, sizes, list(range(1, 91)), protocol)
        return [one for one in found if one["category_id"] in set(categories)]

    patch.setattr(evaluator, "coco_results", results)


def _results_above(floor: float) -> Callable[[MonkeyPatch], None]:
    """The file of detections lacks what scores less."""

    def plant(patch: MonkeyPatch) -> None:
        right = evaluator.coco_results
        patch.setattr(evaluator, "coco_results", lambda *args: [one for one in right(*args) if one["score"] > floor])

    return plant


def _darknet_map(patch: MonkeyPatch) -> None:
    """Darknet's own mAP, told as COCO's AP."""
    right = evaluator.CocoEvaluator.result

    def result(self):
        metrics = right(self)
        return metrics | {"AP": metrics["darknet_mAP50"]}

    patch.setattr(evaluator.CocoEvaluator, "result", result)


_NMS = ("nms/case0", "yolo-fastest-1.1__*")
_SCORE = ("yolo-fastest-1.1_opencv",)
_BEFORE = ("act_bn_leaky", "iou", "nms/case0")
_AP = "yolo-fastest-1.1_opencv: AP"

BUGS = (
    Bug("scores below 0.25 are dropped", (29,), _least_score(0.25), 3, ("yolo-fastest-1.1__*",),
        "yolo-fastest-1.1__*: resize/thresh0.005/default", "score_floor"),
    Bug("results hold only scores above 0.2", (29,), _results_above(0.2), 4, _SCORE, _AP, "score_floor", yolo_fastest,
        _BEFORE),
    Bug("greedynms is plain greedy", (32,), _kind("per_class_iou"), 3, _NMS,
        "nms/case0: case0/greedynms_0.45", "nms_kind", before=("act_bn_leaky",), quick=True),
    Bug("NMS over all classes together", (32,), _over_all_classes, 3, _NMS,
        "nms/case0: case0/default_0.45", "nms_kind"),
    Bug("NMS by another threshold", (32,), _threshold(0.6), 3, _NMS,
        "nms/case0: case0/default_0.45", "nms_threshold"),
    Bug("serving pads with 0", (31,), _bars(0), 8, ("image_ops/letterbox_32x24",),
        "image_ops/letterbox_32x24: letterbox_32x24", "letterbox_value"),
    Bug("serving pads with 114", (31,), _bars(114), 8, ("image_ops/letterbox_32x24",),
        "image_ops/letterbox_32x24: letterbox_32x24", "letterbox_value"),
    Bug("letterboxed boxes are not taken back", (31,), _boxes_stay_in_input, 3, ("yolov4-tiny__*",),
        "yolov4-tiny__*: letterbox/thresh0.005/raw", "letterbox_or_stretch"),
    Bug("COCO's 91 ids as 80 indices", (8,), _index_plus_one, 4, _SCORE, _AP, "class_ids_91", yolo_fastest, _BEFORE),
    Bug("Darknet's mAP told as COCO's AP", (30,), _darknet_map, 4, _SCORE, _AP, "metric_protocol", yolo_fastest,
        _BEFORE),
)  # fmt: skip
