"""A split whose images are files of their own and whose truth is held in memory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from dataloaders.reading.annotations import DataError, clip_boxes, read_bytes
from dataloaders.reading.checks import Report
from dataloaders.reading.dataset import Example, Examples, Truth, TruthForm, coco_dict
from official.core.errors import first_line
from official.vision.resize import decode_image

_ROUNDING = 2.0**-23  # a difference in relative coordinates that clipping may also have made by rounding alone


@dataclass(frozen=True)
class FileDataset:
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
    pixel_boxes: Float64[np.ndarray, "boxes xywh=4"]
    areas: Float64[np.ndarray, " boxes"]
    classes: Int32[np.ndarray, " boxes"]
    ignored: Bool[np.ndarray, " boxes"]
    trained: Bool[np.ndarray, " boxes"]
    native: Float32[np.ndarray, "boxes cxcywh=4"] | None
    report: Report

    def __len__(self) -> int:
        return len(self.image_ids)

    def boxes_in(self, form: TruthForm) -> Float32[np.ndarray, "boxes box=4"]:
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

    def fingerprint(self) -> str:
        """A hash that distinguishes this truth from any other."""
        digest = hashlib.sha256(repr((self.class_names, self.category_ids, self.image_paths)).encode())
        for column in (self.image_ids, self.image_sizes, self.splits, self.pixel_boxes, self.areas, self.classes,
                       self.ignored, self.trained, self.boxes_in("cxcywh")):  # fmt: skip
            digest.update(np.ascontiguousarray(column))
        return digest.hexdigest()

    def examples(self, form: TruthForm) -> Examples:
        """Reads the files, and holds the trained boxes in tensors."""
        return _FileExamples(self, form)

    def stored(self, rows: range) -> Iterator[tuple[Truth, bytes]]:
        """Truth and encoded image of these rows."""
        return zip(self.part(rows).truths(), self.encoded(rows), strict=True)

    def encoded(self, rows: range) -> Iterator[bytes]:
        """The encoded images of these rows.

        Raises:
            FileNotFoundError, DataError: an image cannot be read.
        """
        return (read_bytes(self.image_paths[row], "the image") for row in rows)

    def part(self, rows: range) -> "FileDataset":
        """These rows (one after the other) alone."""
        images = slice(rows.start, rows.stop)
        boxes = slice(self.splits[rows.start], self.splits[rows.stop])
        return replace(
            self,
            image_ids=self.image_ids[images],
            image_paths=self.image_paths[images],
            image_sizes=self.image_sizes[images],
            splits=self.splits[rows.start : rows.stop + 1] - self.splits[rows.start],
            pixel_boxes=self.pixel_boxes[boxes],
            areas=self.areas[boxes],
            classes=self.classes[boxes],
            ignored=self.ignored[boxes],
            trained=self.trained[boxes],
            native=None if self.native is None else self.native[boxes],
        )

    def truths(self) -> Iterator[Truth]:
        """Every image's truth, in order."""
        yxyx, cxcywh = self.boxes_in("yxyx"), self.boxes_in("cxcywh")
        of_images = zip(self.image_paths, self.image_ids.tolist(), self.image_sizes.tolist(), strict=True)
        for row, (name, image_id, size) in enumerate(of_images):
            boxes = slice(self.splits[row], self.splits[row + 1])
            yield Truth(
                name, image_id, tuple(size), self.pixel_boxes[boxes], self.areas[boxes], yxyx[boxes], cxcywh[boxes],
                self.classes[boxes], self.ignored[boxes], self.trained[boxes],
            )  # fmt: skip

    def ground_truth(self) -> dict[str, Any]:
        """The truth as a COCO dict, in the data set's own category ids; see `coco_dict`."""
        return coco_dict(self.class_names, self.category_ids, self.truths())

    def example_name(self, example_id: int) -> str:
        """The image file of an example id."""
        rows = np.flatnonzero(self.image_ids == example_id)
        return self.image_paths[rows[0]] if len(rows) else f"no image with id {example_id}"

    def check(self, row: int) -> None:
        """Reads and decodes one image.

        Raises:
            DataError: naming the file; it cannot be decoded as it was checked.
        """
        where = f"{self.image_paths[row]} (image id {self.image_ids[row]})"
        try:
            found = decode_image(tf.constant(read_bytes(self.image_paths[row], "the image"))).shape
        except (FileNotFoundError, tf.errors.OpError) as error:
            raise DataError(
                f"{where}: cannot be decoded, though its header and end mark were there before: "
                f"{first_line(error)}. Repair the file and start the same command again"
            ) from None
        (height, width), (then_height, then_width) = found[:2], self.image_sizes[row]
        if (height, width) != (then_height, then_width):
            raise DataError(
                f"{where}: is {height} x {width} pixels (height x width), but was "
                f"{then_height} x {then_width} when it was checked. Put the file back and start the same command again"
            )


class _FileExamples:
    """Examples whose images are files of their own, and whose truth is held in memory."""

    def __init__(self, dataset: FileDataset, form: TruthForm) -> None:
        trained = dataset.trained
        before = np.concatenate([[0], np.cumsum(trained)]).astype(np.int64)
        self._paths, self._sizes = tf.constant(dataset.image_paths), tf.constant(dataset.image_sizes)
        self._ids = tf.constant(dataset.image_ids)
        splits = before[dataset.splits]
        self._boxes_of = tf.constant(np.stack([splits[:-1], splits[1:]], axis=1))  # [images, 2]: from, up to
        self._boxes = tf.constant(dataset.boxes_in(form)[trained])
        self._yxyx = tf.constant(dataset.boxes_in("yxyx")[trained])
        self._classes = tf.constant(dataset.classes[trained])

    def __len__(self) -> int:
        return self._paths.shape[0]

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        # Gathered: indexing by a tensor would be four operations each.
        boxes, path = tf.range(*tf.unstack(tf.gather(self._boxes_of, row))), tf.gather(self._paths, row)
        size, example_id = tf.gather(self._sizes, row), tf.gather(self._ids, row)
        of_boxes = (tf.gather(column, boxes) for column in (self._boxes, self._yxyx, self._classes))
        return Example(tf.io.read_file(path), path, size, example_id, *of_boxes)
