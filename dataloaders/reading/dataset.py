"""The contract of a data set: truth for a task, and random access to images from inside the pipeline."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Shaped, UInt8

from dataloaders.reading.checks import Report
from official.vision.resize import decode_image

TruthForm = Literal["yxyx", "cxcywh", "xyxy_pixels"]  # the first two are relative to the image


class Example(NamedTuple):
    """One image as it is stored, and the boxes that training sees; nothing is drawn or decoded yet."""

    encoded: Shaped[tf.Tensor, ""]  # string: the bytes of a JPEG or PNG file
    name: Shaped[tf.Tensor, ""]  # string, for messages: the file
    size: Int32[tf.Tensor, "2"]  # (height, width) in pixels
    example_id: Int64[tf.Tensor, ""]
    boxes: Float32[tf.Tensor, "n box=4"]  # in the form that was asked for: yxyx, cxcywh, or xyxy in pixels
    yxyx: Float32[tf.Tensor, "n yxyx=4"]  # the same boxes, relative to the image
    classes: Int32[tf.Tensor, " n"]


@runtime_checkable
class Examples(Protocol):
    """The images of a split by row, 0-based."""

    def __len__(self) -> int: ...

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        """In graph mode. What it gives depends on the row alone; see `in_parallel`."""


class Truth(NamedTuple):
    """One image's checked truth, all of it, in NumPy; `sources.files.FileDataset` says what the fields mean."""

    name: str  # the image file, as the source calls it
    image_id: int
    size: tuple[int, int]  # (height, width) in pixels
    pixel_boxes: Float64[np.ndarray, "n xywh=4"]  # x, y, width, height
    areas: Float64[np.ndarray, " n"]  # in pixels
    yxyx: Float32[np.ndarray, "n yxyx=4"]  # relative, as `boxes_in` makes them
    cxcywh: Float32[np.ndarray, "n cxcywh=4"]
    classes: Int32[np.ndarray, " n"]
    ignored: Bool[np.ndarray, " n"]
    trained: Bool[np.ndarray, " n"]


@runtime_checkable
class DetectionDataset(Protocol):
    """One checked split of a data set: either files with the truth in memory, or shards."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # the data set's own id of each class
    image_ids: Int64[np.ndarray, " images"]
    report: Report

    def __len__(self) -> int: ...

    def fingerprint(self) -> str:
        """A hash that distinguishes this truth from any other."""

    def examples(self, form: TruthForm) -> Examples:
        """For training and evaluation; boxes in that form."""

    def stored(self, rows: range) -> Iterator[tuple[Truth, bytes]]:
        """The truth and the encoded image of these rows, in order: all that there is of them."""

    def ground_truth(self) -> dict[str, Any]:
        """The truth as a COCO dict, in the data set's own category ids; see `coco_dict`."""

    def example_name(self, example_id: int) -> str:
        """The name by which a user knows an image, for messages and pictures."""

    def check(self, row: int) -> None:
        """Reads and decodes one image. Raises a DataError that names it, if that cannot be done."""


def decode_example(example: Example) -> UInt8[tf.Tensor, "h w 3"]:
    """Decoded pixels, of the size that was stated.

    Nothing here, or elsewhere in the map, may keep state, but for the assertion: deterministic runs would then read
    one image after the other.
    """
    image = decode_image(example.encoded)
    found = tf.shape(image)[:2]
    told = ["image", example.name, "has size", found, "and had, when the run began,", example.size]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(found == example.size), told)]):
        return tf.identity(image)


def in_parallel(batches: int, build: Callable[[], tf.data.Dataset]) -> tf.data.Dataset:
    """The dataset that `build` makes, with its parallel maps left parallel in deterministic runs.

    Reading a record of a shard is a dataset of one element, and TensorFlow counts taking that element as an operation
    with state, though it only reads a file. Under tf.config.experimental.enable_op_determinism a map with state is
    rewritten to run serially, without prefetching (grappler's make_deterministic). That rewrite reaches datasets that
    are built outside or in tf.data's own functions, so these are built inside a tf.function, which it leaves alone
    (tf_data_meta_optimizer). What the batches contain is the same either way.

    Args:
        batches: how many there are; tf.data.INFINITE_CARDINALITY for endless ones.
    """
    function = tf.function(build, autograph=False)
    outer = tf.data.Dataset.from_tensors(0).flat_map(tf.autograph.experimental.do_not_convert(lambda _: function()))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return outer.apply(tf.data.experimental.assert_cardinality(batches)).with_options(options)


def coco_dict(class_names: tuple[str, ...], category_ids: tuple[int, ...], truths: Iterable[Truth]) -> dict[str, Any]:
    """The truth as a COCO dict, in the data set's own category ids.

    `iscrowd` is 1 for every ignored box (pycocotools knows no other way to ignore one); annotation ids count from
    1, because pycocotools takes 0 for "no match".
    """
    images, annotations = [], []
    for truth in truths:
        height, width = truth.size
        images.append({"id": truth.image_id, "file_name": truth.name, "height": height, "width": width})
        columns = (column.tolist() for column in (truth.classes, truth.pixel_boxes, truth.areas, truth.ignored))
        for number, box, area, ignored in zip(*columns, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": category_ids[number],
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(ignored),
                }
            )
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, class_names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}
