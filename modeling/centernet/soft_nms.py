"""Soft non-maximum suppression, and the merge of detections made at several scales, on the host.

CenterNet lib/external/nms.pyx soft_nms (method 2), lib/detectors/ctdet.py merge_outputs; Bodla et al. 2017.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

SIGMA = 0.5
LEAST_SCORE = 0.001  # a box that falls below takes no further part


class Rows(NamedTuple):
    """Detections of one image."""

    boxes: Float32[np.ndarray, "n xyxy=4"]  # xyxy in pixels
    scores: Float32[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]


def soft_nms(
    boxes: Float32[np.ndarray, "n xyxy=4"], scores: Float32[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "n xyxy=4"], Float32[np.ndarray, " n"], int]:
    """Boxes of one class in the order of choice, with lowered scores; and how many of the rows are still in the
    running.

    Boxes: xyxy in pixels, where a box from 3 to 5 is 3 wide. One after the other the best box left is taken, and every
    other one that overlaps it loses: score * exp(-IoU^2 / 0.5). One that overlaps nothing keeps its score, however low.

    A box that falls below 0.001 is overwritten by the last one in the running. So the rows behind those still in the
    running are not the boxes that fell, but duplicates of boxes before, with the scores they had when they were moved.
    """
    boxes, scores = boxes.copy(), scores.copy()
    running, first = len(scores), 0
    while first < running:
        best = first + int(np.argmax(scores[first:running]))
        for part in (boxes, scores):
            part[[first, best]] = part[[best, first]]
        rest = slice(first + 1, running)
        overlap = _overlap(boxes[first], boxes[rest])
        lowered = scores[rest] * np.exp(-(overlap * overlap) / np.float32(SIGMA))
        running = _lower(boxes, scores, first + 1, running, lowered, (overlap > 0) & (lowered < LEAST_SCORE))
        first += 1
    return boxes, scores, running


def _lower(boxes: np.ndarray, scores: np.ndarray, start: int, end: int, lowered: np.ndarray, fallen: np.ndarray) -> int:
    """Rows start..end get their lowered scores, the last of them moving to where one has fallen; the new end.

    A row that moves leaves behind what it was, not yet lowered.
    """
    before = scores[start:end].copy()
    scores[start:end] = lowered
    for row in start + np.flatnonzero(fallen):
        while row < end and fallen[row - start]:
            end -= 1
            if row < end:
                boxes[row], scores[row], fallen[row - start] = boxes[end], scores[end], fallen[end - start]
                scores[end] = before[end - start]
    return end


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a box with each of the others, 0 where they do not meet; borders are pixels, so sides are 1 longer."""
    left_top, right_bottom = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    width, height = np.maximum(right_bottom - left_top + 1, 0).T
    shared = width * height
    areas = (others[:, 2] - others[:, 0] + 1) * (others[:, 3] - others[:, 1] + 1)
    union = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + areas - shared
    return np.where(shared > 0, shared / union, np.float32(0))


def merge_scales(per_scale: Sequence[Rows], num_classes: int, detections_per_image: int) -> Rows:
    """One image's detections at several test scales as one list: soft-NMS in each class, then the best of all classes.

    All rows that score at least as much as the last of the `detections_per_image` best stay. Ordered by class; within a
    class, as soft_nms leaves them, the duplicates included: the original does not look at how many are in the running.
    """
    everything = Rows(*(np.concatenate(parts) for parts in zip(*per_scale, strict=True)))
    merged = []
    for number in range(num_classes):
        own = everything.classes == number
        boxes, scores, _ = soft_nms(everything.boxes[own], everything.scores[own])
        merged.append(Rows(boxes, scores, np.full(len(scores), number)))
    result = Rows(*(np.concatenate(parts) for parts in zip(*merged, strict=True)))
    if len(result.scores) <= detections_per_image:
        return result
    enough = result.scores >= np.sort(result.scores)[-detections_per_image]
    return Rows(*(part[enough] for part in result))
