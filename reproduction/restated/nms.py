"""From scored boxes to detections, one pair after the other.

Sources: AlexeyAB box.c do_nms_sort, diounms_sort, box_diou; xingyizhou lib/external/nms.pyx soft_nms and
lib/detectors/ctdet.py merge_outputs; Bodla et al. 2017. Everything is computed in the boxes' own type: whether two
boxes suppress each other hangs on a rounding where they are near the threshold, so float32 is judged by float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from official.vision.protocol import EvaluationProtocol

SOFT_SIGMA, SOFT_LEAST = 0.5, 0.001


class Kept(NamedTuple):
    """Detections of one image, in the order that the rule gives them."""

    boxes: Float[np.ndarray, "n box=4"]  # yxyx from `detections`, xyxy in pixels of soft-NMS
    scores: Float[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]


def detections(
    boxes: Float[np.ndarray, "boxes yxyx=4"], scores: Float[np.ndarray, "boxes classes"], protocol: EvaluationProtocol
) -> Kept:
    """What is detected among one image's boxes, best first; for every `protocol.nms` but soft_nms.

    A pair of box and class is a candidate if its score is above `score_floor`. Equal scores are ordered by the box's
    place, then by class. Of the best `candidates`, one stays unless a better one that stays suppresses it, until there
    are `detections_per_image`; with nms none, of all candidates. Scores that are NaN and boxes that are not finite are
    left out.

    Args:
        boxes: yxyx; relative to the original image where distances count (greedynms, diounms).
        scores: of each box as each class.
        protocol: floor, counts, and what suppresses.
    """
    if protocol.nms == "soft_nms":
        raise ValueError("detections: soft_nms lowers the scores of boxes of several scales; see merge_scales")
    floor = scores.dtype.type(protocol.score_floor)
    pairs = [
        (-scores[box, number], int(box), int(number))
        for box, number in np.argwhere(scores > floor)
        if np.isfinite(boxes[box]).all()
    ]
    suppressed = protocol.nms != "none"
    kept: list[tuple[int, int]] = []
    for _, box, number in sorted(pairs)[: protocol.candidates if suppressed else None]:
        if len(kept) == protocol.detections_per_image:
            break
        rivals = [other for other, kind in kept if kind == number and suppressed]
        if not any(suppresses(boxes[other], boxes[box], protocol) for other in rivals):
            kept.append((box, number))
    rows, classes = (np.array([pair[part] for pair in kept], np.int64) for part in (0, 1))
    return Kept(boxes[rows], scores[rows, classes], classes)


def suppresses(
    better: Float[np.ndarray, "yxyx=4"], worse: Float[np.ndarray, "yxyx=4"], protocol: EvaluationProtocol
) -> bool:
    """Whether two boxes yxyx of one class are too near to be two objects.

    per_class_iou: by their IoU. The others: by the IoU less the squared distance of the centres, over the squared
    diagonal of the hull, to a power: box.c's box_diou has 0.6, its box_diounms has beta_nms. An empty or inverted
    box overlaps nothing.
    """
    kind = better.dtype.type
    (top, left, bottom, right), (top2, left2, bottom2, right2) = better, worse
    high, wide = min(bottom, bottom2) - max(top, top2), min(right, right2) - max(left, left2)
    shared = max(high, kind(0)) * max(wide, kind(0))
    areas = [max(y2 - y1, kind(0)) * max(x2 - x1, kind(0)) for y1, x1, y2, x2 in (better, worse)]
    union = areas[0] + areas[1] - shared
    if protocol.nms == "per_class_iou":
        return bool(shared > kind(protocol.nms_threshold) * union)
    diagonal = (max(bottom, bottom2) - min(top, top2)) ** 2 + (max(right, right2) - min(left, left2)) ** 2
    apart = ((top + bottom) / 2 - (top2 + bottom2) / 2) ** 2 + ((left + right) / 2 - (left2 + right2) / 2) ** 2
    overlap = shared / union if union else kind(0)
    share = apart / diagonal if diagonal else kind(0)
    power = 0.6 if protocol.nms == "greedynms" else protocol.beta_nms
    return bool(overlap - share**power > protocol.nms_threshold)


def soft_nms(
    boxes: Float[np.ndarray, "n xyxy=4"], scores: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n xyxy=4"], Float[np.ndarray, " n"], int]:
    """Boxes of one class as the original leaves them in place, and how many of them are still in the running.

    The best box left comes next, and each other that meets it loses: score * exp(-IoU^2 / 0.5). One that so falls
    below 0.001 is overwritten by the last in the running, which then stays behind it as a duplicate.

    boxes: xyxy in pixels, both borders inside: a box from 3 to 5 is 3 wide.
    """
    boxes, scores, count, first = boxes.copy(), scores.copy(), len(scores), 0
    while first < count:
        best = first + int(np.argmax(scores[first:count]))
        boxes[[first, best]], scores[[first, best]] = boxes[[best, first]], scores[[best, first]]
        at = first + 1
        while at < count:
            overlap = _pixel_iou(boxes[first], boxes[at])
            scores[at] *= np.exp(-(overlap**2) / SOFT_SIGMA)
            if overlap > 0 and scores[at] < SOFT_LEAST:
                count -= 1
                boxes[at], scores[at] = boxes[count], scores[count]
            else:
                at += 1
        first += 1
    return boxes, scores, count


def _pixel_iou(box: np.ndarray, other: np.ndarray) -> float:
    wide, high = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [np.prod(one[2:] - one[:2] + 1) for one in (box, other)]
    return float(wide * high / (areas[0] + areas[1] - wide * high))


def merge_scales(scales: Sequence[Kept], num_classes: int, most: int) -> Kept:
    """One image's detections of several test scales: soft-NMS in each class, then the best of all classes.

    Boxes are xyxy in pixels of the image. What scores no less than the last of the `most` best stays, so equals of it
    do too. The duplicates that soft-NMS leaves are not taken out: the original never looks at how many are running.
    """
    found: list[tuple[np.ndarray, float, int]] = []
    for number in range(num_classes):
        own = [one.classes == number for one in scales]
        boxes = np.concatenate([one.boxes[rows] for one, rows in zip(scales, own, strict=True)])
        scores = np.concatenate([one.scores[rows] for one, rows in zip(scales, own, strict=True)])
        boxes, scores, _ = soft_nms(boxes, scores)
        found += [(box, score, number) for box, score in zip(boxes, scores, strict=True)]
    if len(found) > most:
        last = sorted((score for _, score, _ in found), reverse=True)[most - 1]
        found = [row for row in found if row[1] >= last]
    kind = scales[0].boxes.dtype
    return Kept(
        np.array([box for box, _, _ in found], kind).reshape(-1, 4),
        np.array([score for _, score, _ in found], kind),
        np.array([number for _, _, number in found], np.int64),
    )
