"""Box numbers and category ids that look like another format than the one they were read in, with the evidence.

A box fits if it has a width and a height and reaches at most 1.5 pixels beyond its image. Where many boxes do not fit
as their format says, every other reading of the same four numbers is tried; the one that leaves the fewest misfits is
the suspect. Whether x or y comes first cannot be told of relative values, nor of square images.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32

from tools.doctor.findings import Finding, Severity, percent
from tools.doctor.splits import SplitData

Numbers = Float64[np.ndarray, "boxes numbers=4"]
_TOLERANCE = 1.5  # pixels
_FEWEST = 3  # boxes that make a suspicion
_COCO_GAPS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})  # ids up to 90 that COCO's 80 classes leave out


class Reading(NamedTuple):
    """A way to read four numbers."""

    name: str
    first: Literal["corner", "centre"]  # what the first two numbers are
    last: Literal["corner", "size"]  # and the last two
    y_first: bool = False

    def corners(self, numbers: Numbers, sides: Numbers) -> Numbers:
        """Left, top, right and bottom of numbers in units of `sides` (width, height, width, height)."""
        numbers = (numbers[:, [1, 0, 3, 2]] if self.y_first else numbers) * sides
        first, last = numbers[:, :2], numbers[:, 2:]
        if self.first == "centre":
            first = first - last / 2
        return np.concatenate([first, first + last if self.last == "size" else last], axis=1)


READINGS = {
    "xywh": Reading("x, y, width, height", "corner", "size"),
    "xyxy": Reading("x1, y1, x2, y2", "corner", "corner"),
    "cxcywh": Reading("centre x, centre y, width, height", "centre", "size"),
    "yxyx": Reading("y1, x1, y2, x2", "corner", "corner", y_first=True),
    "yxhw": Reading("y, x, height, width", "corner", "size", y_first=True),
    "cycxhw": Reading("centre y, centre x, height, width", "centre", "size", y_first=True),
}
_OF_SOURCES = {"voc": "xyxy"}  # what the files state, where it is not what the reader gives


class _Stated(NamedTuple):
    """Boxes as their files state them, those with four finite numbers and a known image."""

    numbers: Numbers
    sizes: Int32[np.ndarray, "boxes 2"]  # of their images, (height, width)
    reading: str
    relative: bool
    files: Callable[[Bool[np.ndarray, " boxes"]], tuple[str, ...]]


def format_findings(data: SplitData) -> list[Finding]:
    """All suspicions about a split."""
    stated = _stated(data)
    if not len(stated.numbers):
        return _category_findings(data)
    units = _units(data, stated)
    if any(finding.severity == "fault" for finding in units):  # in wrong units, no form fits
        return units + _category_findings(data)
    return units + (_other_reading(data, stated) or _origin(data, stated)) + _category_findings(data)


def _stated(data: SplitData) -> _Stated:
    found, image_of_box = data.examined.found, data.examined.image_of_box
    relative = data.stated.relative is not None
    sizes = np.zeros((len(image_of_box), 2), np.int32)
    sizes[image_of_box >= 0] = found.image_sizes[image_of_box[image_of_box >= 0]]
    numbers = data.stated.relative.astype(np.float64) if relative else data.stated.boxes
    reading = "cxcywh" if relative else _OF_SOURCES.get(data.config.source.type, "xywh")
    if reading == "xyxy":
        numbers = np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], axis=1)
    chosen = np.flatnonzero((image_of_box >= 0) & np.isfinite(numbers).all(1) & (sizes > 0).all(1))
    return _Stated(
        numbers[chosen], sizes[chosen], reading, relative, lambda rows: data.files(image_of_box[chosen[rows]])
    )


def _suspicion(
    split: str, severity: Severity, kind: str, what: str, stated: _Stated, rows: np.ndarray, cause: str, remedy: str
) -> Finding:
    return Finding(severity, kind, split, what, int(rows.sum()), stated.files(rows), cause, remedy)


def _units(data: SplitData, stated: _Stated) -> list[Finding]:
    """Relative numbers where pixels are expected, and the reverse."""
    largest, count = np.abs(stated.numbers).max(1), len(stated.numbers)
    if stated.relative:
        wrong, got, expected = largest > 2, "above 2", "relative values (0 to 1)"
        cause, remedy = "pixels were written where relative values are expected", "divide x by width, y by height"
    else:
        wrong, got, expected = largest <= 1.01, "at most 1", "pixels"
        cause, remedy = "relative values were written where pixels are expected", "multiply x by width, y by height"
    if wrong.sum() < min(_FEWEST, count):
        return []
    severity = "fault" if wrong.sum() > count / 2 else "warning"
    what = f"{percent(int(wrong.sum()), count)} of the boxes have numbers {got}, where {expected} are expected"
    return [_suspicion(data.name, severity, "suspected_units", what, stated, wrong, cause, remedy)]


def _misfits(corners: Numbers, sizes: Int32[np.ndarray, "boxes 2"]) -> dict[str, Bool[np.ndarray, " boxes"]]:
    """The ways in which a box in pixels may not fit its image."""
    left, top, right, bottom = corners.T
    height, width = sizes.T
    return {
        "have x2 < x1 or y2 < y1": (right < left) | (bottom < top),
        "reach beyond the left or top edge": (left < -_TOLERANCE) | (top < -_TOLERANCE),
        "reach beyond the right or bottom edge": (right > width + _TOLERANCE) | (bottom > height + _TOLERANCE),
    }


def _other_reading(data: SplitData, stated: _Stated) -> list[Finding]:
    """Another order or meaning of the four numbers, if the stated one leaves misfits and the other hardly any."""
    sides = np.tile(stated.sizes[:, ::-1], 2) if stated.relative else np.ones_like(stated.numbers)
    sides = sides.astype(np.float64)  # [boxes, 4]
    count = len(stated.numbers)

    def misfits(reading: str) -> dict[str, Bool[np.ndarray, " boxes"]]:
        return _misfits(READINGS[reading].corners(stated.numbers, sides), stated.sizes)

    here = misfits(stated.reading)
    wrong = np.any(list(here.values()), axis=0)
    if wrong.sum() < max(min(_FEWEST, count), 0.02 * count):
        return []
    readings = [name for name, reading in READINGS.items() if not (stated.relative and reading.y_first)]
    others = {reading: int(np.any(list(misfits(reading).values()), axis=0).sum()) for reading in readings}
    best = min(others, key=others.__getitem__)
    if others[best] > 0.1 * wrong.sum():
        return []
    ways = ", ".join(f"{percent(int(rows.sum()), count)} {way}" for way, rows in here.items() if rows.any())
    as_read, as_other = READINGS[stated.reading].name, READINGS[best].name
    what = f"{percent(int(wrong.sum()), count)} of the boxes do not fit their image ({ways}); read as {as_other}, "
    what += f"{percent(others[best], count)} do not"
    cause = f"looks like {as_other}, written where {as_read} is expected"
    remedy = f"convert the boxes to {as_read}, or choose the source type of their format"
    return [_suspicion(data.name, "fault", "suspected_format", what, stated, wrong, cause, remedy)]


def _origin(data: SplitData, stated: _Stated) -> list[Finding]:
    """Pixels counted from 1 where 0 is the first, and the reverse. VOC counts from 1; its reader takes that off."""
    if stated.relative:
        return []
    x, y, width, height = data.examined.found.boxes.T
    rows = data.examined.keep_box
    x, y, width, height = x[rows], y[rows], width[rows], height[rows]
    sizes = data.examined.found.image_sizes[data.examined.image_of_box[rows]]
    beyond = np.maximum(x + width - sizes[:, 1], y + height - sizes[:, 0])  # pixels over the right or bottom edge
    first = np.minimum(x, y)
    near = 0.01
    if data.config.source.type == "voc":
        wrong = np.abs(first + 1) < near
        what = f"{int(wrong.sum())} boxes have xmin or ymin 0; the first pixel of a VOC file is 1"
        cause = "the file counts pixels from 0: every box is a pixel too far to the left and top"
        remedy = "add 1 to all corners; until then the door clips, and nothing worse than a pixel happens"
        suspected = wrong.any()
    else:
        touching, over = np.abs(first - 1) < near, np.abs(beyond - 1) < near
        wrong = touching | over
        what = f"no box begins before pixel 1, {int(touching.sum())} begin there, {int(over.sum())} end at side + 1"
        cause = "the file counts pixels from 1, where 0 is the first (boxes copied from VOC's corners?)"
        remedy = "subtract 1 from x and y"
        suspected = len(first) > 0 and first.min() > 1 - near and wrong.sum() >= _FEWEST
    if not suspected:
        return []
    files = data.files(data.examined.image_of_box[rows][wrong])
    return [Finding("warning", "suspected_origin", data.name, what, int(wrong.sum()), files, cause, remedy)]


def _category_findings(data: SplitData) -> list[Finding]:
    """Category ids that are off by one, or COCO's 91 taken for its 80."""
    cause, ids = _cause_of_unknown_ids(data), _unknown_ids(data)
    if not cause:
        return []
    shown = ", ".join(str(number) for number in sorted(set(ids))[:10])
    what = f"{len(ids)} boxes have a category id that is not declared ({shown})"
    return [
        Finding(
            "fault",
            "suspected_category_ids",
            data.name,
            what,
            len(ids),
            cause=cause,
            remedy="renumber the categories, and look at the sample pictures: the other boxes have wrong names, too",
        )
    ]


def _unknown_ids(data: SplitData) -> list[int]:
    """Category ids of boxes that their file does not declare: as its reader names them, or in lines that it refuses."""
    labels = (re.fullmatch(r"category_id (-?\d+)", label) for label in data.stated.labels)
    lines = (re.search(r": class (-?\d+), but", message) for _, message in data.stated.malformed)
    return [int(match[1]) for match in (*labels, *lines) if match]


def _cause_of_unknown_ids(data: SplitData) -> str:
    unknown, declared = set(_unknown_ids(data)), set(data.stated.category_ids)
    if not unknown:
        return ""
    known = {data.stated.category_ids[number] for number in set(data.examined.box_classes.tolist()) if number >= 0}
    used = known | unknown
    gaps = unknown & _COCO_GAPS
    if gaps and unknown <= gaps | {0} and not declared & _COCO_GAPS and max(declared) > len(declared):
        return "boxes are numbered without gaps, categories with COCO's gaps (12, 26, 29, 30 ... are none of them)"
    if max(declared) == 80 == len(declared) and 80 < max(used) <= 90 and not used & _COCO_GAPS:
        return "boxes have COCO's own ids (to 90, with gaps at 12, 26, 29, 30 ...), categories are numbered 1 to 80"
    for step, meaning in ((1, "boxes count categories from one less"), (-1, "boxes count categories from one more")):
        if {number + step for number in used} <= declared:
            return f"{meaning} than the declaration: every id is declared if {step:+d} is added"
    return ""
