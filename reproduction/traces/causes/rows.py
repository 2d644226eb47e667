"""Hypotheses on boxes [..., 4] and on detections, rows whose order means nothing."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Shaped

from reproduction.traces.causes.maps import factor_between
from reproduction.traces.causes.residual import Array, Suspect, partners

# Format -> its numbers as columns x1, y1, x2, y2.
_CORNERS: dict[str, Callable[..., tuple]] = {
    "xyxy": lambda a, b, c, d: (a, b, c, d),
    "yxyx": lambda a, b, c, d: (b, a, d, c),
    "cxcywh": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    "xywh": lambda a, b, c, d: (a, b, a + c, b + d),
}
_FROM_CORNERS: dict[str, Callable[..., tuple]] = _CORNERS | {
    "cxcywh": lambda a, b, c, d: ((a + c) / 2, (b + d) / 2, c - a, d - b),
    "xywh": lambda a, b, c, d: (a, b, c - a, d - b),
}
# COCO's category ids of the 80 classes: those that are missing among 1 to 90.
_MISSING_91 = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = np.array([number for number in range(1, 91) if number not in _MISSING_91])
_OVERLAP = 0.3  # any NMS threshold in use is larger


def of_boxes(ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"]) -> Iterator[Suspect]:
    """Boxes in the first four columns, in the same order on both sides."""
    if ours.shape != expected.shape or ours.ndim < 2 or ours.shape[-1] < 4:
        return
    four, rest = expected[..., :4], expected[..., 4:]
    columns = np.moveaxis(four, -1, 0)

    def with_boxes(boxes: Array) -> Array:
        return np.concatenate([boxes, rest], axis=-1)

    for taken, corners in _CORNERS.items():
        for wanted, give in _FROM_CORNERS.items():
            if taken != wanted:
                boxes = np.stack(give(*corners(*columns)), axis=-1)
                yield Suspect("box_format", with_boxes(boxes), f"{taken} converted to {wanted}")
    for order, words in (((1, 0, 3, 2), "x and y"), ((0, 1, 3, 2), "width and height")):
        yield Suspect("height_width_swapped", with_boxes(four[..., order]), f"{words} exchanged")
    factors = [factor_between(ours[..., c].ravel(), four[..., c].ravel()) or 1.0 for c in range(4)]
    if ours[..., 0].size >= 8:
        words = ", ".join(f"{factor:.5g}" for factor in factors)
        yield Suspect("box_units", with_boxes(four * np.array(factors)), f"columns times {words}")
        wh = with_boxes(four * np.array([1, 1, *factors[2:]]))
        yield Suspect("anchor_units", wh, f"width and height times {factors[2]:.5g}, {factors[3]:.5g}")
    if four.reshape(-1, 4).shape[0] >= 2:
        offsets = np.nanmedian((ours[..., :4] - four).reshape(-1, 4), axis=0)
        words = ", ".join(f"{offset:.4g}" for offset in offsets)
        yield Suspect("box_inclusive", with_boxes(four + offsets), f"columns plus {words}")


def of_detections(
    ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"], columns: str
) -> Iterator[Suspect]:
    """Rows in any order: what is missing, and columns that mean something else.

    columns: as of `Clue.layout`; by default the box, then the class if there are six columns or more, the score last.
    """
    if ours.ndim != 2 or expected.ndim != 2 or ours.shape[1] != expected.shape[1] or ours.shape[1] < 5:
        return
    box, scores, classes = _columns(columns, ours.shape[1])
    yield from _columns_changed(ours, expected, scores, classes)
    pairs = partners(ours, expected)
    extra = np.setdiff1d(np.arange(len(ours)), list(pairs.values()))
    missing = np.setdiff1d(np.arange(len(expected)), list(pairs))
    kept = np.array(sorted(pairs), int)
    for alone, source, who in ((missing, expected, "the original"), (extra, ours, "ours")):
        other = missing if who == "ours" else extra
        if not len(alone) or len(other) or not len(kept):
            continue
        # What the original gives without its rows that ours lacks, or with those that ours has beside it.
        given = expected[kept] if who != "ours" else np.concatenate([expected[kept], source[alone]])
        lowest, highest = expected[kept, scores].min(), source[alone, scores].max()
        if highest <= lowest:
            words = (
                f"{len(alone)} rows of {who} alone, all at most {highest:.4g}; those of both score {lowest:.4g} or more"
            )
            yield Suspect("score_floor", given, words)
            if len(kept) in (100, 200, 300, 1000):
                yield Suspect("detections_limit", given, f"{len(kept)} rows are left; {words}")
    alone = [(expected, missing), (ours, extra)]
    if (len(missing) or len(extra)) and len(kept):
        every = np.concatenate([expected, ours[extra]])
        overlaps = [_overlaps_a_better(source[row], every, box, scores, classes) for source, at in alone for row in at]
        if all(overlaps):
            given = np.concatenate([expected[kept], ours[extra]])
            words = (
                f"{len(missing)} rows of the original, {len(extra)} of ours alone, each over a better one of its class"
            )
            yield Suspect("nms_kind", given, words)


def _columns_changed(ours: Array, expected: Array, scores: int, classes: int | None) -> Iterator[Suspect]:
    if classes is not None:
        ids = expected[:, classes].astype(int)
        for step in (1, -1):
            yield Suspect("class_ids_shifted", _replaced(expected, classes, ids + step), f"classes plus {step}")
        if len(ids) and ids.min() >= 0 and ids.max() < 80:
            for first in (0, 1):
                words = f"classes as COCO's category ids{'' if first else ' less 1'}"
                yield Suspect("class_ids_91", _replaced(expected, classes, COCO_IDS[ids] - 1 + first), words)
        index = {int(number): at for at, number in enumerate(COCO_IDS)}
        if len(ids) and set(ids.tolist()) <= set(index):
            back = np.array([index[number] for number in ids.tolist()])
            yield Suspect("class_ids_91", _replaced(expected, classes, back), "COCO's category ids as contiguous ones")
    for objectness in range(4, expected.shape[1]):
        if (
            objectness not in (scores, classes)
            and ((expected[:, objectness] >= 0) & (expected[:, objectness] <= 1)).all()
        ):
            with np.errstate(all="ignore"):
                for name, values in (
                    ("times", expected[:, scores] * expected[:, objectness]),
                    ("divided by", expected[:, scores] / expected[:, objectness]),
                ):
                    yield Suspect("score_product", _replaced(expected, scores, values), f"scores {name} objectness")


def _columns(words: str, count: int) -> tuple[str, int, int | None]:
    """(box format, column of the score, column of the class) of a layout like `cxcywh objectness class score`."""
    box, *names = words.split() if words else ("xyxy",)
    at = {name: 4 + number for number, name in enumerate(names)}
    usual_class = None if count < 6 else count - 2
    return box if box in _CORNERS else "xyxy", at.get("score", count - 1), at.get("class", None if at else usual_class)


def _replaced(rows: Array, column: int, values: Array) -> Array:
    changed = rows.copy()
    changed[:, column] = values
    return changed


def _overlaps_a_better(row: Array, every: Array, box: str, scores: int, classes: int | None) -> bool:
    better = every[every[:, scores] > row[scores]]
    if classes is not None:
        better = better[better[:, classes] == row[classes]]
    if not len(better):
        return False
    sides = [_CORNERS[box](*rows.T[:4]) for rows in (row[np.newaxis], better)]
    (left, top, right, bottom), (left2, top2, right2, bottom2) = sides
    wide = np.maximum(np.minimum(right, right2) - np.maximum(left, left2), 0)
    high = np.maximum(np.minimum(bottom, bottom2) - np.maximum(top, top2), 0)
    union = (right - left) * (bottom - top) + (right2 - left2) * (bottom2 - top2) - wide * high
    return bool((wide * high > _OVERLAP * union).any())
