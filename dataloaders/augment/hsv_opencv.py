"""HSV in OpenCV's 8 bits (modules/imgproc/src/color_hsv.simd.hpp): hue 0..179, saturation and value 0..255.

Whole numbers in float32. RGB to HSV is OpenCV's integer arithmetic, exact on every device. HSV to RGB is its float
arithmetic, in which a channel that is a whole number to the bit may fall to the level below: OpenCV cuts, and how its
products round is up to the processor. With fused multiply-add (AVX2) one in 9,000 of all HSV colours has a channel that
is a level off from what it is without; here it depends likewise on whether XLA fuses. In what remains of a row after
whole vectors of 32 pixels (16 without AVX2) OpenCV rounds instead of cutting; networks' widths leave nothing.
"""

import tensorflow as tf
from jaxtyping import Float32, UInt8

from dataloaders.augment.compiled import unchanged
from dataloaders.batch import ColourDraws

Plane = Float32[tf.Tensor, "b H W"]


def distort_opencv(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> UInt8[tf.Tensor, "b H W 3"]:
    """Darknet image_opencv.cpp image_data_augmentation: 179 * hue added, saturation and value scaled, all saturating.

    A hue beyond 179 goes on around the circle; one below 0 becomes 0, red. An example whose draws change nothing comes
    through exactly, not by way of HSV.
    """
    turn, more_saturation, more_value = (draw[:, tf.newaxis, tf.newaxis] for draw in draws[1:4])  # [b, 1, 1]
    hue, saturation, value = rgb_to_hsv(images)
    moved = (hue + 179.0 * turn, saturation * more_saturation, value * more_value)
    rgb = hsv_to_rgb(*(tf.clip_by_value(tf.round(channel), 0.0, 255.0) for channel in moved))
    return tf.where(unchanged(draws), images, rgb)


def distort_by_gains(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> UInt8[tf.Tensor, "b H W 3"]:
    """Scaled-YOLOv4 and YOLOv7 utils/datasets.py augment_hsv: each channel times its gain, cut to whole numbers.

    The hue starts again at 0 after 179; saturation and value stop at 255. Gains of at most 16 bits, as `draw_colour`
    makes them, are multiplied exactly. Without any growth the pixels come through exactly (the original's would lose
    up to six levels on the way through HSV).
    """
    growth, more_saturation, more_value = (draw[:, tf.newaxis, tf.newaxis] for draw in draws[1:4])  # [b, 1, 1]
    hue, saturation, value = rgb_to_hsv(images)
    hue = tf.floor(hue * (1.0 + growth))
    scaled = (saturation * more_saturation, value * more_value)
    scaled = (tf.minimum(tf.floor(channel), 255.0) for channel in scaled)
    rgb = hsv_to_rgb(tf.where(hue >= 180.0, hue - 180.0, hue), *scaled)
    return tf.where(unchanged(draws), images, rgb)


def rgb_to_hsv(images: UInt8[tf.Tensor, "b H W 3"]) -> tuple[Plane, Plane, Plane]:
    """Hue 0..179, saturation and value 0..255. OpenCV's RGB2HSV_b: 20 bits, of which the last 12 are rounded away."""
    red, green, blue = (tf.cast(channel, tf.float32) for channel in tf.unstack(images, axis=-1))  # [b, H, W]
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    of_green, of_blue = blue - red + 2.0 * chroma, red - green + 4.0 * chroma
    ahead = tf.where(value == red, green - blue, tf.where(value == green, of_green, of_blue))
    saturation = _descale(chroma * tf.round(255.0 * 4096.0 / tf.maximum(value, 1.0)))
    hue = _descale(ahead * tf.round(30.0 * 4096.0 / tf.maximum(chroma, 1.0)))
    return tf.where(hue < 0.0, hue + 180.0, hue), saturation, value


def hsv_to_rgb(hue: Plane, saturation: Plane, value: Plane) -> UInt8[tf.Tensor, "b H W 3"]:
    """OpenCV's HSV2RGB_b, of hues up to 359. Its order of operations decides what is cut, see above."""
    sixth = hue * (6.0 / 180.0)
    sixth = tf.where(sixth >= 6.0, sixth - 6.0, sixth)
    less = (  # by how much of the chroma each channel is below the value, in each sixth as OpenCV's own term
        tf.minimum(sixth - 1.0, 5.0 - sixth),
        tf.maximum(1.0 - sixth, sixth - 3.0),
        tf.maximum(3.0 - sixth, sixth - 5.0),
    )
    saturation, value = saturation * (1.0 / 255.0), value * (1.0 / 255.0)
    rgb = [255.0 * (value * (1.0 - saturation * tf.clip_by_value(share, 0.0, 1.0))) for share in less]
    return tf.stack([tf.cast(channel, tf.uint8) for channel in rgb], axis=-1)  # [b, H, W, 3]


def _descale(product: Plane) -> Plane:
    """Divided by 2**12, rounded half up: exact, as the products stay below 2**24."""
    return tf.floor((product + 2048.0) * 2.0**-12)
