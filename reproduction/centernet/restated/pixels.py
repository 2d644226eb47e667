"""CenterNet's network input: pixels mirrored, recoloured by their draws, and standardised.

Source: lib/utils/image.py color_aug.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from configs.centernet.augmentation import CenterNetAugmentation
from configs.centernet.task import CenterNetModel

GREY_OF_BGR = (0.114, 0.587, 0.299)
# Principal axes of COCO's colours, rows B, G, R, and their lengths.
LENGTHS = (0.2141788, 0.01817699, 0.00341571)
AXES = (
    (-0.58752847, -0.69563484, 0.41340352),
    (-0.5832747, 0.00994535, -0.81221408),
    (-0.56089297, 0.71832671, 0.41158938),
)


def inputs(
    images: UInt8[np.ndarray, "batch height width 3"],
    flip: Bool[np.ndarray, " batch"],
    order: Int32[np.ndarray, "batch 3"],
    strength: Float32[np.ndarray, "batch 3"],
    lighting: Float32[np.ndarray, "batch 3"],
    config: CenterNetAugmentation | None,
    model: CenterNetModel,
) -> Float64[np.ndarray, "batch height width 3"]:
    """CenterNet's input: B, G, R, mirrored where drawn, recoloured, less the mean, over the deviation.

    Boxes of such a batch are as after the flip already.

    Args:
        images: RGB.
        order, strength, lighting, flip: the draws of each example.
        config: whose draws they are; without its `colour` nothing is recoloured.
        model: of which the mean and the deviation are used.
    """
    pixels = np.zeros(images.shape)
    for number, image in enumerate(images):
        one = (image[:, ::-1] if flip[number] else image)[..., ::-1] / 255.0
        if config is not None and config.colour:
            one = recoloured(one, order[number], strength[number], lighting[number])
        pixels[number] = (one - model.mean) / model.std
    return pixels


def recoloured(
    image: Float64[np.ndarray, "height width 3"],
    order: Int32[np.ndarray, "3"],
    strength: Float32[np.ndarray, "3"],
    lighting: Float32[np.ndarray, "3"],
) -> Float64[np.ndarray, "height width 3"]:
    """color_aug of B, G, R: brightness 0, contrast 1 and saturation 2 in their order, then lighting; not clipped.

    The grey image and its mean are those before any change.
    """
    grey = (image @ GREY_OF_BGR)[..., np.newaxis]
    others = {0: np.zeros(1), 1: grey.mean(), 2: grey}
    for kind, share in zip(order, strength.astype(np.float64), strict=True):
        image = image * share + others[int(kind)] * (1 - share)
    return image + np.array(AXES) @ (lighting * np.array(LENGTHS))
