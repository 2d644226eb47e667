"""The gradient by a [yolo] head's boxes with a known mistake: what changes is added to what the original recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from reproduction.hints.assignment import Assignment
from reproduction.hints.decoding import YoloHead
from reproduction.hints.overlaps import derivative
from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]


@dataclass(frozen=True)
class BoxLoss:
    """Of one head trained with an IoU loss.

    normaliser: what the slopes are multiplied by. raw: what the layer before the head gave it, [image, anchor, entry,
    row, column]. delta: what was recorded, alike: minus the gradient.
    """

    head: YoloHead
    assignment: Assignment
    kind: str  # iou, giou, diou or ciou
    normaliser: float
    raw: Array
    delta: Array

    def with_slopes(self, kind: str, sizes: Callable[[Array, Array], Array]) -> Array:
        """The delta with the derivative of an IoU, by width and height times `sizes`(exp of the raw number, anchor).

        Darknet's is times twice the exponential.
        """
        changed, boxes = np.array(self.delta, float), self.head.boxes(self.raw)
        slots: dict[tuple[int, ...], Array] = {}
        for image, number, anchor, row, column in self.assignment.matches():
            box, true = boxes[image, anchor, :, row, column], self.assignment.truth[image, number, :4]
            factors = sizes(self.exps()[image, anchor, :, row, column], self.anchors()[anchor])
            slopes = derivative(box, true, kind) * np.concatenate([[1, 1], factors])
            slot = image, anchor, row, column
            slots[slot] = slots.get(slot, 0) + self.normaliser * slopes
        for (image, anchor, row, column), slopes in slots.items():
            changed[image, anchor, :4, row, column] = slopes
        return changed

    def with_sizes(self, factors: Array) -> Array:
        """The delta of widths and heights times factors that broadcast to [image, anchor, 2, row, column]."""
        changed = np.array(self.delta, float)
        changed[:, :, 2:4] *= factors
        return changed

    def exps(self) -> Array:
        return np.exp(np.minimum(self.raw[:, :, 2:4], 30))

    def anchors(self) -> Array:
        """Relative to the input."""
        return np.array([self.head.anchors[index] for index in self.head.mask]) / np.array(self.head.size[::-1])


def box_loss_alternatives(right: BoxLoss) -> Alternatives:
    """Of the delta of the whole head."""
    anchors = right.anchors()[:, :, np.newaxis, np.newaxis]
    found: dict[str, Callable[[], Array]] = {
        "ciou_gradient_wh half": lambda: right.with_sizes(np.array(0.5)),
        "ciou_gradient_wh times the anchor": lambda: right.with_sizes(anchors),
        "ciou_gradient_wh half, times the anchor": lambda: right.with_sizes(anchors / 2),
        "ciou_gradient_wh without the exponential": lambda: right.with_sizes(1 / right.exps()),
        "ciou_gradient_wh the true derivative": lambda: right.with_slopes(right.kind, lambda exp, anchor: exp * anchor),
        "ciou_gradient_wh the true derivative, without the anchor": lambda: right.with_slopes(
            right.kind, lambda exp, anchor: exp
        ),
    }
    for other in ("iou", "giou", "diou", "ciou"):
        if other != right.kind:
            found[f"iou_kind {other}"] = lambda other=other: right.with_slopes(other, lambda exp, anchor: 2 * exp)
    return found
