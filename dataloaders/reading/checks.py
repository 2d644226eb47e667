"""Checks each image and box once, before anything trains. Faults are counted and named, then fatal or dropped."""

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from dataloaders.reading.annotations import Annotations, DataError, clip_boxes, pixels_of
from dataloaders.reading.image_header import ImageLook, look_at_image
from official.core.progress import track

_LOG = logging.getLogger(__name__)
SHOWN_IDS = 5
_LOOKING_THREADS = 8

# kind -> (what is wrong, what `on_bad: skip` does about it)
KINDS = {
    "missing_image": ("the image file does not exist", "image dropped"),
    "unreadable_image": ("the image file has no whole JPEG or PNG header", "image dropped"),
    "truncated_image": ("the image file ends before its end mark", "image dropped"),
    "wrong_image_size": ("the image file has another size than its annotation states", "image dropped"),
    "duplicate_image": ("the image's id or file came before", "later image dropped"),
    "malformed_line": ("the line is no box", "line dropped"),
    "unknown_image": ("the box names an image id that is not listed", "box dropped"),
    "unknown_category": ("the box's category is not in data.classes", "box dropped"),
    "non_finite_box": ("the box is not four finite numbers", "box dropped"),
    "inverted_box": ("the box has a negative width or height", "box dropped"),
    "zero_area_box": ("the box has no width or no height", "box dropped"),
    "outside_box": ("the box lies entirely outside its image", "box dropped"),
    "partly_outside_box": ("the box reaches more than 1 pixel beyond its image", "box clipped to the image"),
    "too_many_boxes": ("the image has more boxes than max_boxes", "training sees the first max_boxes only"),
    "no_label_file": ("the image has no label file", "image kept, as one without objects"),
}
NOT_FATAL = frozenset({"no_label_file"})  # reported, whatever `on_bad` says


@dataclass(frozen=True)
class Finding:
    """One kind of fault: how often it occurs, and the images where it does: all ids, in order, the first with names."""

    kind: str
    count: int
    image_ids: tuple[int, ...]
    names: tuple[str, ...]
    detail: str = ""

    def __str__(self) -> str:
        named = zip(self.image_ids, self.names, strict=False)
        shown = ", ".join(f"{image_id} ({name})" if name else str(image_id) for image_id, name in named)
        more = len(self.image_ids) - len(self.names)
        ids = f"image ids {shown}" + (f" and {more} more" if more > 0 else "")
        return f"{self.count} x {self.kind}: {KINDS[self.kind][0]}{self.detail}; {ids}"


@dataclass(frozen=True)
class Report:
    """The outcome of the checks: how many images and boxes came in, how many were kept, and what was wrong."""

    where: str
    images: int
    boxes: int
    kept_images: int
    kept_boxes: int
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        images = f"{self.kept_images} of {self.images} images"
        lines = [f"{self.where}: {images}, {self.kept_boxes} of {self.boxes} boxes kept"]
        lines += [f"  {finding} -> {KINDS[finding.kind][1]}" for finding in self.findings]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON values: every image id of every kind, so that a metric's data can be identified later."""
        return {
            "where": self.where,
            "images": {"found": self.images, "kept": self.kept_images, "dropped": self.images - self.kept_images},
            "boxes": {"found": self.boxes, "kept": self.kept_boxes, "dropped": self.boxes - self.kept_boxes},
            "findings": [
                {
                    "kind": finding.kind,
                    "what": KINDS[finding.kind][0] + finding.detail,
                    "done": KINDS[finding.kind][1],
                    "count": finding.count,
                    "image_ids": list(finding.image_ids),
                }
                for finding in self.findings
            ],
        }


@dataclass(frozen=True)
class Examined:
    """Annotations as they were found, and what is wrong with each image and box: a kind, or an empty string.

    Attributes:
        found: with boxes in pixels, the images' sizes as in the files, where the annotation states none, and `trained`
            without what is wrong or beyond `max_boxes`.
        box_classes: the class (position in the configured ones) of each box; -1: none of them.
        image_of_box: the row of its image; -1: none.
        keep_image, keep_box: those without a fault that drops them.
    """

    found: Annotations
    box_classes: Int32[np.ndarray, " boxes"]
    image_of_box: Int64[np.ndarray, " boxes"]
    image_kinds: Shaped[np.ndarray, " images"]  # text
    box_kinds: Shaped[np.ndarray, " boxes"]  # text
    keep_image: Bool[np.ndarray, " images"]
    keep_box: Bool[np.ndarray, " boxes"]
    report: Report


def examine(found: Annotations, classes: tuple[str, ...], max_boxes: int | None) -> Examined:
    """Looks at every image file and box, and says what is wrong with it. Nothing is dropped.

    Args:
        max_boxes: of one image in training; none: all of them, as in evaluation.
    """
    looks = _look_at_all(found)
    image_kinds = _image_kinds(found, looks)
    sizes = np.array([look.size for look in looks], np.int32).reshape(-1, 2)
    sizes = np.where(found.image_sizes > 0, found.image_sizes, sizes).astype(np.int32)
    image_of_box = rows_of_images(found)
    if found.relative is not None:
        found = replace(found, boxes=pixels_of(found.relative, np.maximum(sizes, 1)[image_of_box]))
    class_of_label = {name: number for number, name in enumerate(classes)}
    box_classes = np.array([class_of_label.get(label, -1) for label in found.labels], np.int32)
    box_kinds = _box_kinds(found, image_of_box, box_classes, sizes)

    keep_image = image_kinds == ""
    keep_box = np.isin(box_kinds, ["", "partly_outside_box"])
    keep_box[keep_box] &= keep_image[image_of_box[keep_box]]
    most = len(found.labels) if max_boxes is None else max_boxes
    trained, crowded = _first_of_each_image(found.trained & keep_box, image_of_box, most)
    report = _report(found, image_kinds, box_kinds, crowded, keep_image, keep_box)
    found = replace(found, image_sizes=sizes, trained=trained)
    return Examined(found, box_classes, image_of_box, image_kinds, box_kinds, keep_image, keep_box, report)


def check(
    found: Annotations, classes: tuple[str, ...], on_bad: Literal["fail", "skip"], max_boxes: int | None
) -> tuple[Annotations, Int32[np.ndarray, " boxes"], Report]:
    """Checks every image file and box.

    Args:
        max_boxes: of one image in training; none: all of them, as in evaluation.

    Returns:
        the images and boxes that are good, boxes sorted by the order of their images and image sizes as in the files;
        the class (position in `classes`) of each box; and the report, which is logged once if anything was wrong.

    Raises:
        DataError: something is wrong and `on_bad` is "fail", or no image is left.
    """
    examined = examine(found, classes, max_boxes)
    found, report, keep_image = examined.found, examined.report, examined.keep_image
    refuse(report, on_bad)
    if not keep_image.any():
        raise DataError(f"{found.where}: no image is left to read\n{report}")
    if report.findings:
        _LOG.warning("%s", report)
    order = np.flatnonzero(examined.keep_box)
    image_of_box = examined.image_of_box[order]
    by_image = np.argsort(image_of_box, kind="stable")
    order, image_of_box = order[by_image], image_of_box[by_image]
    clipped = examined.box_kinds[order] == "partly_outside_box"
    good = _kept(found, np.flatnonzero(keep_image), order, found.image_sizes[image_of_box], clipped)
    return good, examined.box_classes[order], report


def refuse(report: Report, on_bad: Literal["fail", "skip"]) -> None:
    """Raises a DataError that lists the report's faults, if there are some and `on_bad` is "fail"."""
    if on_bad == "fail" and any(finding.kind not in NOT_FATAL for finding in report.findings):
        raise DataError(_failure(report))


def _look_at_all(found: Annotations) -> list[ImageLook]:
    if found.looks is not None:
        return list(found.looks)
    with ThreadPoolExecutor(_LOOKING_THREADS) as pool:
        looks = pool.map(look_at_image, found.image_paths)
        if len(found.image_paths) < 2_000:  # a second or less: not worth a bar
            return list(looks)
        return list(track(looks, f"checking images of {found.where}", len(found.image_paths)))


def _image_kinds(found: Annotations, looks: list[ImageLook]) -> np.ndarray:
    """The fault of each image: a kind, or an empty string."""
    kinds = np.array([look.problem or "" for look in looks], dtype="U32")
    seen = np.array([look.size for look in looks], np.int32).reshape(-1, 2)
    differs = (found.image_sizes > 0).all(1) & (found.image_sizes != seen).any(1)
    kinds[(kinds == "") & differs] = "wrong_image_size"
    for values in (found.image_ids.tolist(), found.image_paths):
        first = {value: row for row, value in reversed(list(enumerate(values)))}
        kinds[[first[value] != row for row, value in enumerate(values)]] = "duplicate_image"
    return kinds


def rows_of_images(found: Annotations) -> Int64[np.ndarray, " boxes"]:
    """For each box, the row of the (first) image with its image id, or -1."""
    row = {image_id: number for number, image_id in reversed(list(enumerate(found.image_ids.tolist())))}
    return np.array([row.get(image_id, -1) for image_id in found.box_image_ids.tolist()], np.int64)


def _box_kinds(found: Annotations, image_of_box: np.ndarray, box_classes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The fault of each box: the first kind that applies, or an empty string."""
    x, y, width, height = found.boxes.T
    # A size that neither annotation nor file states cannot be exceeded; such an image is dropped anyway.
    image = np.where(sizes > 0, sizes, np.iinfo(np.int32).max)[image_of_box] if len(sizes) else np.ones((len(x), 2))
    image_height, image_width = image.T
    with np.errstate(invalid="ignore"):
        tests = {
            "unknown_image": image_of_box < 0,
            "unknown_category": box_classes < 0,
            "non_finite_box": ~np.isfinite(found.boxes).all(1),
            "inverted_box": (width < 0) | (height < 0),
            "zero_area_box": (width == 0) | (height == 0),
            "outside_box": (x >= image_width) | (y >= image_height) | (x + width <= 0) | (y + height <= 0),
            "partly_outside_box": (np.minimum(x, y) < -1)
            | (x + width > image_width + 1)
            | (y + height > image_height + 1),
        }
    return np.select(list(tests.values()), list(tests), default="")


def _first_of_each_image(
    wanted: Bool[np.ndarray, " boxes"], image_of_box: np.ndarray, most: int
) -> tuple[Bool[np.ndarray, " boxes"], Int64[np.ndarray, " crowded"]]:
    """The wanted boxes without those beyond the first `most` of their image; and the rows of images that had more."""
    chosen = np.flatnonzero(wanted)
    chosen = chosen[np.argsort(image_of_box[chosen], kind="stable")]
    images, start, count = np.unique(image_of_box[chosen], return_index=True, return_counts=True)
    rank = np.arange(len(chosen)) - np.repeat(start, count)
    first = np.zeros_like(wanted)
    first[chosen[rank < most]] = True
    return first, images[count > most]


def _report(found, image_kinds, box_kinds, crowded, keep_image, keep_box) -> Report:
    findings = []
    for kind in KINDS:
        ids = np.concatenate([found.image_ids[image_kinds == kind], found.box_image_ids[box_kinds == kind]])
        if kind == "too_many_boxes":
            ids = found.image_ids[crowded]
        if kind == "malformed_line":
            ids = np.array([image_id for image_id, _ in found.malformed], np.int64)
        if kind == "no_label_file":
            ids = np.array(found.unlabelled, np.int64)
        if len(ids):
            images = tuple(dict.fromkeys(ids.tolist()))
            names = tuple(_file_name(found, image_id) for image_id in images[:SHOWN_IDS])
            findings.append(Finding(kind, len(ids), images, names, _detail(found, box_kinds, kind)))
    kept = int(keep_image.sum()), int(keep_box.sum())
    boxes = len(found.labels) + len(found.malformed)
    return Report(found.where, len(found.image_ids), boxes, *kept, tuple(findings))


def _file_name(found: Annotations, image_id: int) -> str:
    rows = np.flatnonzero(found.image_ids == image_id)
    return os.path.basename(found.image_paths[rows[0]]) if len(rows) else ""


def _detail(found: Annotations, box_kinds: np.ndarray, kind: str) -> str:
    """Words for the unknown categories, or for the first malformed lines."""
    if kind == "malformed_line":
        return ": " + "; ".join(message for _, message in found.malformed[:SHOWN_IDS])
    if kind != "unknown_category":
        return ""
    counts = Counter(found.labels[number] for number in np.flatnonzero(box_kinds == kind))
    return ": " + ", ".join(f"{label!r} ({count})" for label, count in counts.most_common(SHOWN_IDS))


def _failure(report: Report) -> str:
    fatal = [finding for finding in report.findings if finding.kind not in NOT_FATAL]
    faults = "\n".join(f"  {finding}" for finding in fatal)
    remedies = ", ".join(dict.fromkeys(KINDS[finding.kind][1] for finding in fatal))
    return (
        f"{report.where}: the data has faults:\n{faults}\n"
        f"Repair them, or set `on_bad: skip` on this split ({remedies}); `on_bad: fail` is in force."
    )


def _kept(
    found: Annotations,
    images: Int64[np.ndarray, " images"],
    order: Int64[np.ndarray, " boxes"],
    sizes: Int32[np.ndarray, "boxes 2"],
    reaches_out: Bool[np.ndarray, " boxes"],
) -> Annotations:
    """The images and the boxes chosen, those clipped that reach out of their image."""
    boxes = found.boxes[order]
    boxes = np.where(reaches_out[:, np.newaxis], clip_boxes(boxes, sizes), boxes)
    whole, stated = boxes[:, 2] * boxes[:, 3], found.areas[order]
    # The stated area is that of the object's outline; of a clipped box, no more than the box can be left.
    unusable = ~np.isfinite(stated) | (reaches_out & (stated > whole))
    return replace(
        found,
        image_ids=found.image_ids[images],
        image_paths=[found.image_paths[row] for row in images],
        image_sizes=found.image_sizes[images],
        box_image_ids=found.box_image_ids[order],
        boxes=boxes,
        areas=np.where(unusable, whole, stated),
        labels=[found.labels[row] for row in order],
        ignored=found.ignored[order],
        trained=found.trained[order],
        relative=None if found.relative is None else found.relative[order],
    )
