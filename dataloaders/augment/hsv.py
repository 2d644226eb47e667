"""Darknet's HSV in float (image.c distort_image), its build without OpenCV."""

import tensorflow as tf
from jaxtyping import Float32, UInt8

from dataloaders.augment.compiled import unchanged
from dataloaders.batch import ColourDraws


def distort(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> Float32[tf.Tensor, "b H W 3"]:
    """Pixels 0..1: saturation and value scaled and hue turned in HSV, then clipped (Darknet image.c distort_image).

    As in Darknet, a scaled saturation may exceed 1 until the final clip. An example whose draws change nothing comes
    through exactly, not by way of HSV.
    """
    turn, more_saturation, more_value = (draw[:, tf.newaxis, tf.newaxis] for draw in draws[1:4])  # [b, 1, 1]
    plain = _pixels(images)
    hue, chroma, value = _hexagon(plain)  # [b, H, W] each
    hue = _turned(hue, turn)
    chroma = chroma * more_saturation
    channels = (tf.abs(hue - 3.0) - 1.0, 2.0 - tf.abs(hue - 2.0), 2.0 - tf.abs(hue - 4.0))
    shares = [tf.clip_by_value(channel, 0.0, 1.0) for channel in channels]
    distorted = tf.stack([(value - chroma + chroma * share) * more_value for share in shares], axis=-1)  # [b, H, W, 3]
    return tf.where(unchanged(draws), plain, tf.clip_by_value(distorted, 0.0, 1.0))


def _hexagon(pixels: Float32[tf.Tensor, "b H W 3"]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """RGB -> hue in sixths of a turn (0..6), chroma = saturation * value, value; [b, H, W] each.

    The chroma instead of the saturation spares two divisions.
    """
    red, green, blue = tf.unstack(pixels, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    ahead = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    start = tf.where(is_red, 0.0, tf.where(is_green, 2.0, 4.0))
    hue = start + tf.math.divide_no_nan(ahead, chroma)  # grey: 0
    return tf.where(hue < 0.0, hue + 6.0, hue), chroma, value


def _turned(hue: Float32[tf.Tensor, "b H W"], turn: Float32[tf.Tensor, "b 1 1"]) -> Float32[tf.Tensor, "b H W"]:
    """Hue in sixths of a turn (0..6), turned, with Darknet's operations in its order.

    Because of this: a hue that reaches one full turn to the bit is beyond all six of Darknet's cases (hsv_to_rgb) and
    takes the last one's start, magenta, instead of red.
    """
    turned = _sixth(hue) + turn
    turned = tf.where(turned > 1.0, turned - 1.0, turned)
    turned = 6.0 * tf.where(turned < 0.0, turned + 1.0, turned)
    return tf.where(turned >= 6.0, 5.0, turned)


# Compilers turn a division by a constant into a multiplication by its inverse, and the last bit may be another; a hue
# that is a bit off may miss the full turn. Below, what the multiplication leaves over is found exactly (differences of
# numbers within a factor of two) and divided in turn, so that the result is the division's.


def _pixels(images: UInt8[tf.Tensor, "b H W 3"]) -> Float32[tf.Tensor, "b H W 3"]:
    """Levels / 255, rounded as a division is."""
    levels = tf.cast(images, tf.float32)
    near = levels * (1.0 / 255.0)
    rest = (levels - 256.0 * near) + near
    return near + rest * (1.0 / 255.0)


def _sixth(hue: Float32[tf.Tensor, "b H W"]) -> Float32[tf.Tensor, "b H W"]:
    """Hue / 6, rounded as a division is."""
    near = hue * (1.0 / 6.0)
    rest = (hue - 4.0 * near) - 2.0 * near
    return near + rest * (1.0 / 6.0)
