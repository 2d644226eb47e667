"""Boxes as Darknet's box.c computes with them, in its order of operations, so that float32 rounds as it does there.

All functions take cxcywh boxes, [..., 4] float32, that broadcast against each other. The IoU family of
`official.vision.boxes` has the same values but for rounding and DIoU's exponent, and smoother gradients.
"""

import math
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float32

A = Float32[tf.Tensor, "*a cxcywh=4"]
B = Float32[tf.Tensor, "*b cxcywh=4"]
Side = Float32[tf.Tensor, "*pairs"]
DIOU_EXPONENT = 0.6


class Edges(NamedTuple):
    top: Side
    bottom: Side
    left: Side
    right: Side


def _edges(boxes: tf.Tensor) -> Edges:
    x, y, width, height = tf.unstack(boxes, axis=-1)
    return Edges(y - height / 2, y + height / 2, x - width / 2, x + width / 2)


def _hull(one: Edges, other: Edges) -> tuple[tf.Tensor, tf.Tensor]:
    """(width, height) of the smallest box around both."""
    width = tf.maximum(one.right, other.right) - tf.minimum(one.left, other.left)
    return width, tf.maximum(one.bottom, other.bottom) - tf.minimum(one.top, other.top)


def _shared(one: Edges, other: Edges) -> tuple[tf.Tensor, tf.Tensor]:
    """(width, height) of the intersection; negative where there is a gap."""
    width = tf.minimum(one.right, other.right) - tf.maximum(one.left, other.left)
    return width, tf.minimum(one.bottom, other.bottom) - tf.maximum(one.top, other.top)


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return boxes[..., 2] * boxes[..., 3]


def _intersection(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    width, height = _shared(_edges(a), _edges(b))
    return tf.where((width < 0) | (height < 0), 0.0, width * height)


def _divided(numerator: tf.Tensor, denominator: tf.Tensor, otherwise: tf.Tensor | float) -> tf.Tensor:
    """A quotient, `otherwise` where the denominator is 0."""
    return tf.where(denominator == 0, otherwise, numerator / tf.where(denominator == 0, 1.0, denominator))


def iou(a: A, b: B) -> Float32[tf.Tensor, "*pairs"]:
    """Intersection over union (box_iou), 0..1; 0 where the union is empty."""
    intersection = _intersection(a, b)
    return _divided(intersection, _area(a) + _area(b) - intersection, 0.0)


def giou(a: A, b: B) -> Float32[tf.Tensor, "*pairs"]:
    """Generalised IoU (box_giou), -1..1."""
    width, height = _hull(_edges(a), _edges(b))
    hull = width * height
    union = _area(a) + _area(b) - _intersection(a, b)
    return iou(a, b) - _divided(hull - union, hull, 0.0)


def diou(a: A, b: B) -> Float32[tf.Tensor, "*pairs"]:
    """Distance IoU (box_diou), -1..1, its distance term to the power of 0.6, unlike the paper's and CIoU's."""
    return iou(a, b) - tf.pow(_distance(a, b), DIOU_EXPONENT)


def ciou(a: A, b: B) -> Float32[tf.Tensor, "*pairs"]:
    """Complete IoU (box_ciou), below 1. The sides of both boxes are above 0."""
    overlap = iou(a, b)
    aspect = _aspect_loss(_angle(b) - _angle(a))
    return overlap - (_distance(a, b) + aspect / (1 - overlap + aspect + 1e-6) * aspect)


KINDS = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def _distance(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared distance of the centres over the squared diagonal of the hull."""
    width, height = _hull(_edges(a), _edges(b))
    return _divided(_squared_distance(a, b), width * width + height * height, 0.0)


def _squared_distance(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.square(a[..., 0] - b[..., 0]) + tf.square(a[..., 1] - b[..., 1])


def _angle(boxes: tf.Tensor) -> tf.Tensor:
    return tf.math.atan(boxes[..., 2] / boxes[..., 3])


def _aspect_loss(angle: tf.Tensor) -> tf.Tensor:
    return 4 / math.pi**2 * angle * angle


def iou_gradient(predicted: A, true: B, kind: str) -> Float32[tf.Tensor, "*pairs cxcywh=4"]:
    """What Darknet takes for the derivative of the IoU `kind` by the predicted x, y, width and height (dx_box_iou).

    It is the derivative by x and y, but for a sign slip in DIoU and CIoU, and twice that by width and height. Where the
    boxes do not overlap, IoU's is that of a formula that then has no meaning; DIoU's and CIoU's have their own terms
    alone. Where they do and an edge coincides, the derivative is that of one side. Sides are above 0.
    """
    mine, other = _edges(predicted), _edges(true)
    wide, high = _shared(mine, other)
    shared = wide * high
    areas = [(edges.bottom - edges.top) * (edges.right - edges.left) for edges in (mine, other)]
    union = areas[0] + areas[1] - shared
    apart = (wide <= 0) | (high <= 0)
    # Each is a derivative by the four edges of the prediction.
    of_area = Edges(mine.left - mine.right, mine.right - mine.left, mine.top - mine.bottom, mine.bottom - mine.top)
    of_shared = Edges(
        tf.where(mine.top > other.top, -wide, 0.0),
        tf.where(mine.bottom < other.bottom, wide, 0.0),
        tf.where(mine.left > other.left, -high, 0.0),
        tf.where(mine.right < other.right, high, 0.0),
    )
    of_union = Edges(*(area - part for area, part in zip(of_area, of_shared, strict=True)))
    by_edge = _quotient_rule(shared, of_shared, union, of_union)
    by_edge = Edges(*(tf.where(union > 0, value, 0.0) for value in by_edge))
    top = tf.where(mine.top < mine.bottom, by_edge.top, by_edge.bottom)  # rounded to one: no side
    left = tf.where(mine.left < mine.right, by_edge.left, by_edge.right)
    by_edge = Edges(top, by_edge.bottom, left, by_edge.right)
    if kind == "giou":
        by_edge = _with_hull(by_edge, mine, other, union, of_union, apart)
    gradient = tf.stack(
        [
            by_edge.left + by_edge.right,
            by_edge.top + by_edge.bottom,
            by_edge.right - by_edge.left,
            by_edge.bottom - by_edge.top,
        ],
        axis=-1,
    )
    if kind not in ("diou", "ciou"):
        return gradient
    terms = _distance_terms(predicted, true, mine, other)
    if kind == "ciou":
        terms += _aspect_terms(predicted, true, shared / union)
    return tf.where(apart[..., tf.newaxis], terms, gradient + terms)


def _quotient_rule(numerator: tf.Tensor, of_numerator: Edges, denominator: tf.Tensor, of_denominator: Edges) -> Edges:
    square = denominator * denominator
    pairs = zip(of_numerator, of_denominator, strict=True)
    return Edges(*((denominator * one - numerator * other) / square for one, other in pairs))


def _with_hull(by_edge: Edges, mine: Edges, other: Edges, union: tf.Tensor, of_union: Edges, apart: tf.Tensor) -> Edges:
    """GIoU's union / hull, added; alone where the boxes are apart."""
    width, height = _hull(mine, other)
    of_hull = Edges(
        tf.where(mine.top < other.top, -width, 0.0),
        tf.where(mine.bottom > other.bottom, width, 0.0),
        tf.where(mine.left < other.left, -height, 0.0),
        tf.where(mine.right > other.right, height, 0.0),
    )
    terms = _quotient_rule(union, of_union, width * height, of_hull)
    return Edges(*(tf.where(apart, term, value + term) for value, term in zip(by_edge, terms, strict=True)))


def _distance_terms(predicted: tf.Tensor, true: tf.Tensor, mine: Edges, other: Edges) -> tf.Tensor:
    """DIoU's and CIoU's, [..., 4]: the squared distance over the squared diagonal, with a sign slip for x and y."""
    width, height = _hull(mine, other)
    diagonal = width * width + height * height
    distance = _squared_distance(predicted, true)

    def outer(beyond: tf.Tensor) -> tf.Tensor:
        return tf.cast(beyond, tf.float32)  # 1 where an edge of the prediction is the hull's

    right, left = outer(mine.right > other.right), outer(mine.left < other.left)
    bottom, top = outer(mine.bottom > other.bottom), outer(mine.top < other.top)
    by_x, by_y = 2 * width * (right - left), 2 * height * (bottom - top)
    by_width, by_height = width * (right + left), height * (bottom + top)
    square = diagonal * diagonal
    return tf.stack(
        [
            (2 * (true[..., 0] - predicted[..., 0]) * diagonal - by_x * distance) / square,
            (2 * (true[..., 1] - predicted[..., 1]) * diagonal - by_y * distance) / square,
            by_width * distance / square,
            by_height * distance / square,
        ],
        axis=-1,
    )


def _aspect_terms(predicted: tf.Tensor, true: tf.Tensor, overlap: tf.Tensor) -> tf.Tensor:
    """CIoU's, [..., 4], without 1 / (width^2 + height^2), left out on purpose."""
    angle = _angle(true) - _angle(predicted)
    aspect = _aspect_loss(angle)
    weighted = aspect / (1 - overlap + aspect + 1e-6) * 8 / math.pi**2 * angle
    none = tf.zeros_like(weighted)
    return tf.stack([none, none, weighted * predicted[..., 3], -weighted * predicted[..., 2]], axis=-1)
