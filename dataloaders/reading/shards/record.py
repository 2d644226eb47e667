"""Records of shards: each is a tf.train.Example under the usual names, and a few of our own for exactness.

| feature | value |
|---|---|
| image/encoded | the image file's bytes, untouched; image/format: `jpeg` or `png` |
| image/filename | the image file, as the source called it |
| image/id | the data set's own number; image/source_id: the same as text |
| image/height, image/width | pixels |
| image/object/bbox/ymin, xmin, ymax, xmax | float32, relative to the image, within 0..1 |
| image/object/class/label | position in the manifest's `classes`, from 0; image/object/class/text: the name |
| image/object/area | float32, square pixels |
| image/object/is_crowd | 1: evaluation neither rewards nor punishes it |
| image/object/trained | 1: training sees it (COCO's crowds are not trained, VOC's difficult objects are) |
| image/object/cxcywh | float32, 4 numbers a box, relative: a Darknet label file's own numbers where the source is one |
| image/object/exact | little-endian float64 as bytes, 5 a box: x, y, width, height, area in pixels, as annotated |

What training must not see, or evaluation ignores, was decided by the checks, when the shard was written.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Int64, Shaped

from dataloaders.reading.dataset import Example, Truth, TruthForm

_CORNERS = tuple(f"image/object/bbox/{edge}" for edge in ("ymin", "xmin", "ymax", "xmax"))
_SCALARS = {
    "image/filename": tf.string,
    "image/id": tf.int64,
    "image/height": tf.int64,
    "image/width": tf.int64,
    "image/object/exact": tf.string,
}
_LISTS = {
    **dict.fromkeys([*_CORNERS, "image/object/cxcywh"], tf.float32),
    **dict.fromkeys([f"image/object/{name}" for name in ("class/label", "is_crowd", "trained")], tf.int64),
}
_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    **{name: tf.io.FixedLenFeature([], dtype) for name, dtype in _SCALARS.items()},
    **{name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True) for name, dtype in _LISTS.items()},
}
_PNG_START = b"\x89PNG"


def serialize(truth: Truth, encoded: bytes, class_names: tuple[str, ...]) -> bytes:
    """The record of an image: the same bytes for the same input."""
    exact = np.concatenate([truth.pixel_boxes, truth.areas[:, np.newaxis]], axis=1).astype("<f8")  # [n, 5]
    height, width = truth.size
    features = {
        "image/encoded": _bytes([encoded]),
        "image/format": _bytes([b"png" if encoded.startswith(_PNG_START) else b"jpeg"]),
        "image/filename": _bytes([truth.name.encode()]),
        "image/id": _integers([truth.image_id]),
        "image/source_id": _bytes([str(truth.image_id).encode()]),
        "image/height": _integers([height]),
        "image/width": _integers([width]),
        **{name: _floats(truth.yxyx[:, edge]) for edge, name in enumerate(_CORNERS)},
        "image/object/class/label": _integers(truth.classes),
        "image/object/class/text": _bytes([class_names[number].encode() for number in truth.classes]),
        "image/object/area": _floats(truth.areas),
        "image/object/is_crowd": _integers(truth.ignored),
        "image/object/trained": _integers(truth.trained),
        "image/object/cxcywh": _floats(truth.cxcywh.ravel()),
        "image/object/exact": _bytes([exact.tobytes()]),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def parse_example(record: Shaped[tf.Tensor, ""], form: TruthForm, most: Int64[tf.Tensor, ""]) -> Example:
    """The example of a record (scalar string), in graph mode: of the trained boxes the first `most`."""
    needed = {name: feature for name, feature in _FEATURES.items() if name != "image/object/is_crowd"}
    parsed = tf.io.parse_single_example(record, needed)
    chosen = tf.where(parsed["image/object/trained"] > 0)[:most, 0]  # [n] of all boxes of the image
    yxyx = tf.gather(tf.stack([parsed[name] for name in _CORNERS], axis=1), chosen)  # [n, 4]
    if form == "yxyx":
        boxes = yxyx
    elif form == "cxcywh":
        boxes = tf.gather(tf.reshape(parsed["image/object/cxcywh"], [-1, 4]), chosen)  # [n, 4]
    else:
        exact = tf.reshape(tf.io.decode_raw(parsed["image/object/exact"], tf.float64), [-1, 5])
        corner, size = exact[:, :2], exact[:, 2:4]
        boxes = tf.gather(tf.cast(tf.concat([corner, corner + size], axis=1), tf.float32), chosen)  # [n, 4]
    return Example(
        parsed["image/encoded"],
        parsed["image/filename"],
        tf.cast(tf.stack([parsed["image/height"], parsed["image/width"]]), tf.int32),
        parsed["image/id"],
        boxes,
        yxyx,
        tf.cast(tf.gather(parsed["image/object/class/label"], chosen), tf.int32),
    )


def parse_stored(record: Shaped[tf.Tensor, ""]) -> dict[str, Shaped[tf.Tensor, "..."]]:
    """All that `truth_of` needs of a record (scalar string), and image/encoded; in graph mode."""
    return tf.io.parse_single_example(record, _FEATURES)


def truth_of(parsed: Mapping[str, Any]) -> Truth:
    """The truth, exactly as it was written, of what `parse_stored` made of a record, in NumPy."""
    exact = np.frombuffer(parsed["image/object/exact"], "<f8").reshape(-1, 5).astype(np.float64)
    return Truth(
        name=parsed["image/filename"].decode(),
        image_id=int(parsed["image/id"]),
        size=(int(parsed["image/height"]), int(parsed["image/width"])),
        pixel_boxes=exact[:, :4],
        areas=exact[:, 4],
        yxyx=np.stack([parsed[name] for name in _CORNERS], axis=1),
        cxcywh=parsed["image/object/cxcywh"].reshape(-1, 4),
        classes=parsed["image/object/class/label"].astype(np.int32),
        ignored=parsed["image/object/is_crowd"] > 0,
        trained=parsed["image/object/trained"] > 0,
    )


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _floats(values: np.ndarray) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values.tolist()))


def _integers(values: np.ndarray | list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value) for value in values]))
