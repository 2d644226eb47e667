"""Which slot of a [yolo] or [Gaussian_yolo] level answers for which truth (Darknet yolo_layer.c process_batch).

A slot is what predicts one box: an anchor of a cell. A truth asks the slot of its cell and of the one anchor, of all in
the table, whose shape overlaps its own best (the first of equals), if the level has that anchor. With iou_thresh below
1 it also asks the level's other anchors whose shape overlaps its own by more than that. Of the slots that nothing asks,
those are ignored whose best IoU with any truth is above ignore_thresh and of which any class is above 0.25.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from reproduction.yolo.restated.boxes import DARKNET_KINDS, darknet_iou
from reproduction.yolo.restated.common import Truths, cell_of, taking_part

PROBABLE = 0.25  # a class above it lets its slot be ignored
NEAR = 1e-5  # what differs by less may be decided otherwise in float32


class Assigned(NamedTuple):
    """What one level is asked for. A match is a truth and a slot that it asks."""

    object: Bool[np.ndarray, "batch rows columns anchors"]  # slots that a truth asks
    ignored: Bool[np.ndarray, "batch rows columns anchors"]  # neither asked nor background
    over: Bool[np.ndarray, "batch rows columns anchors"]  # overlaps a truth too much to be background; may be asked
    classes: Bool[np.ndarray, "batch rows columns anchors classes"]  # every class that is asked of a slot
    matches: Int64[np.ndarray, "matches 5"]  # (image, row, column, anchor of the level, truth), in order of the truths
    best: Bool[np.ndarray, " matches"]  # that anchor has, of all, the truth's shape best
    boxes: Float64[np.ndarray, "matches cxcywh=4"]  # the truth's, cxcywh relative to the network input
    labels: Int64[np.ndarray, " matches"]  # the truth's class
    undecided: Bool[np.ndarray, "batch rows columns anchors"]  # a threshold or a tie is so near that float32 may differ
    overlap: Float64[np.ndarray, "batch rows columns anchors"]  # best IoU with any truth of the image
    nearest: Int64[np.ndarray, "batch rows columns anchors"]  # the truth that has it, the first of equals


def assigned_to(
    boxes: Float64[np.ndarray, "batch rows columns anchors cxcywh=4"],
    classes: Float64[np.ndarray, "batch rows columns anchors classes"],
    truths: Truths,
    table: Float64[np.ndarray, "all 2"],
    mask: Sequence[int],
    rules: YoloLoss | GaussianYoloLoss,
) -> Assigned:
    """The assignment of one level.

    boxes: predicted, cxcywh relative to the network input; classes: predicted, 0..1; table: the relative (width,
    height) of all anchors; mask: which are this level's.
    """
    slots, count = boxes.shape[:4], classes.shape[4]
    found, best, places, labels = [], [], [], []
    overlap, nearest, undecided = np.zeros(slots), np.zeros(slots, np.int64), np.zeros(slots, bool)
    for image in range(slots[0]):
        for truth in taking_part(truths, image, count):
            box = truth.box.astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                mine = darknet_iou(boxes[image], box[np.newaxis])
            nearest[image] = np.where(mine > overlap[image], truth.number, nearest[image])
            overlap[image] = np.fmax(overlap[image], mine)
            cell = cell_of(truth.box, slots[1:3])
            asked, has_best, near = _anchors_of(box, table, mask, rules)
            undecided[(image, *cell)] |= near
            for anchor in np.flatnonzero(asked):
                found.append((image, *cell, anchor, truth.number))
                best.append(has_best[anchor])
                places.append(box)
                labels.append(truth.label)
    matches = np.array(found, np.int64).reshape(-1, 5)
    where = tuple(matches[:, :4].T)
    multi_hot, owned = np.zeros(classes.shape, bool), np.zeros(slots, bool)
    multi_hot[(*where, np.array(labels, np.int64))] = True
    owned[where] = True
    over, doubtful = _over(overlap, classes, rules)
    return Assigned(
        object=owned,
        ignored=over & ~owned,
        over=over,
        classes=multi_hot,
        matches=matches,
        best=np.array(best, bool),
        boxes=np.array(places, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        undecided=undecided | doubtful,
        overlap=overlap,
        nearest=nearest,
    )


def _over(
    overlap: np.ndarray, classes: np.ndarray, rules: YoloLoss | GaussianYoloLoss
) -> tuple[np.ndarray, np.ndarray]:
    """Of each slot: (whether it overlaps a truth too much to be background, whether float32 may say otherwise)."""
    probability = classes.max(axis=-1)

    def decided(by: float) -> np.ndarray:
        return (overlap > rules.ignore_thresh + by) & (probability > PROBABLE + by)

    doubtful = decided(-NEAR) & ~decided(NEAR)
    if rules.truth_thresh < 1:
        doubtful |= np.abs(overlap - rules.truth_thresh) < NEAR
    return decided(0.0), doubtful


def _anchors_of(
    box: np.ndarray, table: np.ndarray, mask: Sequence[int], rules: YoloLoss | GaussianYoloLoss
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each anchor of the level, [anchors] bool: a truth asks it; it is the best of all; float32 may differ."""
    shapes = np.concatenate([np.zeros_like(table), table], axis=-1)  # [all, 4], about one centre
    own = np.array([[0, 0, *box[2:]]])
    overlap, mask = darknet_iou(shapes, own), np.array(mask)
    best = mask == overlap.argmax()
    tied = np.abs(overlap - overlap.max()) < NEAR
    near = (tied & (tied.sum() > 1))[mask]
    if rules.iou_thresh >= 1:
        return best, best, near
    alike = DARKNET_KINDS[rules.iou_thresh_kind](shapes[mask], own)
    return best | (alike > rules.iou_thresh), best, near | (np.abs(alike - rules.iou_thresh) < NEAR)
