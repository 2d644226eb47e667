"""Flip and colour. Drawn on the host (a few numbers per example), applied on the accelerator."""

from collections.abc import Callable

import tensorflow as tf
from jaxtyping import Bool, Float32, Int64, UInt8

from configs.colour import Colour, DarknetFloat, DarknetOpencv, HsvGains
from configs.data import Composed, DarknetAugmentation
from dataloaders.augment.compiled import fused
from dataloaders.augment.effects import apply_effects
from dataloaders.augment.hsv import distort
from dataloaders.augment.hsv_opencv import distort_by_gains, distort_opencv
from dataloaders.batch import ColourDraws, Effects, TrainBatch
from official.vision.resize import normalise

GAIN_STEP = 2.0**-15  # a gain in whole steps times a level is exact in float32


def draw_colour(config: DarknetAugmentation | None, seed: Int64[tf.Tensor, "2"]) -> ColourDraws:
    """Draws scalars for one example: flip by a fair coin, colours by the configuration's `colour`.

    Darknet's: hue U(-hue, hue), saturation and exposure by `_draw_scale`, then `_draw_effects` (data.c
    load_data_detection). hsv_gains: U(-1, 1) times each channel's number (utils/datasets.py augment_hsv), in steps of
    2**-15. Without a configuration: the draws that change nothing.
    """
    if config is None:
        return ColourDraws(tf.constant(False), tf.constant(0.0), tf.constant(1.0), tf.constant(1.0))
    u = tf.random.stateless_uniform([6], seed)
    of_flip, of_hue, *of_scales = tf.unstack(u)
    flip = (of_flip < 0.5) & tf.constant(config.flip)
    if isinstance(config.colour, HsvGains):
        return ColourDraws(flip, *draw_gains(config.colour, u[1:4]))
    hue = (2 * of_hue - 1) * config.hue
    scales = _draw_scale(config.saturation, *of_scales[:2]), _draw_scale(config.exposure, *of_scales[2:])
    return ColourDraws(flip, hue, *scales, _draw_effects(config.colour, seed))


def draw_gains(
    colour: HsvGains, u: Float32[tf.Tensor, "3"]
) -> tuple[Float32[tf.Tensor, ""], Float32[tf.Tensor, ""], Float32[tf.Tensor, ""]]:
    """The hue's growth, which is added to 1, and the factors of saturation and value, of u in 0..1."""
    most = [colour.hue, colour.saturation, colour.value]
    hue, saturation, value = tf.unstack(tf.round((2 * u - 1) * most / GAIN_STEP) * GAIN_STEP)
    return hue, 1 + saturation, 1 + value


def apply_colour(
    batch: TrainBatch, config: Composed | None
) -> tuple[Float32[tf.Tensor, "b H W 3"], Float32[tf.Tensor, "b n cxcywh=4"]]:
    """The network's input (RGB, 0..1) and the truth boxes of a batch whose boxes are cxcywh: flip, colour, effects.

    An example whose draws change nothing comes through exactly. Static shapes; what is heavy is compiled by XLA on
    every device, so that a pixel is read and written once.

    Args:
        config: that the batch was drawn by; without one, its pixels are only normalised.
    """
    if config is None:
        return normalise(batch.image), batch.boxes
    images = _CHANGES[config.colour.type](batch.image, batch.draws)
    boxes = flip_cxcywh(batch.boxes, batch.valid, batch.draws.flip)
    if isinstance(config.colour, DarknetFloat):
        return images, boxes
    if isinstance(config.colour, DarknetOpencv):
        images = apply_effects(images, boxes, batch.valid, batch.draws.effects, config.colour)
    return normalise(images), boxes


def flip_cxcywh(
    boxes: Float32[tf.Tensor, "b n cxcywh=4"], valid: Bool[tf.Tensor, "b n"], flip: Bool[tf.Tensor, " b"]
) -> Float32[tf.Tensor, "b n cxcywh=4"]:
    """Relative cxcywh boxes of images mirrored left to right where `flip`; padding rows stay zeros."""
    mirrored = tf.concat([1.0 - boxes[..., :1], boxes[..., 1:]], axis=-1)  # [b, n, 4]
    return tf.where((flip[:, tf.newaxis] & valid)[..., tf.newaxis], mirrored, boxes)


def _after_flip(change: Callable[[tf.Tensor, ColourDraws], tf.Tensor]) -> Callable[[tf.Tensor, ColourDraws], tf.Tensor]:
    """Images mirrored left to right where drawn, then changed, compiled into one loop."""

    @fused
    def both(images: UInt8[tf.Tensor, "b H W 3"], draws: ColourDraws) -> tf.Tensor:
        flip = draws.flip[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return change(tf.where(flip, tf.reverse(images, [2]), images), draws)

    return both


_CHANGES = {
    "darknet_float": _after_flip(distort),
    "darknet_opencv": _after_flip(distort_opencv),
    "hsv_gains": _after_flip(distort_by_gains),
}


def _draw_scale(most: float, amount: Float32[tf.Tensor, ""], coin: Float32[tf.Tensor, ""]) -> Float32[tf.Tensor, ""]:
    """U(1, most), or 1 / U(1, most), by a fair coin (Darknet utils.c rand_scale)."""
    scale = 1.0 + amount * (most - 1.0)
    return tf.where(coin < 0.5, scale, 1.0 / scale)


def _draw_effects(colour: Colour, seed: Int64[tf.Tensor, "2"]) -> Effects | tuple[()]:
    """Blur of three kinds alike often (none, behind the objects, the configuration's), noise by a fair coin."""
    if not isinstance(colour, DarknetOpencv) or not (colour.blur or colour.gaussian_noise):
        return ()
    of_kind, of_noise = (tf.random.experimental.stateless_fold_in(seed, number) for number in (1, 2))
    u = tf.random.stateless_uniform([2], of_kind)
    blur = tf.where(u[0] < 1 / 3, 0, tf.where(u[0] < 2 / 3, 1, colour.blur)) if colour.blur else tf.constant(0)
    noise = tf.where(u[1] < 0.5, colour.gaussian_noise, 0)
    return Effects(blur, noise, tf.random.stateless_uniform([2], of_noise, None, None, tf.int32))
