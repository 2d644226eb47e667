"""The contents of annotation files before anything is checked, and the readers' one kind of error."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from dataloaders.reading.image_header import ImageLook
from official.core.errors import UserError


class DataError(UserError):
    """Data that cannot be used; the message says where, what was expected, and what to do."""


@dataclass(frozen=True)
class Annotations:
    """Images and their boxes as the files state them. Boxes name their image by id and their category by its label.

    Attributes:
        where: annotation file or folder, for messages.
        image_sizes: (height, width) in pixels; (0, 0) where the annotation does not say.
        boxes: x, y, width, height in pixels from the upper left corner; NaN where a number is missing or is none. A
            source of relative boxes leaves them to checks.py, which knows the images' sizes.
        areas: in pixels, for the size classes of COCO's evaluation; NaN where the annotation does not say.
        ignored: boxes that evaluation neither rewards nor punishes (COCO: crowd, VOC: difficult).
        trained: boxes that training sees.
        category_ids: the data set's own id of each class, in the order of the configured classes.
        relative: centre x, centre y, width, height relative to the image, where that is what the source states.
        malformed: (image id, message with file and line) of each entry that is no box at all.
        unlabelled: images that have no annotation file, where an image may have none.
        looks: what a look at each image found, where the reader had to read them anyway; none: checks.py looks.
    """

    where: str
    image_ids: Int64[np.ndarray, " images"]
    image_paths: list[str]
    image_sizes: Int32[np.ndarray, "images 2"]
    box_image_ids: Int64[np.ndarray, " boxes"]
    boxes: Float64[np.ndarray, "boxes xywh=4"]
    areas: Float64[np.ndarray, " boxes"]
    labels: list[str]
    ignored: Bool[np.ndarray, " boxes"]
    trained: Bool[np.ndarray, " boxes"]
    category_ids: tuple[int, ...]
    relative: Float32[np.ndarray, "boxes cxcywh=4"] | None = None
    malformed: tuple[tuple[int, str], ...] = ()
    unlabelled: tuple[int, ...] = ()
    looks: tuple[ImageLook, ...] | None = None


def read_bytes(path: str, what: str) -> bytes:
    """A whole file.

    Raises:
        FileNotFoundError: it is missing; the message names `what` it should have been.
        DataError: it is there, but cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"cannot read {what} {path}: {error.message}") from None
    except tf.errors.OpError as error:
        raise DataError(f"cannot read {what} {path}: {error.message}; expected a file that may be read") from None


def as_number(value: object) -> float:
    """A float, or NaN for what is not a number: checks.py reports it as `non_finite_box`."""
    if isinstance(value, bool):
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def pixels_of(
    relative: Float32[np.ndarray, "boxes cxcywh=4"], image_sizes: Int32[np.ndarray, "boxes 2"]
) -> Float64[np.ndarray, "boxes xywh=4"]:
    """Centre x, centre y, width, height relative to images of (height, width) -> x, y, width, height in pixels."""
    x, y, width, height = relative.astype(np.float64).T
    return np.stack([x - width / 2, y - height / 2, width, height], axis=1) * np.tile(image_sizes[:, ::-1], 2)


def clip_boxes(
    boxes: Float64[np.ndarray, "boxes xywh=4"], image_sizes: Int32[np.ndarray, "boxes 2"]
) -> Float64[np.ndarray, "boxes xywh=4"]:
    """x, y, width, height in pixels, clipped to images of (height, width); what lies inside keeps its very numbers."""
    limits = np.tile(image_sizes[:, ::-1], 2)  # [boxes, 4]: width, height, width, height
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    clipped = np.clip(corners, 0, limits)
    # x + width - x is not width in floating point, so only boxes that reach out are computed again.
    outside = (clipped != corners).any(1, keepdims=True)
    return np.where(outside, np.concatenate([clipped[:, :2], clipped[:, 2:] - clipped[:, :2]], axis=1), boxes)
