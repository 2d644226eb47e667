"""Findings on boxes and classes, and the statistics of what training will see."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from official.vision.protocol import EvaluationProtocol
from tools.doctor.findings import Finding, percent
from tools.doctor.splits import SplitData, sides_in_input

_SHARES = {"5 %": 5, "25 %": 25, "median": 50, "75 %": 75, "95 %": 95}
_RARE = 10  # boxes of a class


@dataclass(frozen=True)
class ClassCount:
    name: str
    boxes: int
    images: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of the images and boxes of a split that can be used.

    Attributes:
        width, height: in pixels of the network's input, by share of the boxes; `aspect` is width over height.
        sizes: boxes by COCO's classes of area in the image: below 32 * 32 pixels, below 96 * 96, the rest.
    """

    images: int
    boxes: int
    images_without_boxes: int
    width: dict[str, float]
    height: dict[str, float]
    aspect: dict[str, float]
    boxes_of_an_image: dict[str, float]
    sizes: dict[str, int]
    classes: tuple[ClassCount, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def statistics(data: SplitData, input_size: tuple[int, int], protocol: EvaluationProtocol) -> Statistics:
    keep = data.kept_boxes
    width, height = sides_in_input(data, keep, input_size, protocol).T
    area = data.examined.found.boxes[keep, 2:].prod(1)
    image_of_box, classes = data.examined.image_of_box[keep], data.examined.box_classes[keep]
    counts = boxes_of_images(data)
    bounds = np.digitize(area, [32**2, 96**2])
    return Statistics(
        images=int(data.kept.sum()),
        boxes=int(keep.sum()),
        images_without_boxes=int((counts == 0).sum()),
        width=_shares(width),
        height=_shares(height),
        aspect=_shares(width / np.maximum(height, 1e-9)),
        boxes_of_an_image=_shares(counts),
        sizes={name: int((bounds == place).sum()) for place, name in enumerate(("small", "medium", "large"))},
        classes=tuple(
            ClassCount(name, int((classes == number).sum()), len(np.unique(image_of_box[classes == number])))
            for number, name in enumerate(data.classes)
        ),
    )


def boxes_of_images(data: SplitData) -> Int64[np.ndarray, " kept"]:
    """Number of usable boxes of each usable image."""
    counts = np.bincount(data.examined.image_of_box[data.kept_boxes], minlength=len(data.images))
    return counts[data.kept]


def _shares(values: Shaped[np.ndarray, " n"]) -> dict[str, float]:
    if not len(values):
        return {}
    return {name: round(float(np.percentile(values, share)), 2) for name, share in _SHARES.items()}


def box_findings(data: SplitData, input_size: tuple[int, int], protocol: EvaluationProtocol) -> list[Finding]:
    """All findings on the boxes of one split."""
    return [*_too_small(data, input_size, protocol), *_repeated(data), *_without_boxes(data)]


def _too_small(data: SplitData, input_size: tuple[int, int], protocol: EvaluationProtocol) -> list[Finding]:
    keep = np.flatnonzero(data.kept_boxes)
    small = keep[(sides_in_input(data, data.kept_boxes, input_size, protocol) < 1).any(1)]
    if not len(small):
        return []
    height, width = input_size
    return [
        Finding(
            "warning",
            "below_one_pixel",
            data.name,
            f"{percent(len(small), len(keep))} of the boxes are narrower than 1 pixel of the {height} x {width} input; "
            "training drops them, evaluation counts them as missed",
            len(small),
            data.files(data.examined.image_of_box[small]),
            "an input too small for such images, or boxes that are marks rather than extents",
            "a larger input_size, tiles of the images, or leave such boxes out",
        )
    ]


def _repeated(data: SplitData) -> list[Finding]:
    """Boxes that are twice on an image, with the same class."""
    keep = np.flatnonzero(data.kept_boxes)
    place = np.column_stack([data.examined.image_of_box[keep], data.examined.box_classes[keep]])
    rows = np.column_stack([place.astype(np.float64), data.examined.found.boxes[keep]])
    _, first = np.unique(rows, axis=0, return_index=True)
    again = np.delete(keep, first)
    if not len(again):
        return []
    return [
        Finding(
            "warning",
            "repeated_box",
            data.name,
            f"{percent(len(again), len(keep))} of the boxes repeat a box of the same class on the same image",
            len(again),
            data.files(data.examined.image_of_box[again]),
            "annotation files that were joined, or saved twice",
            "keep one of each: evaluation counts every repetition as missed",
        )
    ]


def _without_boxes(data: SplitData) -> list[Finding]:
    counts = np.bincount(data.examined.image_of_box[data.kept_boxes], minlength=len(data.images))
    rows = np.flatnonzero(data.kept & (counts == 0))
    if not len(rows):
        return []
    none = len(rows) == int(data.kept.sum())
    return [
        Finding(
            "fault" if none else "note",
            "images_without_boxes",
            data.name,
            f"{percent(len(rows), int(data.kept.sum()))} of the images have no box; they train as background",
            len(rows),
            data.files(rows),
            "no annotation matches the images" if none else "",
        )
    ]


def class_findings(splits: Sequence[SplitData], of_splits: Sequence[Statistics]) -> list[Finding]:
    """Classes that are missing somewhere, or rare; the first split trains."""
    pairs = zip(splits, of_splits, strict=True)
    seen = {data.name: {one.name: one.boxes for one in stats.classes} for data, stats in pairs}
    train, *others = seen.values()
    elsewhere = {name: sum(other[name] for other in others) for name in train}
    never = [name for name in train if not train[name] and not elsewhere[name]]
    untrained = [name for name in train if not train[name] and elsewhere[name]]
    untested = [name for name in train if train[name] and not elsewhere[name]]
    rare = [f"{name} ({count})" for name, count in train.items() if 0 < count < _RARE]
    names, first = ", ".join(seen), splits[0].name
    tests = (
        ("class_never_seen", names, never, "no box in any split; the network has outputs for nothing", "remove it"),
        ("class_not_trained", first, untrained, "boxes in validation only; its AP will be 0", "divide the data anew"),
        ("class_not_validated", names, untested, "boxes in training only; it is not measured", "divide the data anew"),
        ("rare_class", first, rare, f"fewer than {_RARE} boxes in training", "more images of it"),
    )
    found = [(kind, split, tuple(which), what, do) for kind, split, which, what, do in tests if which]
    return [
        Finding("warning", kind, split, f"{len(which)} of {len(train)} classes: {what}", len(which), which, "", do)
        for kind, split, which, what, do in found
    ]


def trained_sides(
    data: SplitData, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Float64[np.ndarray, "boxes 2"]:
    """(width, height) in input pixels of the boxes that training sees."""
    sides = sides_in_input(data, data.kept_boxes & data.examined.found.trained, input_size, protocol)
    return sides[(sides >= 1).all(1)]
