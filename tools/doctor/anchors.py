"""The fit of a head's anchors to the boxes, and the anchors that k-means would choose, as Darknet computes them.

Source: AlexeyAB/darknet src/detector.c calc_anchors, src/matrix.c do_kmeans. Boxes and anchors are (width, height) in
pixels of the network's input, both as if centred at one point; a box's distance to a centre is 1 - IoU. The start is k
different boxes, drawn at random; a centre becomes the mean of its boxes, and stays where it was if it has none; the
end is the first round that moves no box, or the thousandth. Darknet stretches all images; here the experiment's own
resize rule counts. Its random start is the clock's, here it is the seed's.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from tools.doctor.findings import Finding, percent

Sides = Float64[np.ndarray, "n 2"]  # width, height
IOU_LEVELS = (0.25, 0.5, 0.75)
RATIO = 4.0  # Scaled-YOLOv4 and YOLOv7 match a box to an anchor up to this many times longer or shorter
_ROUNDS = 1000
_GAIN = 0.05  # of the mean IoU, from which other anchors are recommended
_IDLE = 0.01  # of the boxes, below which a level hardly learns


class Fit(NamedTuple):
    """The fit of anchors to boxes.

    Attributes:
        mean_iou: of each box with its best anchor, by shape.
        recall: share of the boxes whose best IoU is at least so much.
        ratio_recall: share of the boxes with an anchor at most 4 times longer or shorter on either side.
    """

    anchors: tuple[tuple[float, float], ...]
    mean_iou: float
    recall: dict[str, float]
    ratio_recall: float

    def __str__(self) -> str:
        recalls = ", ".join(f"{100 * share:.1f} % at {level}" for level, share in self.recall.items())
        return f"mean best IoU {self.mean_iou:.3f}; recall {recalls}; {100 * self.ratio_recall:.1f} % within 4 times"


class Level(NamedTuple):
    """A level of the head: its anchors, and for how many boxes one of them is the best of all."""

    anchors: tuple[tuple[float, float], ...]
    boxes: int


class Anchors(NamedTuple):
    """The verdict on a head's anchors; `skipped` says why there is none."""

    skipped: str = ""
    boxes: int = 0
    config: Fit | None = None
    levels: tuple[Level, ...] = ()
    without_level: int = 0
    k_means: Fit | None = None

    @property
    def gain(self) -> float:
        """Gain of mean best IoU by the k-means anchors. One start may end in a poor minimum: it can be below 0."""
        return self.k_means.mean_iou - self.config.mean_iou

    @property
    def yaml(self) -> str:
        """The k-means anchors as they stand below task.model.head."""
        rows = ", ".join(f"[{width:g}, {height:g}]" for width, height in self.k_means.anchors)
        return f"anchors: [{rows}]"

    def as_dict(self) -> dict[str, Any]:
        if self.skipped:
            return {"skipped": self.skipped}
        return {
            "boxes": self.boxes,
            "config": self.config._asdict(),
            "levels": [level._asdict() for level in self.levels],
            "boxes_without_level": self.without_level,
            "k_means": {**self.k_means._asdict(), "yaml": self.yaml},
        }


def shape_iou(boxes: Sides, anchors: Float64[np.ndarray, "k 2"]) -> Float64[np.ndarray, "n k"]:
    """IoU of boxes and anchors that share their centre."""
    shared = np.minimum(boxes[:, np.newaxis], anchors).prod(2)  # [n, k]
    return shared / (boxes.prod(1)[:, np.newaxis] + anchors.prod(1) - shared)


def k_means(boxes: Sides, count: int, seed: int) -> Float64[np.ndarray, "count 2"]:
    """Anchors, smallest area first. There must be at least `count` boxes."""
    start = np.random.default_rng(seed).permutation(len(boxes))[:count]
    centres = boxes[start].copy()
    nearest: Int64[np.ndarray, " n"] = np.full(len(boxes), -1)
    for _ in range(_ROUNDS):
        before, nearest = nearest, shape_iou(boxes, centres).argmax(1)
        if (nearest == before).all():
            break
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, boxes[:, axis], count) for axis in (0, 1)], axis=1)  # [count, 2]
        centres = np.where(members[:, np.newaxis] > 0, sums / np.maximum(members, 1)[:, np.newaxis], centres)
    return centres[np.argsort(centres.prod(1), kind="stable")]


def fit(boxes: Sides, anchors: Float64[np.ndarray, "k 2"]) -> Fit:
    best = shape_iou(boxes, anchors).max(1)
    ratio = boxes[:, np.newaxis] / anchors  # [n, k, 2]
    close = (np.maximum(ratio, 1 / ratio).max(2) <= RATIO).any(1)
    return Fit(
        tuple((float(width), float(height)) for width, height in anchors),
        float(best.mean()),
        {str(level): float((best >= level).mean()) for level in IOU_LEVELS},
        float(close.mean()),
    )


def examine_anchors(head: Any, boxes: Sides, count: int | None, seed: int) -> Anchors:
    """Fit of a head's anchors to the boxes that training sees.

    Args:
        head: of a model's configuration, of any family.
        count: of k-means anchors; none: as many as the head has.
    """
    if not hasattr(head, "anchors_of"):
        has = "counts its anchors in cells of a grid" if hasattr(head, "anchors") else "has no anchors"
        return Anchors(skipped=f"head {getattr(head, 'type', '')!r} {has}")
    count = count or len(head.anchors)
    if len(boxes) < count:
        return Anchors(skipped=f"{len(boxes)} boxes are too few for {count} anchors")
    levels, placed = [], np.zeros(len(boxes), bool)
    for level in head.levels:
        # As Darknet: the best of the level's whole table is sought, and the level answers if its mask has it.
        best = shape_iou(boxes, np.array(head.table(level))).argmax(1)
        mine = np.isin(best, level.mask)
        placed |= mine
        levels.append(Level(head.anchors_of(level), int(mine.sum())))
    found = np.maximum(np.round(k_means(boxes, count, seed), 1), 0.1)  # as they will be pasted
    without_level = int((~placed).sum())
    return Anchors("", len(boxes), fit(boxes, np.array(head.anchors)), tuple(levels), without_level, fit(boxes, found))


def anchor_findings(anchors: Anchors, split: str) -> list[Finding]:
    """Findings where other anchors, or another division of them among the levels, would serve better."""
    if anchors.skipped:
        return [Finding("note", "anchors_skipped", split, f"anchors are not examined: {anchors.skipped}", 0)]
    findings = []
    if anchors.gain > _GAIN:
        what = f"mean best IoU {anchors.config.mean_iou:.3f}; {len(anchors.k_means.anchors)} anchors of k-means have"
        what += f" {anchors.k_means.mean_iou:.3f}"
        cause = "anchors of another data set or input size"
        remedy = f"task.model.head: {anchors.yaml}"
        findings.append(Finding("warning", "anchors_fit_badly", split, what, anchors.boxes, (), cause, remedy))
    if anchors.without_level:
        what = f"the best anchor of {percent(anchors.without_level, anchors.boxes)} of the boxes is in no level's mask:"
        what += " without iou_thresh below 1 nothing learns them"
        remedy = "give the anchor to a level, or leave it out (published cfgs may mean it so)"
        findings.append(Finding("warning", "anchor_of_no_level", split, what, anchors.without_level, (), "", remedy))
    for number, level in enumerate(anchors.levels):
        if level.boxes < _IDLE * anchors.boxes:
            what = f"levels[{number}] answers for {percent(level.boxes, anchors.boxes)} of the boxes; it hardly learns"
            remedy = "other anchors or masks, or one level less"
            findings.append(Finding("warning", "idle_level", split, what, level.boxes, (), "", remedy))
    return findings
