"""Random access to a split's images and truths from inside the pipeline, wherever they are stored."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, Int64, UInt8

from dataloaders.sources import DetectionDataset, TruthForm
from official.vision.resize import decode_image


class Example(NamedTuple):
    """One image as it is stored, and the boxes that training sees; nothing is drawn or decoded yet."""

    encoded: tf.Tensor  # scalar string: the bytes of a JPEG or PNG file
    name: tf.Tensor  # scalar string, for messages: the file
    size: Int32[tf.Tensor, "2"]  # (height, width) in pixels
    example_id: Int64[tf.Tensor, ""]
    boxes: Float32[tf.Tensor, "n 4"]  # in the form that was asked for
    yxyx: Float32[tf.Tensor, "n 4"]  # the same boxes, relative to the image
    classes: Int32[tf.Tensor, " n"]


@runtime_checkable
class Examples(Protocol):
    """The images of a split by row, 0-based."""

    def __len__(self) -> int: ...

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        """In graph mode, without state."""


class Files:
    """Examples whose images are files of their own, and whose truth is held in memory."""

    def __init__(self, dataset: DetectionDataset, form: TruthForm) -> None:
        trained = dataset.trained
        before = np.concatenate([[0], np.cumsum(trained)]).astype(np.int64)
        self._paths, self._sizes = tf.constant(dataset.image_paths), tf.constant(dataset.image_sizes)
        self._ids = tf.constant(dataset.image_ids)
        self._splits = tf.constant(before[dataset.splits])  # boxes of row i: splits[i] to splits[i + 1]
        self._boxes = tf.constant(dataset.boxes_in(form)[trained])
        self._yxyx = tf.constant(dataset.boxes_in("yxyx")[trained])
        self._classes = tf.constant(dataset.classes[trained])

    def __len__(self) -> int:
        return self._paths.shape[0]

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        boxes, path = slice(self._splits[row], self._splits[row + 1]), self._paths[row]
        return Example(
            tf.io.read_file(path), path, self._sizes[row], self._ids[row],
            self._boxes[boxes], self._yxyx[boxes], self._classes[boxes],
        )  # fmt: skip


def decode_example(example: Example) -> UInt8[tf.Tensor, "h w 3"]:
    """Decoded pixels, of the size that was stated.

    Nothing here, or beside it in the map, may keep state, but for the assertion: deterministic runs would then read
    one image after the other.
    """
    image = decode_image(example.encoded)
    found = tf.shape(image)[:2]
    told = ["image", example.name, "has size", found, "and had, when the run began,", example.size]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(found == example.size), told)]):
        return tf.identity(image)
