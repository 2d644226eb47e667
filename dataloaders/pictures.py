"""Pictures of training batches as the network sees them, for TensorBoard and for files."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, UInt8

from official.vision.boxes import cxcywh_to_yxyx
from official.vision.draw import draw_boxes, grid

MOST_PICTURES = 16


def picture_of(
    images: Float32[tf.Tensor, "b H W 3"],
    boxes: Float32[tf.Tensor, "b n 4"],
    classes: Int32[tf.Tensor, "b n"],
    valid: Bool[tf.Tensor, "b n"],
    class_names: Sequence[str],
) -> UInt8[np.ndarray, "height width 3"]:
    """One picture of the first images of a batch (16 at most), truth boxes drawn in.

    Args:
        images: network input, RGB 0..1, after colour and flip.
        boxes: cxcywh relative to the input; padding rows are not valid.
    """
    pixels = tf.cast(tf.round(images[:MOST_PICTURES] * 255.0), tf.uint8).numpy()
    rows = zip(pixels, cxcywh_to_yxyx(boxes).numpy(), classes.numpy(), valid.numpy(), strict=False)
    return grid(
        [
            draw_boxes(image, corners[real], [class_names[number] for number in ids[real]], None, ids[real])
            for image, corners, ids, real in rows
        ]
    )
