"""Where an image lies in the network's input, and the way back for boxes.

Sources: AlexeyAB image.c letterbox_image and the heads' correct_*_boxes; xingyizhou lib/detectors/base_detector.py
pre_process. Sizes are (height, width) in pixels.
"""

import numpy as np
from jaxtyping import Float64

from official.vision.protocol import EvaluationProtocol

Size = tuple[int, int]


def network_size(image: Size, size: Size, protocol: EvaluationProtocol) -> Size:
    """The input that shows an image: `size`, or with `keep` the next multiples of keep_multiple above its sides."""
    if protocol.resize != "keep":
        return size
    return tuple((side // protocol.keep_multiple + 1) * protocol.keep_multiple for side in image)


def filled(
    image: Size, size: Size, protocol: EvaluationProtocol
) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]:
    """(first pixel, sides) of the part of the input that shows the image, each (y, x), in pixels."""
    whole = np.array(network_size(image, size, protocol))
    if protocol.resize == "stretch":
        return np.zeros(2), whole.astype(float)
    if protocol.resize == "keep":
        return (whole // 2 - np.array(image) // 2).astype(float), np.array(image, float)
    if protocol.resize == "affine":  # the longer side fills the width
        sides = np.array(image) * (size[1] / max(image))
        return (whole - sides) / 2, sides
    height, width = size
    if width * image[0] < height * image[1]:
        sides = np.array([max(1, image[0] * width // image[1]), width])
    else:
        sides = np.array([height, max(1, image[1] * height // image[0])])
    return ((whole - sides) // 2).astype(float), sides.astype(float)


def to_original(
    boxes: Float64[np.ndarray, "boxes yxyx=4"], image: Size, size: Size, protocol: EvaluationProtocol
) -> Float64[np.ndarray, "boxes yxyx=4"]:
    """Boxes yxyx relative to the network's input -> relative to the image; not clipped."""
    whole = np.array(network_size(image, size, protocol))
    first, sides = filled(image, size, protocol)
    return (boxes * np.tile(whole, 2) - np.tile(first, 2)) / np.tile(sides, 2)
