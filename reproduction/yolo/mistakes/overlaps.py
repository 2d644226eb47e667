"""Overlaps of boxes and their derivatives with a known mistake: what is restated, with one thing changed.

Boxes are cxcywh in the last axis, and broadcast.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from reproduction.traces.causes.overlaps import from_xyxy
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.yolo.restated.boxes import DARKNET_KINDS, darknet_iou, diou, slopes

Boxes = Float[np.ndarray, "*#pairs cxcywh=4"]


def family(a: Boxes, b: Boxes, kinds: Mapping[str, Callable] = DARKNET_KINDS) -> Float[np.ndarray, "... kinds"]:
    """IoU, GIoU, DIoU and CIoU of pairs."""
    return np.stack([kind(a, b) for kind in kinds.values()], axis=-1)


def family_alternatives(a: Boxes, b: Boxes) -> Alternatives:
    """The numbers of `family` with each mistake."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    found: dict[str, Callable[[], Array]] = {}
    for form, read in {"xyxy": from_xyxy, "xywh": _from_xywh}.items():
        found[f"box_format {form} expected, cxcywh given"] = lambda read=read: family(read(a), read(b))
        found[f"box_format {form} expected, cxcywh given for the first alone"] = lambda read=read: family(read(a), b)
    found["iou_kind distance to the power of 1"] = lambda: family(a, b, {**DARKNET_KINDS, "diou": diou})
    found["iou_kind plain IoU for all"] = lambda: family(a, b, dict.fromkeys(DARKNET_KINDS, darknet_iou))
    return found


def derivative_alternatives(a: Boxes, b: Boxes, kind: str, expected: Boxes) -> Alternatives:
    """Darknet's hand-written derivative by `a`, which is `expected`, with each mistake."""
    return {
        "ciou_gradient_wh the true derivative": lambda: slopes(a, b, kind),
        "ciou_gradient_wh width and height halved": lambda: np.asarray(expected) * np.array([1, 1, 0.5, 0.5]),
        **{f"iou_kind {other}": lambda other=other: slopes(a, b, other) for other in DARKNET_KINDS if other != kind},
    }


def _from_xywh(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)
