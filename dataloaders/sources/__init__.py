"""Data sources: any annotation format becomes one `DetectionDataset`."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from configs.data import Source
from dataloaders.annotations import Annotations, DataError, clip_boxes
from dataloaders.checks import Report, check, rows_of_images
from dataloaders.sources.coco import read_coco
from dataloaders.sources.darknet import read_darknet
from dataloaders.sources.voc import read_voc

__all__ = ["DetectionDataset", "TruthForm", "open_source", "read_source"]

TruthForm = Literal["yxyx", "cxcywh", "xyxy_pixels"]  # the first two are relative to the image

_ROUNDING = 2.0**-23  # a difference in relative coordinates that clipping may also have made by rounding alone

READERS = {"coco": read_coco, "voc": read_voc, "darknet": read_darknet}


@dataclass(frozen=True)
class DetectionDataset:
    """Checked images and boxes. Boxes of image i are rows splits[i] to splits[i + 1].

    Attributes:
        image_ids: the data set's own.
        image_sizes: (height, width) in pixels, as in the files.
        pixel_boxes: x, y, width, height in pixels, the annotation's own numbers (clipped where they reached more than
            1 pixel out of the image).
        areas: in pixels; the annotation's where it states one.
        classes: position in `class_names`.
        ignored: boxes that evaluation neither rewards nor punishes.
        trained: boxes that training sees.
        native: centre x, centre y, width, height relative to the image, from a source that states just that (Darknet).
        category_ids: the data set's own id of each class.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: Int64[np.ndarray, " images"]
    image_paths: list[str]
    image_sizes: Int32[np.ndarray, "images 2"]
    splits: Int64[np.ndarray, " images+1"]
    pixel_boxes: Float64[np.ndarray, "boxes 4"]
    areas: Float64[np.ndarray, " boxes"]
    classes: Int32[np.ndarray, " boxes"]
    ignored: Bool[np.ndarray, " boxes"]
    trained: Bool[np.ndarray, " boxes"]
    native: Float32[np.ndarray, "boxes 4"] | None
    report: Report

    def __len__(self) -> int:
        return len(self.image_ids)

    def boxes_in(self, form: TruthForm) -> Float32[np.ndarray, "boxes 4"]:
        """All boxes; relative ones are clipped to their image (0..1); from the pixels in float64, rounded once.

        So each form is as exact as float32 can be. Native boxes come as they were read, unless they were clipped.
        """
        if form == "xyxy_pixels":
            corner, size = self.pixel_boxes[:, :2], self.pixel_boxes[:, 2:]
            return np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        sizes = np.repeat(self.image_sizes, np.diff(self.splits), axis=0)  # [boxes, 2]
        x, y, width, height = (clip_boxes(self.pixel_boxes, sizes) / np.tile(sizes[:, ::-1], 2)).T
        if form == "yxyx":
            return np.stack([y, x, y + height, x + width], axis=1).astype(np.float32)
        boxes = np.stack([x + width / 2, y + height / 2, width, height], axis=1).astype(np.float32)
        if self.native is None:
            return boxes
        clipped = (np.abs(boxes - self.native) > _ROUNDING).any(1, keepdims=True)
        return np.where(clipped, boxes, self.native)

    def example_name(self, example_id: int) -> str:
        """The image file of an example id, for messages and pictures."""
        rows = np.flatnonzero(self.image_ids == example_id)
        return self.image_paths[rows[0]] if len(rows) else f"no image with id {example_id}"

    def ground_truth(self) -> dict[str, Any]:
        """The truth as a COCO dict, in the data set's own category ids.

        `iscrowd` is 1 for every ignored box (pycocotools knows no other way to ignore one); annotation ids count from
        1, because pycocotools takes 0 for "no match".
        """
        images = [
            {"id": int(image_id), "file_name": path, "height": int(height), "width": int(width)}
            for image_id, path, (height, width) in zip(self.image_ids, self.image_paths, self.image_sizes, strict=True)
        ]
        image_of_box = np.repeat(self.image_ids, np.diff(self.splits))
        annotations = [
            {
                "id": row + 1,
                "image_id": int(image_of_box[row]),
                "category_id": self.category_ids[self.classes[row]],
                "bbox": self.pixel_boxes[row].tolist(),
                "area": float(self.areas[row]),
                "iscrowd": int(self.ignored[row]),
            }
            for row in range(len(self.classes))
        ]
        pairs = zip(self.category_ids, self.class_names, strict=True)
        categories = [{"id": category, "name": name} for category, name in pairs]
        return {"images": images, "annotations": annotations, "categories": categories}


def read_source(config: Source, classes: tuple[str, ...]) -> Annotations:
    """One split's annotations as its files state them; nothing is checked yet.

    Args:
        classes: names of the classes, in the order of the contiguous class ids.

    Raises:
        FileNotFoundError: an annotation file is missing.
        DataError: an annotation file is malformed, or a class is named twice.
    """
    if len(set(classes)) != len(classes):
        raise DataError(f"data.classes names a class twice: {', '.join(classes)}")
    return READERS[config.type](config, classes)


def open_source(
    config: Source, classes: tuple[str, ...], on_bad: Literal["fail", "skip"], max_boxes: int | None
) -> DetectionDataset:
    """Reads and checks one split's annotations.

    Args:
        classes: names of the classes, in the order of the contiguous class ids.
        on_bad: whether anything wrong in the data is an error, or dropped and reported; see dataloaders/checks.py.
        max_boxes: boxes of one image that training can hold; none: no limit, for evaluation.

    Raises:
        FileNotFoundError: an annotation file is missing.
        DataError: an annotation file is malformed, or the data has faults and `on_bad` is "fail".
    """
    found, box_classes, report = check(read_source(config, classes), classes, on_bad, max_boxes)
    return DetectionDataset(
        class_names=classes,
        category_ids=found.category_ids,
        image_ids=found.image_ids,
        image_paths=found.image_paths,
        image_sizes=found.image_sizes,
        splits=np.searchsorted(rows_of_images(found), np.arange(len(found.image_ids) + 1)).astype(np.int64),
        pixel_boxes=found.boxes,
        areas=found.areas,
        classes=box_classes,
        ignored=found.ignored,
        trained=found.trained,
        native=found.relative,
        report=report,
    )
