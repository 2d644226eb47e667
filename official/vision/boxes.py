"""Boxes: the forms they come in, conversions, and the IoU family. The one place that knows either.

A box is the last axis of a float32 tensor (conversions also take float64, for files). All four forms work in any
unit, as long as both boxes of a pair share it:

    yxyx    top, left, bottom, right       the canonical form inside, relative to the image (0..1)
    xyxy    left, top, right, bottom
    cxcywh  centre x, centre y, width, height
    xywh    left, top, width, height

IoU, GIoU, DIoU and CIoU take cxcywh and broadcast. Values and gradients are finite for every finite pair, whether it is
apart, identical, or without area: sides below 1e-6 and areas below 1e-12 count as that much where they divide.
"""

import math
from typing import Literal

import tensorflow as tf
from jaxtyping import Float, Float32

from official.core.errors import UserError
from official.core.expect import expect

Yxyx = Float[tf.Tensor, "*batch yxyx=4"]
Xyxy = Float[tf.Tensor, "*batch xyxy=4"]
Cxcywh = Float[tf.Tensor, "*batch cxcywh=4"]
Xywh = Float[tf.Tensor, "*batch xywh=4"]
Boxes = Float[tf.Tensor, "*batch box=4"]  # of a form named beside it
BoxForm = Literal["yxyx", "xyxy", "cxcywh", "xywh"]

MIN_SIDE = 1e-6
MIN_AREA = MIN_SIDE**2


def cxcywh_to_yxyx(boxes: Cxcywh) -> Yxyx:
    """Centre and size to corners: [..., 4] to the same shape and dtype, any unit. Padding zeros stay zeros."""
    x, y, width, height = _numbers(boxes, "cxcywh")
    return tf.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=-1)


def yxyx_to_cxcywh(boxes: Yxyx) -> Cxcywh:
    """Corners to centre and size: [..., 4] to the same shape and dtype, any unit. Padding zeros stay zeros."""
    top, left, bottom, right = _numbers(boxes, "yxyx")
    return tf.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], axis=-1)


def xywh_to_yxyx(boxes: Xywh) -> Yxyx:
    """Left top corner and size to corners: [..., 4] to the same shape and dtype, any unit. Padding zeros stay zeros."""
    left, top, width, height = _numbers(boxes, "xywh")
    return tf.stack([top, left, top + height, left + width], axis=-1)


def yxyx_to_xywh(boxes: Yxyx) -> Xywh:
    """Corners to left top corner and size: [..., 4] to the same shape and dtype, any unit. Padding zeros stay zeros."""
    top, left, bottom, right = _numbers(boxes, "yxyx")
    return tf.stack([left, top, right - left, bottom - top], axis=-1)


def swap_xy(boxes: Boxes) -> Boxes:
    """xyxy to yxyx and back: [..., 4] to the same shape and dtype, any unit."""
    expect("boxes", boxes, Boxes, "xyxy or yxyx in the last axis")
    return tf.gather(boxes, [1, 0, 3, 2], axis=-1)


_TO_YXYX = {"yxyx": tf.identity, "xyxy": swap_xy, "cxcywh": cxcywh_to_yxyx, "xywh": xywh_to_yxyx}
_FROM_YXYX = {"yxyx": tf.identity, "xyxy": swap_xy, "cxcywh": yxyx_to_cxcywh, "xywh": yxyx_to_xywh}


def convert_boxes(boxes: Boxes, from_form: BoxForm, to_form: BoxForm) -> Boxes:
    """[..., 4] boxes (yxyx, xyxy, cxcywh or xywh) in another form, same unit.

    Equal forms return the very same values: no round trip.
    """
    unknown = [form for form in (from_form, to_form) if form not in _TO_YXYX]
    if unknown:
        raise UserError(f"convert_boxes: unknown box form {unknown[0]!r}; expected one of {', '.join(_TO_YXYX)}")
    return boxes if from_form == to_form else _FROM_YXYX[to_form](_TO_YXYX[from_form](boxes))


def iou(a: Float32[tf.Tensor, "*a cxcywh=4"], b: Float32[tf.Tensor, "*b cxcywh=4"]) -> Float32[tf.Tensor, "*pairs"]:
    """Intersection over union of cxcywh boxes that broadcast against each other, 0..1; 0 where neither has an area."""
    return _Pair(a, b).iou


def giou(a: Float32[tf.Tensor, "*a cxcywh=4"], b: Float32[tf.Tensor, "*b cxcywh=4"]) -> Float32[tf.Tensor, "*pairs"]:
    """Generalised IoU of cxcywh boxes, broadcasting, -1..1 (Rezatofighi et al. 2019, equation in algorithm 1)."""
    pair = _Pair(a, b)
    hull = pair.hull_width * pair.hull_height
    return pair.iou - (hull - pair.union) / tf.maximum(hull, MIN_AREA)


def diou(a: Float32[tf.Tensor, "*a cxcywh=4"], b: Float32[tf.Tensor, "*b cxcywh=4"]) -> Float32[tf.Tensor, "*pairs"]:
    """Distance IoU of cxcywh boxes, broadcasting, -1..1 (Zheng et al. 2020, eq. 7).

    The exponent of the distance term is 1, as in the paper; Darknet's NMS (box.c box_diou) raises it to 0.6.
    """
    pair = _Pair(a, b)
    return pair.iou - pair.distance


def ciou(a: Float32[tf.Tensor, "*a cxcywh=4"], b: Float32[tf.Tensor, "*b cxcywh=4"]) -> Float32[tf.Tensor, "*pairs"]:
    """Complete IoU of cxcywh boxes, broadcasting, below 1 (Zheng et al. 2020, eq. 8 to 11; Darknet box.c box_ciou).

    The trade-off weight of the aspect-ratio term is a constant for the gradient, as in both.
    """
    pair = _Pair(a, b)
    aspect = (4 / math.pi**2) * tf.square(_angle(b) - _angle(a))
    weight = tf.stop_gradient(aspect / (1 - pair.iou + aspect + 1e-6))
    return pair.iou - pair.distance - weight * aspect


def _numbers(boxes: tf.Tensor, form: BoxForm) -> list[tf.Tensor]:
    """The four numbers of each box."""
    expect("boxes", boxes, Boxes, f"{form} in the last axis")
    return tf.unstack(boxes, axis=-1)


def _angle(boxes: tf.Tensor) -> tf.Tensor:
    """arctan(width / height)."""
    return tf.math.atan2(tf.maximum(boxes[..., 2], MIN_SIDE), tf.maximum(boxes[..., 3], MIN_SIDE))


class _Pair:
    """What the IoU family is made of, for cxcywh boxes a and b.

    Along each axis two intervals reach from their mean length minus `reach` (shared) to their mean length plus `reach`
    (hull), where reach = max(distance of centres, half the difference of lengths). Unlike the maxima and minima of
    edges, this treats a and b alike where edges coincide: identical boxes get gradient zero, not one side's slope.
    """

    def __init__(self, a: tf.Tensor, b: tf.Tensor):
        ax, ay, aw, ah = tf.unstack(a, axis=-1)
        bx, by, bw, bh = tf.unstack(b, axis=-1)
        self.dx, self.dy = ax - bx, ay - by
        reach_x = tf.maximum(tf.abs(self.dx), tf.abs(aw - bw) / 2)
        reach_y = tf.maximum(tf.abs(self.dy), tf.abs(ah - bh) / 2)
        mean_width, mean_height = (aw + bw) / 2, (ah + bh) / 2
        self.hull_width, self.hull_height = mean_width + reach_x, mean_height + reach_y
        shared = tf.nn.relu(mean_width - reach_x) * tf.nn.relu(mean_height - reach_y)
        self.union = aw * ah + bw * bh - shared
        self.iou = shared / tf.maximum(self.union, MIN_AREA)

    @property
    def distance(self) -> tf.Tensor:
        """Squared distance of the centres over the squared diagonal of the hull."""
        diagonal = tf.square(self.hull_width) + tf.square(self.hull_height)
        return (tf.square(self.dx) + tf.square(self.dy)) / tf.maximum(diagonal, MIN_AREA)
