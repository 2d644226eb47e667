"""Flip and colour. Drawn on the host (a few numbers per example), applied on the accelerator."""

import tensorflow as tf
from jaxtyping import Bool, Float32, Int64, UInt8

from configs.data import Augmentation
from dataloaders.batch import ColourDraws, TrainBatch
from official.vision.resize import normalise


def draw_colour(config: Augmentation | None, seed: Int64[tf.Tensor, "2"]) -> ColourDraws:
    """Draws scalars for one example: flip by a fair coin, hue U(-hue, hue), saturation and exposure by `_draw_scale`.

    Without a configuration: the draws that change nothing. Source: Darknet data.c load_data_detection.
    """
    if config is None:
        return ColourDraws(tf.constant(False), tf.constant(0.0), tf.constant(1.0), tf.constant(1.0))
    u = tf.random.stateless_uniform([6], seed)
    flip = (u[0] < 0.5) & tf.constant(config.flip)
    hue = (2 * u[1] - 1) * config.hue
    return ColourDraws(flip, hue, _draw_scale(config.saturation, u[2:4]), _draw_scale(config.exposure, u[4:6]))


def apply_colour(batch: TrainBatch) -> tuple[Float32[tf.Tensor, "b H W 3"], Float32[tf.Tensor, "b n 4"]]:
    """The network's input (RGB, 0..1) and the truth boxes of a batch whose boxes are cxcywh: flip, then colour.

    Static shapes, element-wise: cheap on an accelerator.
    """
    flip = batch.draws.flip
    images = tf.where(flip[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(batch.image, [2]), batch.image)
    return distort(images, batch.draws), flip_cxcywh(batch.boxes, batch.valid, flip)


def distort(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> Float32[tf.Tensor, "b H W 3"]:
    """Pixels 0..1: saturation and value scaled and hue turned in HSV, then clipped (Darknet image.c distort_image).

    As in Darknet, a scaled saturation may exceed 1 until the final clip. An example whose draws change nothing comes
    through exactly, not by way of HSV.
    """
    plain = normalise(images)
    turn, more_saturation, more_value = (draw[:, tf.newaxis, tf.newaxis] for draw in draws[1:])  # [b, 1, 1]
    hue, chroma, value = _hexagon(plain)  # [b, H, W] each
    hue = _turned(hue, turn)
    chroma = chroma * more_saturation
    channels = (tf.abs(hue - 3.0) - 1.0, 2.0 - tf.abs(hue - 2.0), 2.0 - tf.abs(hue - 4.0))
    shares = [tf.clip_by_value(channel, 0.0, 1.0) for channel in channels]
    distorted = tf.stack([(value - chroma + chroma * share) * more_value for share in shares], axis=-1)  # [b, H, W, 3]
    unchanged = (draws.hue == 0.0) & (draws.saturation == 1.0) & (draws.exposure == 1.0)
    return tf.where(unchanged[:, tf.newaxis, tf.newaxis, tf.newaxis], plain, tf.clip_by_value(distorted, 0.0, 1.0))


def _hexagon(pixels: Float32[tf.Tensor, "b H W 3"]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """RGB -> hue in sixths of a turn (0..6, or -1..0), chroma = saturation * value, value; [b, H, W] each.

    The chroma instead of the saturation spares two divisions, and this spares half of the time of TensorFlow's own
    conversions on a CPU.
    """
    red, green, blue = tf.unstack(pixels, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    is_red, is_green = value == red, value == green
    ahead = tf.where(is_red, green - blue, tf.where(is_green, blue - red, red - green))
    start = tf.where(is_red, 0.0, tf.where(is_green, 2.0, 4.0))
    return start + tf.math.divide_no_nan(ahead, chroma), chroma, value  # grey: hue 0


def _turned(hue: Float32[tf.Tensor, "b H W"], turn: Float32[tf.Tensor, "b 1 1"]) -> Float32[tf.Tensor, "b H W"]:
    """Hue in sixths of a turn, from -1..6 to 0..6, with Darknet's operations in its order.

    Because of this: a hue that reaches one full turn to the bit is beyond all six of Darknet's cases (hsv_to_rgb) and
    takes the last one's start, magenta, instead of red.
    """
    turned = tf.where(hue < 0.0, hue + 6.0, hue) / 6.0 + turn
    turned = tf.where(turned > 1.0, turned - 1.0, turned)
    turned = 6.0 * tf.where(turned < 0.0, turned + 1.0, turned)
    return tf.where(turned >= 6.0, 5.0, turned)


def flip_cxcywh(
    boxes: Float32[tf.Tensor, "b n 4"], valid: Bool[tf.Tensor, "b n"], flip: Bool[tf.Tensor, " b"]
) -> Float32[tf.Tensor, "b n 4"]:
    """Relative cxcywh boxes of images mirrored left to right where `flip`; padding rows stay zeros."""
    mirrored = tf.concat([1.0 - boxes[..., :1], boxes[..., 1:]], axis=-1)  # [b, n, 4]
    return tf.where((flip[:, tf.newaxis] & valid)[..., tf.newaxis], mirrored, boxes)


def _draw_scale(most: float, u: Float32[tf.Tensor, "2"]) -> Float32[tf.Tensor, ""]:
    """U(1, most), or 1 / U(1, most), by a fair coin (Darknet utils.c rand_scale)."""
    scale = 1.0 + u[0] * (most - 1.0)
    return tf.where(u[1] < 0.5, scale, 1.0 / scale)
