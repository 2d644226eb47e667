"""NMS with a known mistake: what is restated, with one thing changed."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from official.vision.protocol import EvaluationProtocol
from reproduction.restated import nms
from reproduction.traces.causes.residual import Alternatives, Array

_KINDS = ("none", "per_class_iou", "greedynms", "diounms")
_THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.6, 0.65, 0.7)
_FLOORS = (0.001, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5)


def protocol_mistakes(right: EvaluationProtocol) -> Iterator[tuple[str, EvaluationProtocol]]:
    """Other kinds of NMS, thresholds and floors, by cause."""
    for kind in _KINDS:
        if kind != right.nms:
            yield f"nms_kind {kind}", right.model_copy(update={"nms": kind})
    yield "nms_kind DIoU, exponent 1", right.model_copy(update={"nms": "diounms", "beta_nms": 1.0})
    for threshold in _THRESHOLDS:
        if threshold != right.nms_threshold:
            yield f"nms_threshold {threshold}", right.model_copy(update={"nms_threshold": threshold})
    for floor in _FLOORS:
        if floor > right.score_floor:
            yield f"score_floor {floor}", right.model_copy(update={"score_floor": floor})


def suppression_alternatives(
    boxes: Float[np.ndarray, "boxes yxyx=4"], scores: Float[np.ndarray, "boxes classes"], right: EvaluationProtocol
) -> Alternatives:
    """The rows of `suppressed` with each mistake; boxes are yxyx."""
    found: dict[str, Callable[[], Array]] = {
        cause: lambda other=other: suppressed(boxes, scores, other) for cause, other in protocol_mistakes(right)
    }
    found["nms_kind over all classes together"] = lambda: _of_all_classes(boxes, scores, right)
    found["box_format yxyx expected, cxcywh given"] = lambda: _as_centred(boxes, scores, right)
    return found


def suppressed(
    boxes: Float[np.ndarray, "boxes yxyx=4"], scores: Float[np.ndarray, "boxes classes"], protocol: EvaluationProtocol
) -> Float[np.ndarray, "kept 6"]:
    """The rows (yxyx, class, score) that NMS leaves; boxes are yxyx."""
    kept = nms.detections(boxes, scores, protocol)
    return np.column_stack([kept.boxes, kept.classes, kept.scores])


def _of_all_classes(boxes: Array, scores: Array, protocol: EvaluationProtocol) -> Array:
    rows, columns = np.nonzero(scores > protocol.score_floor)
    kept: list[int] = []
    for place in np.argsort(-scores[rows, columns], kind="stable"):
        if not any(nms.suppresses(boxes[rows[other]], boxes[rows[place]], protocol) for other in kept):
            kept.append(place)
    return np.column_stack([boxes[rows[kept]], columns[kept], scores[rows[kept], columns[kept]]])


def _as_centred(boxes: Array, scores: Array, protocol: EvaluationProtocol) -> Array:
    """Centres and sides are taken for corners."""
    found = suppressed(from_xyxy(boxes), scores, protocol)
    centre, side = found[:, :2], found[:, 2:4]
    return np.concatenate([centre - side / 2, centre + side / 2, found[:, 4:]], axis=-1)


def from_xyxy(boxes: Float[np.ndarray, "*pairs xyxy=4"]) -> Float[np.ndarray, "*pairs cxcywh=4"]:
    """Boxes cxcywh of boxes xyxy."""
    near, far = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(near + far) / 2, far - near], axis=-1)
