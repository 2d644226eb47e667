"""From resized images to detections: the one composition that evaluation and every export run."""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Float32, Int32

from official.core.expect import TensorError, expect
from official.vision.nms import Detections, select
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import Images, boxes_to_original, normalise, static_size

# The network's outputs -> boxes yxyx relative to its input [b, n, 4], scores [b, n, c].
Decode = Callable[[Sequence[tf.Tensor]], tuple[Float32[tf.Tensor, "b n yxyx=4"], Float32[tf.Tensor, "b n c"]]]


def detect(
    model: Callable,
    decode: Decode,
    images: Images,
    image_sizes: Int32[tf.Tensor, "b 2"],
    protocol: EvaluationProtocol,
    input_size: tuple[int, int],
) -> Detections:
    """Detections of images that `resize_image` made.

    Args:
        model: the network, called with float32 images, RGB 0..1, and training=False. A network that was trained on
            other numbers makes them itself.
        decode: turns its outputs into boxes and scores.
        images: [b, *input_size, 3], RGB; with `keep`, one image of its own size.
        image_sizes: (height, width) of the originals in pixels; 1 by 1 in a padding row.
        protocol: as given to `resize_image`.
        input_size: (height, width).

    Returns:
        boxes relative to the original images, and not clipped to them; the rest as `select` says.

    Raises:
        TensorError: of images or sizes that cannot be what they are given for.
    """
    _check(images, image_sizes, protocol, input_size)
    boxes, scores = decode(model(normalise(images), training=False))
    # Before NMS, not after: the distance that two of its kinds take off depends on the image's shape.
    return select(boxes_to_original(boxes, image_sizes, input_size, protocol), scores, protocol)


def _check(
    images: tf.Tensor, image_sizes: tf.Tensor, protocol: EvaluationProtocol, input_size: tuple[int, int]
) -> None:
    expect("detect: images", images, Images, "RGB levels 0..255, as resize_image makes them")
    meaning = "(height, width) of each original image in pixels"
    expect("detect: image_sizes", image_sizes, Int32[tf.Tensor, "batch 2"], meaning, {"batch": images.shape[0]})
    given = tuple(images.shape[1:3])
    if None not in (*given, *static_size(input_size, protocol)) and given != tuple(input_size):
        swapped = "; likely height and width are swapped" if given[::-1] == tuple(input_size) else ""
        raise TensorError(
            f"detect: images are {given[0]} x {given[1]} (height x width); expected the network's input size, "
            f"{input_size[0]} x {input_size[1]}, as resize_image makes them{swapped}"
        )
