"""Overlaps of boxes, their derivatives and NMS with a known mistake, in NumPy, away from the product.

Boxes are cxcywh in the last axis, and broadcast.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]
DIOU_EXPONENT = 0.6  # Darknet's, of values and NMS; its derivatives have none
_STEP = 1e-6  # of a side, to each way, for derivatives
_SMALL = 1e-12


def family(a: Array, b: Array, exponent: float = DIOU_EXPONENT) -> Array:
    """IoU, GIoU, DIoU, CIoU of pairs, [..., 4]."""
    return np.stack([_VALUES[kind](a, b, exponent) for kind in _VALUES], axis=-1)


def derivative(a: Array, b: Array, kind: str) -> Array:
    """By the x, y, w, h of `a`, of the paper's formula; CIoU's trade-off held, as in every implementation."""
    a, b = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float))
    shape, a, b = a.shape, a.reshape(-1, 4), b.reshape(-1, 4)
    held = _trade_off(a, b) if kind == "ciou" else None

    def value(boxes: Array) -> Array:
        if kind == "ciou":
            return _iou(boxes, b) - _distance(boxes, b) - held * _aspect(boxes, b)
        return _VALUES[kind](boxes, b, 1.0)

    found = np.empty(a.shape)
    for column in range(4):
        step = _STEP * np.maximum(np.abs(a[..., 2 + column % 2]), _STEP)
        moved = [a.copy(), a.copy()]
        moved[0][..., column] += step
        moved[1][..., column] -= step
        found[..., column] = (value(moved[0]) - value(moved[1])) / (2 * step)
    return found.reshape(shape)


def family_alternatives(a: Array, b: Array) -> Alternatives:
    """Of what `family` gives."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    found: dict[str, Callable[[], Array]] = {}
    for form, read in _READ.items():
        found[f"box_format {form} expected, cxcywh given"] = lambda read=read: family(read(a), read(b))
        found[f"box_format {form} expected, cxcywh given for the first alone"] = lambda read=read: family(read(a), b)
    found["iou_kind distance to the power of 1"] = lambda: family(a, b, 1.0)
    plain = _iou(a, b)
    found["iou_kind plain IoU for all"] = lambda: np.stack([plain] * 4, axis=-1)
    return found


def derivative_alternatives(a: Array, b: Array, kind: str, expected: Array) -> Alternatives:
    """Of Darknet's hand-written derivative; `expected` is that."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return {
        "ciou_gradient_wh the true derivative": lambda: derivative(a, b, kind),
        "ciou_gradient_wh width and height halved": lambda: np.asarray(expected) * np.array([1, 1, 0.5, 0.5]),
        **{f"iou_kind {other}": lambda other=other: derivative(a, b, other) for other in _VALUES if other != kind},
    }


def suppression_alternatives(boxes: Array, scores: Array, kind: str, threshold: float, floor: float) -> Alternatives:
    """Of the rows (yxyx, class, score) that NMS leaves.

    boxes: yxyx [n, 4]; scores [n, classes]; kind: of `Protocol.nms`; floor: scores up to it are no candidates.
    """

    def left(**changed) -> Callable[[], Array]:
        return lambda: suppressed(boxes, scores, **({"kind": kind, "threshold": threshold, "floor": floor} | changed))

    found = {f"nms_kind {other}": left(kind=other) for other in ("per_class_iou", "greedynms") if other != kind}
    found["nms_kind DIoU, exponent 1"] = left(kind="diou", exponent=1.0)
    found["nms_kind over all classes together"] = left(per_class=False)
    found["nms_kind none"] = left(threshold=math.inf)
    for other in (0.3, 0.4, 0.45, 0.5, 0.6, 0.65, 0.7):
        if other != threshold:
            found[f"nms_threshold {other}"] = left(threshold=other)
    found["box_format yxyx expected, cxcywh given"] = left(read=_as_cxcywh)
    for other in (0.001, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5):
        if other > floor:
            found[f"score_floor {other}"] = left(floor=other)
    return found


def suppressed(
    boxes: Array,
    scores: Array,
    kind: str,
    threshold: float,
    floor: float,
    exponent: float = DIOU_EXPONENT,
    per_class: bool = True,
    read: Callable[[Array], Array] = lambda boxes: boxes,
) -> Array:
    """Greedy NMS: rows (yxyx, class, score). `read`: what the overlap takes the boxes for."""
    top, left, bottom, right = read(np.asarray(boxes, float)).T
    centred = np.column_stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    rows, columns = np.nonzero(scores > floor)
    order = np.argsort(-scores[rows, columns], kind="stable")
    groups = [order[columns[order] == c] for c in np.unique(columns)] if per_class else [order]
    kept = []
    for waiting in groups:
        waiting = list(waiting)
        while waiting:
            best, *rest = waiting
            waiting = np.array(rest, int)
            kept.append(best)
            others, chosen = centred[rows[waiting]], centred[rows[[best]]]
            overlap = _iou(others, chosen)
            if kind != "per_class_iou":
                overlap = overlap - _distance(others, chosen) ** exponent
            waiting = waiting[overlap <= threshold].tolist()
    return np.column_stack([boxes[rows[kept]], columns[kept], scores[rows[kept], columns[kept]]])


def _iou(a: Array, b: Array, exponent: float = 1.0) -> Array:
    wide, high = (np.maximum(0, _shared(a, b, axis)) for axis in (0, 1))
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - wide * high
    return np.divide(wide * high, union, out=np.zeros(np.shape(union)), where=union != 0)


def _giou(a: Array, b: Array, exponent: float = 1.0) -> Array:
    hull = _hull(a, b, 0) * _hull(a, b, 1)
    wide, high = (np.maximum(0, _shared(a, b, axis)) for axis in (0, 1))
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - wide * high
    return _iou(a, b) - np.divide(hull - union, hull, out=np.zeros(np.shape(hull)), where=hull != 0)


def _diou(a: Array, b: Array, exponent: float = DIOU_EXPONENT) -> Array:
    return _iou(a, b) - _distance(a, b) ** exponent


def _ciou(a: Array, b: Array, exponent: float = 1.0) -> Array:
    return _iou(a, b) - _distance(a, b) - _trade_off(a, b) * _aspect(a, b)


_VALUES: Mapping[str, Callable[..., Array]] = {"iou": _iou, "giou": _giou, "diou": _diou, "ciou": _ciou}


def _trade_off(a: Array, b: Array) -> Array:
    aspect = _aspect(a, b)
    return aspect / (1 - _iou(a, b) + aspect + 1e-6)


def _aspect(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        angle = np.arctan(b[..., 2] / b[..., 3]) - np.arctan(a[..., 2] / a[..., 3])
    return 4 / math.pi**2 * angle**2


def _distance(a: Array, b: Array) -> Array:
    """Squared, of the centres, over the squared diagonal of the hull."""
    diagonal = _hull(a, b, 0) ** 2 + _hull(a, b, 1) ** 2
    apart = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
    return apart / np.maximum(diagonal, _SMALL)


def _edges(a: Array, axis: int) -> tuple[Array, Array]:
    return a[..., axis] - a[..., 2 + axis] / 2, a[..., axis] + a[..., 2 + axis] / 2


def _shared(a: Array, b: Array, axis: int) -> Array:
    (low, high), (other_low, other_high) = _edges(a, axis), _edges(b, axis)
    return np.minimum(high, other_high) - np.maximum(low, other_low)


def _hull(a: Array, b: Array, axis: int) -> Array:
    (low, high), (other_low, other_high) = _edges(a, axis), _edges(b, axis)
    return np.maximum(high, other_high) - np.minimum(low, other_low)


def _from_xyxy(boxes: Array) -> Array:
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)


def _from_xywh(boxes: Array) -> Array:
    return boxes + np.stack([boxes[..., 2] / 2, boxes[..., 3] / 2, *[0 * boxes[..., 0]] * 2], axis=-1)


_READ: Mapping[str, Callable[[Array], Array]] = {"xyxy": _from_xyxy, "xywh": _from_xywh}


def _as_cxcywh(boxes: Array) -> Array:
    """yxyx -> the numbers of cxcywh, to be taken for corners (x, y, x, y)."""
    top, left, bottom, right = boxes.T
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return np.column_stack([y, x, height, width])
