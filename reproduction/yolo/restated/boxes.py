"""Overlaps of boxes and their derivatives: the papers', and Darknet's own with what is odd about them.

All boxes are cxcywh in the last axis, in any unit that both share, and broadcast against each other.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

A = Float[np.ndarray, "*a cxcywh=4"]
B = Float[np.ndarray, "*b cxcywh=4"]
Pairs = Float64[np.ndarray, "*pairs"]
Sides = Float64[np.ndarray, "*pairs 2"]
Slopes = Float64[np.ndarray, "*pairs cxcywh=4"]
Flags = Bool[np.ndarray, "*pairs"]

DIOU_EXPONENT = 0.6  # of the distance in Darknet's box_diou
MIN_SIDE = 1e-6  # sides below it, and areas below its square, count as that much where they divide
MIN_AREA = MIN_SIDE**2


class Edges(NamedTuple):
    """Of cxcywh boxes."""

    top: Pairs
    bottom: Pairs
    left: Pairs
    right: Pairs


def edges(boxes: A) -> Edges:
    """The edges of cxcywh boxes."""
    x, y, width, height = np.moveaxis(boxes.astype(np.float64), -1, 0)
    return Edges(y - height / 2, y + height / 2, x - width / 2, x + width / 2)


def area(boxes: A) -> Float64[np.ndarray, "*a"]:
    """Width times height of cxcywh boxes."""
    return boxes[..., 2].astype(np.float64) * boxes[..., 3]


def shared_sides(a: A, b: B) -> tuple[Pairs, Pairs]:
    """(width, height) of what two cxcywh boxes share; negative where there is a gap."""
    one, other = edges(a), edges(b)
    width = np.minimum(one.right, other.right) - np.maximum(one.left, other.left)
    return width, np.minimum(one.bottom, other.bottom) - np.maximum(one.top, other.top)


def hull_sides(a: A, b: B) -> tuple[Pairs, Pairs]:
    """(width, height) of the smallest box around two cxcywh boxes."""
    one, other = edges(a), edges(b)
    width = np.maximum(one.right, other.right) - np.minimum(one.left, other.left)
    return width, np.maximum(one.bottom, other.bottom) - np.minimum(one.top, other.top)


def shared_and_union(a: A, b: B) -> tuple[Pairs, Pairs]:
    """Areas of the intersection and of the union of cxcywh boxes."""
    width, height = shared_sides(a, b)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    return shared, area(a) + area(b) - shared


def iou(a: A, b: B) -> Pairs:
    """Intersection over union of cxcywh boxes, 0..1; 0 where neither has an area."""
    shared, union = shared_and_union(a, b)
    return shared / np.maximum(union, MIN_AREA)


def giou(a: A, b: B) -> Pairs:
    """Generalised IoU of cxcywh boxes, -1..1 (Rezatofighi et al. 2019, algorithm 1)."""
    width, height = hull_sides(a, b)
    hull = width * height
    return iou(a, b) - (hull - shared_and_union(a, b)[1]) / np.maximum(hull, MIN_AREA)


def diou(a: A, b: B) -> Pairs:
    """Distance IoU of cxcywh boxes, -1..1 (Zheng et al. 2020, eq. 7)."""
    return iou(a, b) - distance(a, b)


def ciou(a: A, b: B) -> Pairs:
    """Complete IoU of cxcywh boxes, below 1 (Zheng et al. 2020, eq. 8 to 11)."""
    return diou(a, b) - trade_off(a, b) * aspect(a, b)


KINDS = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}


def distance(a: A, b: B) -> Pairs:
    """Squared distance of the centres of cxcywh boxes over the squared diagonal of their hull."""
    width, height = hull_sides(a, b)
    return squared_distance(a, b) / np.maximum(width**2 + height**2, MIN_AREA)


def squared_distance(a: A, b: B) -> Pairs:
    """Of the centres of cxcywh boxes."""
    return np.square(a[..., :2].astype(np.float64) - b[..., :2]).sum(axis=-1)


def angle(boxes: A) -> Float64[np.ndarray, "*a"]:
    """arctan(width / height) of cxcywh boxes."""
    sides = np.maximum(boxes[..., 2:].astype(np.float64), MIN_SIDE)
    return np.arctan2(sides[..., 0], sides[..., 1])


def aspect(a: A, b: B) -> Pairs:
    """CIoU's v of cxcywh boxes: how much their aspect ratios differ, 0..1."""
    return 4 / math.pi**2 * np.square(angle(b) - angle(a))


def trade_off(a: A, b: B) -> Pairs:
    """CIoU's weight alpha of v, for cxcywh boxes."""
    v = aspect(a, b)
    return v / (1 - iou(a, b) + v + 1e-6)


def slopes(a: A, b: B, kind: str) -> Slopes:
    """The derivative of an IoU kind by x, y, width and height of the cxcywh box `a`.

    CIoU's alpha is a constant for it, as in the paper's own code and in Darknet. Where edges coincide, the sides of
    both boxes are treated alike: two identical boxes have the derivative 0.
    """
    a, b = np.broadcast_arrays(a.astype(np.float64), b.astype(np.float64))
    nothing = np.zeros(a.shape[:-1])
    by_centre, by_side, shared_side, hull_side = _sides(a, b)
    open_ = shared_side > 0
    shared_side = np.maximum(shared_side, 0)

    def of_product(sides: Sides, centre: Sides, side: Sides) -> Slopes:
        across = sides[..., ::-1]
        return np.concatenate([centre * across, side * across], axis=-1)

    of_shared = of_product(shared_side, -by_centre * open_, (0.5 - by_side) * open_)
    shared = shared_side.prod(axis=-1)
    union = area(a) + area(b) - shared
    of_union = np.stack([nothing, nothing, a[..., 3], a[..., 2]], axis=-1) - of_shared
    found = _of_quotient(shared, of_shared, union, of_union)
    of_hull_sides = by_centre, 0.5 + by_side
    if kind == "giou":
        return found + _of_quotient(union, of_union, hull_side.prod(axis=-1), of_product(hull_side, *of_hull_sides))
    if kind in ("diou", "ciou"):
        apart = 2 * np.concatenate([a[..., :2] - b[..., :2], np.zeros_like(hull_side)], axis=-1)
        of_diagonal = np.concatenate([2 * hull_side * part for part in of_hull_sides], axis=-1)
        found = found - _of_quotient(squared_distance(a, b), apart, np.square(hull_side).sum(axis=-1), of_diagonal)
    if kind == "ciou":
        width, height = np.maximum(a[..., 2], MIN_SIDE), np.maximum(a[..., 3], MIN_SIDE)
        by_angle = 8 / math.pi**2 * (angle(a) - angle(b)) / (width**2 + height**2)
        of_aspect = np.stack([nothing, nothing, by_angle * height, -by_angle * width], axis=-1)
        found = found - trade_off(a, b)[..., np.newaxis] * of_aspect * (a >= MIN_SIDE)
    return found


def _sides(a: Slopes, b: Slopes) -> tuple[Sides, Sides, Sides, Sides]:
    """Along x and y, [..., 2]: of the reach, its derivatives by centre and side; shared side (or gap), side of hull.

    Two intervals share their mean length less the reach, and their hull is their mean length plus the reach.
    """
    between, longer = a[..., :2] - b[..., :2], a[..., 2:] - b[..., 2:]
    by_distance = np.abs(between) >= np.abs(longer) / 2
    reach = np.maximum(np.abs(between), np.abs(longer) / 2)
    mean = (a[..., 2:] + b[..., 2:]) / 2
    by_centre = np.where(by_distance, np.sign(between), 0)
    by_side = np.where(by_distance, 0, np.sign(longer) / 2)
    return by_centre, by_side, mean - reach, mean + reach


def _of_quotient(numerator: Pairs, of_numerator: Slopes, denominator: Pairs, of_denominator: Slopes) -> Slopes:
    """Derivatives [..., 4] of a quotient whose denominator is at least MIN_AREA."""
    enough = denominator >= MIN_AREA
    safe = np.maximum(denominator, MIN_AREA)[..., np.newaxis]
    other = np.where(enough, numerator, 0)[..., np.newaxis] * of_denominator
    return of_numerator / safe - other / safe**2


def darknet_iou(a: A, b: B) -> Pairs:
    """Intersection over union of cxcywh boxes as box.c box_iou has it: 0 where the union is 0."""
    shared, union = shared_and_union(a, b)
    return np.divide(shared, union, out=np.zeros(np.shape(union)), where=union != 0)


def darknet_giou(a: A, b: B) -> Pairs:
    """Generalised IoU of cxcywh boxes (box.c box_giou)."""
    width, height = hull_sides(a, b)
    hull = width * height
    rest = hull - shared_and_union(a, b)[1]
    return darknet_iou(a, b) - np.divide(rest, hull, out=np.zeros(np.shape(hull)), where=hull != 0)


def darknet_diou(a: A, b: B) -> Pairs:
    """Distance IoU of cxcywh boxes (box.c box_diou), its distance to the power of 0.6, unlike the paper's."""
    return darknet_iou(a, b) - distance(a, b) ** DIOU_EXPONENT


def darknet_ciou(a: A, b: B) -> Pairs:
    """Complete IoU of cxcywh boxes with sides above 0 (box.c box_ciou); the distance has no exponent."""
    return darknet_iou(a, b) - distance(a, b) - trade_off(a, b) * aspect(a, b)


DARKNET_KINDS = {"iou": darknet_iou, "giou": darknet_giou, "diou": darknet_diou, "ciou": darknet_ciou}


def darknet_slopes(predicted: A, true: B, kind: str) -> Slopes:
    """What Darknet takes for the derivative of an IoU kind by the predicted cxcywh (box.c dx_box_iou).

    By x and y it is the derivative, but for a sign slip in DIoU and CIoU; by width and height it is twice that. Where
    boxes are apart, DIoU and CIoU have their own terms alone, GIoU the hull's, and IoU a formula without a meaning.
    Where edges coincide, the derivative is that of one side. Sides are above 0.
    """
    predicted, true = np.broadcast_arrays(predicted.astype(np.float64), true.astype(np.float64))
    mine, other = edges(predicted), edges(true)
    (wide, high), (hull_width, hull_height) = shared_sides(predicted, true), hull_sides(predicted, true)
    shared = wide * high  # the product of two gaps, where there are two
    union = area(predicted) + area(true) - shared
    apart = (wide <= 0) | (high <= 0)
    hull = hull_width * hull_height

    def by_edge(of_area: Pairs, inside: Flags, of_shared: Pairs, outside: Flags, of_hull: Pairs) -> Pairs:
        of_shared = np.where(inside, of_shared, 0)
        of_union = of_area - of_shared
        positive = np.where(union > 0, union, 1)
        slope = np.where(union > 0, (union * of_shared - shared * of_union) / positive**2, 0)
        if kind != "giou":
            return slope
        term = (hull * of_union - union * np.where(outside, of_hull, 0)) / hull**2
        return np.where(apart, term, slope + term)

    width, height = predicted[..., 2], predicted[..., 3]
    top = by_edge(-width, mine.top > other.top, -wide, mine.top < other.top, -hull_width)
    bottom = by_edge(width, mine.bottom < other.bottom, wide, mine.bottom > other.bottom, hull_width)
    left = by_edge(-height, mine.left > other.left, -high, mine.left < other.left, -hull_height)
    right = by_edge(height, mine.right < other.right, high, mine.right > other.right, hull_height)
    found = np.stack([left + right, top + bottom, right - left, bottom - top], axis=-1)
    if kind not in ("diou", "ciou"):
        return found
    terms = _darknet_distance_terms(predicted, true)
    if kind == "ciou":
        difference = angle(true) - angle(predicted)
        v = aspect(predicted, true)
        alpha = v / (1 - shared / union + v + 1e-6)
        factor = alpha * 8 / math.pi**2 * difference  # without 1 / (width^2 + height^2), on purpose
        terms[..., 2] += factor * height
        terms[..., 3] -= factor * width
    return np.where(apart[..., np.newaxis], terms, found + terms)


def _darknet_distance_terms(predicted: Slopes, true: Slopes) -> Slopes:
    """DIoU's and CIoU's own terms, [..., 4]. By x and y, the second summand should be subtracted from a plus."""
    mine, other = edges(predicted), edges(true)
    width, height = hull_sides(predicted, true)
    diagonal, apart = width**2 + height**2, squared_distance(predicted, true)
    right, left = 1.0 * (mine.right > other.right), 1.0 * (mine.left < other.left)
    bottom, top = 1.0 * (mine.bottom > other.bottom), 1.0 * (mine.top < other.top)
    x, y = np.moveaxis(true[..., :2] - predicted[..., :2], -1, 0)
    terms = [
        2 * x * diagonal - 2 * width * (right - left) * apart,
        2 * y * diagonal - 2 * height * (bottom - top) * apart,
        width * (right + left) * apart,
        height * (bottom + top) * apart,
    ]
    return np.stack(terms, axis=-1) / np.square(diagonal)[..., np.newaxis]
