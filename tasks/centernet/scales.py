"""CenterNet's test at several scales, merged by soft-NMS (lib/detectors/base_detector.py run, ctdet.py merge_outputs).

Each scale's image is resized beside the network, and has an input of its own or a larger part of the fixed one. The
merge runs on the host: this is for evaluation, not for an export.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8

from configs.centernet.task import CenterNetProtocol
from modeling.centernet.soft_nms import Rows, merge_scales
from official.vision.boxes import swap_xy
from official.vision.detect import Decode
from official.vision.interpolation import INTERPOLATIONS
from official.vision.nms import Detections
from official.vision.resize import fitting_map, image_to_input, normalise, resize_image, whole_image
from official.vision.warp import WARPS


def detect_at_scales(
    model: Callable,
    decode: Decode,
    image: UInt8[tf.Tensor, "1 h w 3"],
    protocol: CenterNetProtocol,
    input_size: tuple[int, int],
) -> Detections:
    """Detections of one whole image, RGB; boxes relative to it, not clipped; as many rows as all scales give together.

    model, decode: as of `official.vision.detect.detect`.
    """
    per_scale = [_at_scale(model, decode, image[0], scale, protocol, input_size) for scale in protocol.scales]
    boxes, scores = (tf.concat(parts, axis=0) for parts in zip(*per_scale, strict=True))
    classes = tf.argmax(scores, axis=1)
    num_classes, most = scores.shape[1], protocol.detections_per_image

    def merge(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, ...]:
        real = scores > protocol.score_floor
        rows = Rows(boxes[real], scores[real], classes[real])
        boxes, scores, classes = merge_scales([rows], num_classes, most)
        order = np.argsort(-scores, kind="stable")
        missing = len(real) - len(order)
        columns = (boxes[order], scores[order], classes[order].astype(np.int32), np.ones(len(order), bool))
        return tuple(np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) for part in columns)

    types = (tf.float32, tf.float32, tf.int32, tf.bool)
    merged = tf.numpy_function(merge, (boxes, tf.reduce_max(scores, axis=1), classes), types, stateful=False)
    count = boxes.shape[0]
    merged = [tf.ensure_shape(part, shape) for part, shape in zip(merged, ([count, 4], *[[count]] * 3), strict=True)]
    sides = tf.cast(tf.tile(tf.shape(image)[1:3], [2]), tf.float32)
    return Detections(*(part[tf.newaxis] for part in (swap_xy(merged[0]) / sides, *merged[1:])))


def _at_scale(
    model: Callable,
    decode: Decode,
    image: UInt8[tf.Tensor, "h w 3"],
    scale: float,
    protocol: CenterNetProtocol,
    input_size: tuple[int, int],
) -> tuple[Float32[tf.Tensor, "peaks xyxy=4"], Float32[tf.Tensor, "peaks classes"]]:
    """Boxes xyxy in pixels of the image, and scores, of the image resized to `scale` of it."""
    size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float64) * scale, tf.int32)  # truncated, as Python's int()
    resized = image if scale == 1 else INTERPOLATIONS[protocol.interpolation](image, size)
    if protocol.resize == "keep":
        pixels = resize_image(resized, input_size, protocol)
        to_input, shift = image_to_input(size, whole_image(size), input_size, protocol)
    else:
        pixels, to_input, shift = _zoomed(resized, size, tf.shape(image)[:2], protocol, input_size)
    boxes, scores = decode(model(normalise(pixels)[tf.newaxis], training=False))
    relative = (boxes[0] - tf.tile(shift, [2])) / tf.tile(to_input, [2])  # yxyx, to the resized image
    return swap_xy(relative * tf.cast(tf.tile(size, [2]), tf.float32)) / scale, scores[0]


def _zoomed(
    resized: UInt8[tf.Tensor, "h w 3"],
    size: Int32[tf.Tensor, "2"],
    image_size: Int32[tf.Tensor, "2"],
    protocol: CenterNetProtocol,
    input_size: tuple[int, int],
) -> tuple[UInt8[tf.Tensor, "H W 3"], Float32[tf.Tensor, "2"], Float32[tf.Tensor, "2"]]:
    """The resized image about the input's middle, its pixels as large as the unscaled image's are when that fits.

    Also (scale, shift) of (y, x) as of `image_to_input`.
    """
    where = fitting_map(size, tf.reduce_max(image_size), input_size)
    pixels = WARPS[protocol.interpolation](resized, where, input_size)
    to_input = tf.cast(where.scale * tf.cast(size, tf.float64) / tf.constant(input_size, tf.float64), tf.float32)
    return pixels, to_input, 0.5 - to_input / 2
