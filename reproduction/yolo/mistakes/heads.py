"""A level of a [yolo] head with a known mistake: its boxes, its assignment and its delta, restated for other inputs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from configs.yolo.heads import YoloHead
from configs.yolo.losses import YoloLoss
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.yolo.restated.boxes import DARKNET_KINDS, slopes
from reproduction.yolo.restated.common import Truths, anchors_of, sigmoid, size_factors
from reproduction.yolo.restated.yolo import assign, darknet_deltas, decode

_NOTHING = 1e-6  # a side of padding that claims a slot: too small to overlap anything
Slots = Float[np.ndarray, "image rows columns anchors numbers"]


class Level(NamedTuple):
    """What the formulas of one level are given."""

    head: YoloHead  # of this level alone
    raw: Slots
    size: tuple[int, int]  # (height, width) of the network's input in pixels
    rules: YoloLoss = YoloLoss()
    truth: Truths | None = None  # for what is more than decoding

    @classmethod
    def of(cls, head: YoloHead, number: int, rules: YoloLoss, *given: Array | tuple[int, int] | Truths) -> "Level":
        """One of a head's levels, and its raw outputs, the input's size and the truths."""
        level = head.levels[number]
        anchors = head.anchors if level.anchors is None else level.anchors
        alone = {"anchors": anchors, "levels": (level.model_copy(update={"anchors": None, "loss": None}),)}
        raw, size, *truth = given
        return cls(head.model_copy(update=alone), raw, size, level.loss or rules, *truth)

    def otherwise(self, **options: object) -> "Level":
        """With other options of the level."""
        level = self.head.levels[0].model_copy(update=options)
        return self._replace(head=self.head.model_copy(update={"levels": (level,)}))

    def boxes(self) -> Slots:
        """cxcywh relative to the network's input."""
        return decode(self.raw, self.head, self.head.levels[0], self.size).boxes

    def class_ids(self) -> Int64[np.ndarray, "image anchors rows columns"]:
        """The class of the truth that each slot is the best one for, -1 for none; of several truths the last one's."""
        found = assign(self.raw, self.truth, self.head, self.head.levels[0], self.rules, self.size)
        ids = np.full(self.raw.shape[:4], -1)
        ids[tuple(found.matches[found.best, :4].T)] = found.labels[found.best]
        return np.moveaxis(ids, 3, 1)

    def delta(self) -> Slots:
        """Darknet's, by what the level was given."""
        return darknet_deltas([self.raw], self.truth, self.head, self.rules, self.size).deltas[0]


def decoding_alternatives(right: Level) -> Alternatives:
    """Of the level's boxes."""
    rows, columns = right.raw.shape[1:3]
    found: dict[str, Callable[[], Array]] = {cause: other.boxes for cause, other in _other_anchors(right)}
    found["height_width_swapped grid"] = lambda: right.boxes() * [columns / rows, rows / columns, 1, 1]
    for scale in (1.0, 1.05, 1.1, 1.2, 2.0):
        if scale != right.head.levels[0].scale_x_y:
            found[f"scale_x_y {scale}"] = right.otherwise(scale_x_y=scale).boxes
    twice = np.concatenate([sigmoid(right.raw[..., :2]), right.raw[..., 2:]], axis=-1)
    found["activation_twice"] = right._replace(raw=twice).boxes
    plain = right.otherwise(new_coords=True)
    found["activation_missing"] = lambda: np.concatenate([plain.boxes()[..., :2], right.boxes()[..., 2:]], axis=-1)
    return found


def assignment_alternatives(right: Level) -> Alternatives:
    """Of the level's class ids."""
    boxes, classes, valid = right.truth
    everything = np.ones_like(valid)
    count = right.raw.shape[4] - 5

    def padded(place: float) -> Truths:
        """What is no truth claims the slot of a cell."""
        at = np.array([place, place, _NOTHING, _NOTHING], np.float32)
        return Truths(np.where(valid[..., np.newaxis], boxes, at), np.where(valid, classes, 0), everything)

    corners = np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], axis=-1)
    truths = {
        "height_width_swapped cells": Truths(boxes[..., [1, 0, 2, 3]], classes, valid),
        "height_width_swapped widths and heights of truths": Truths(boxes[..., [0, 1, 3, 2]], classes, valid),
        "box_format boxes as corner and size of truths": Truths(corners, classes, valid),
        "padded_rows_scatter first cell": padded(0.0),
        "padded_rows_scatter last cell": padded(1.0),
        "second_truth_ignored": Truths(*(part[:, ::-1] for part in right.truth)),  # so that the first one is the last
        "class_ids_shifted plus 1": Truths(boxes, (classes + 1) % count, valid),
        "class_ids_shifted minus 1": Truths(boxes, (classes - 1) % count, valid),
    }
    others = dict(_other_anchors(right)) | {cause: right._replace(truth=truth) for cause, truth in truths.items()}
    return {cause: other.class_ids for cause, other in others.items()}


def _other_anchors(right: Level) -> Iterator[tuple[str, Level]]:
    """Other anchors, and other sizes that they are divided by."""
    anchors, mask = right.head.anchors, right.head.levels[0].mask
    count = len(mask)
    masks = [tuple(range(first, first + count)) for first in range(len(anchors) - count + 1)]
    masks += [tuple(index + shift for index in mask) for shift in (1, -1)]
    for other in dict.fromkeys(masks):
        if other != mask and set(other) <= set(range(len(anchors))):
            yield f"anchor_mask {other}", right.otherwise(mask=other)
    turned = tuple(anchor[::-1] for anchor in anchors)
    yield "height_width_swapped anchors", right._replace(head=right.head.model_copy(update={"anchors": turned}))
    yield "height_width_swapped network size", right._replace(size=right.size[::-1])
    yield "anchor_units not divided", right._replace(size=(1, 1))
    yield "anchor_units grid cells", right._replace(size=right.raw.shape[1:3])
    for side in (416, 608):
        yield f"anchor_units of an input of {side}", right._replace(size=(side, side))


def delta_alternatives(right: Level, delta: Slots) -> Alternatives:
    """Of the delta of a level with an IoU loss; `delta` is what was recorded."""
    exps = size_factors(right.raw[..., 2:4])
    anchors = anchors_of(right.head, right.head.levels[0], right.size)

    def sizes(factors: Array) -> Callable[[], Array]:
        """The delta of widths and heights times factors."""
        return lambda: np.concatenate([delta[..., :2], delta[..., 2:4] * factors, delta[..., 4:]], axis=-1)

    found = {
        "ciou_gradient_wh half": sizes(np.array(0.5)),
        "ciou_gradient_wh times the anchor": sizes(anchors),
        "ciou_gradient_wh half, times the anchor": sizes(anchors / 2),
        "ciou_gradient_wh without the exponential": sizes(1 / exps),
        "ciou_gradient_wh the true derivative": lambda: _truly_derived(right, delta, exps * anchors),
        "ciou_gradient_wh the true derivative, without the anchor": lambda: _truly_derived(right, delta, exps),
    }
    for kind in DARKNET_KINDS:
        if kind != right.rules.iou_loss:
            rules = right.rules.model_copy(update={"iou_loss": kind})
            found[f"iou_kind {kind}"] = right._replace(rules=rules).delta
    return found


def _truly_derived(right: Level, delta: Slots, factors: Array) -> Slots:
    """The delta with the derivative of the IoU by the boxes, by width and height times `factors`."""
    found = assign(right.raw, right.truth, right.head, right.head.levels[0], right.rules, right.size)
    where = tuple(found.matches[:, :4].T)
    derived = right.rules.iou_normalizer * slopes(right.boxes()[where], found.boxes, right.rules.iou_loss)
    derived[:, 2:] *= factors[where]
    entries = np.zeros((*delta.shape[:4], 4))
    np.add.at(entries, where, derived)
    return np.concatenate([np.where(found.object[..., np.newaxis], entries, delta[..., :4]), delta[..., 4:]], axis=-1)
