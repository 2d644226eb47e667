"""From resized images to detections: the one composition that evaluation and every export run."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8

from official.core.config import Protocol
from official.vision.nms import Detections, per_class_nms
from official.vision.resize import boxes_to_original, normalise

# The network's outputs -> boxes yxyx relative to its input [b, n, 4], scores [b, n, c].
Decode = Callable[[Sequence[tf.Tensor]], tuple[Float32[tf.Tensor, "b n 4"], Float32[tf.Tensor, "b n c"]]]


def detect(
    model: Callable,
    decode: Decode,
    images: UInt8[tf.Tensor, "b H W 3"],
    image_sizes: Int32[tf.Tensor, "b 2"],
    protocol: Protocol,
    input_size: tuple[int, int],
) -> Detections:
    """Detections of images that `resize_image` made.

    Args:
        model: the network, called with float32 images 0..1 and training=False.
        decode: turns its outputs into boxes and scores.
        images: at `input_size`, RGB.
        image_sizes: (height, width) of the originals in pixels; 1 by 1 in a padding row.
        protocol: as given to `resize_image`.
        input_size: (height, width).

    Returns:
        boxes relative to the original images (0..1) and clipped to them; the rest as `per_class_nms` says.
    """
    boxes, scores = decode(model(normalise(images), training=False))
    found = per_class_nms(boxes, scores, protocol)
    originals = boxes_to_original(found.boxes, image_sizes, input_size, protocol)
    return found._replace(boxes=tf.where(found.valid[..., tf.newaxis], originals, 0.0))
