"""CenterNet's random affine map and colours (lib/datasets/sample/ctdet.py, lib/utils/image.py): drawn, then applied.

The map is a uniform scale and a shift, drawn and applied on the host, for pixels and boxes alike. Mirroring and colours
are drawn on the host and applied on the accelerator. The original mirrors the image first: the map of a mirrored image
is made so that its pixels, mirrored afterwards, are the original's.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from configs.centernet.augmentation import CenterNetAugmentation
from dataloaders.batch import TrainBatch
from dataloaders.compose.pieces import Cuts, Pieces
from official.vision.resize import normalise
from official.vision.warp import WARPS, Map

STRIDE = 4  # pixels of the input for one of the output maps
BORDER = 128  # pixels that a random crop's centre keeps from the border, where the image is wide enough
SCALES = np.arange(0.6, 1.4, 0.1)
ORDERS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], np.int32)
GREY_OF_BGR = np.float32([0.114, 0.587, 0.299])
COLOUR_RANGE = 0.4
LIGHTING_DEVIATION = 0.1
# Of COCO's training pixels, B, G, R (lib/datasets/dataset/coco.py); the second is indexed [channel, eigenvalue].
EIGENVALUES = np.float32([0.2141788, 0.01817699, 0.00341571])
EIGENVECTORS = np.float32(
    [
        [-0.58752847, -0.69563484, 0.41340352],
        [-0.5832747, 0.00994535, -0.81221408],
        [-0.56089297, 0.71832671, 0.41158938],
    ]
)


class MapDraws(NamedTuple):
    """Which part of an image the input shows; names are the original's."""

    flip: Bool[tf.Tensor, ""]
    c: Float32[tf.Tensor, "2"]  # (x, y) of the image, mirrored if `flip`, in the middle of the input
    s: Float64[tf.Tensor, ""]  # pixels of the image across the input's width


class CenterNetDraws(NamedTuple):
    """What the accelerator applies to an example. False, any order of ones, zeros change nothing."""

    flip: Bool[tf.Tensor, " b"]
    order: Int32[tf.Tensor, "b 3"]  # what comes first, second, third: 0 brightness, 1 contrast, 2 saturation
    strength: Float32[tf.Tensor, "b 3"]  # of the first, second, third: 1 + U(-0.4, 0.4)
    lighting: Float32[tf.Tensor, "b 3"]  # along each eigenvector


def whole_affine(image_size: Int32[tf.Tensor, "2"]) -> MapDraws:
    """What evaluation shows: the image's middle, and its longer side across the input."""
    sides = tf.cast(image_size, tf.float32)
    return MapDraws(tf.constant(False), sides[::-1] / 2, tf.cast(tf.reduce_max(image_size), tf.float64))


def draw_affine(
    config: CenterNetAugmentation, seed: Int64[tf.Tensor, "2"], image_size: Int32[tf.Tensor, "2"]
) -> MapDraws:
    """Draws the part of an image of (height, width) that is shown, and whether it is mirrored.

    random: a scale of 0.6, 0.7 .. 1.3 times the longer side, a centre in whole pixels at least 128 from the border, or
    half, a quarter .. of it where the image is too small for that. shift_scale: normal noise, cut at twice its
    deviation for the centre, at its deviation for the scale.
    """
    uniform_seed, normal_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    u = tf.random.stateless_uniform([4], uniform_seed, dtype=tf.float64)
    whole = whole_affine(image_size)
    if config.crop == "random":
        scale = tf.gather(tf.constant(SCALES), tf.cast(u[0] * len(SCALES), tf.int32))
        width_height = image_size[::-1]
        least = border_of(width_height)
        c = least + tf.cast(u[1:3] * tf.cast(width_height - 2 * least, tf.float64), tf.int32)
        c, s = tf.cast(c, tf.float32), whole.s * scale
    else:
        normal = tf.random.stateless_normal([3], normal_seed, dtype=tf.float64)
        shift = tf.clip_by_value(normal[:2] * config.shift, -2 * config.shift, 2 * config.shift)
        c = whole.c + tf.cast(whole.s * shift, tf.float32)
        s = whole.s * tf.clip_by_value(normal[2] * config.scale + 1, 1 - config.scale, 1 + config.scale)
    flip = u[3] < config.flip
    width = tf.cast(image_size[1], tf.float32)
    return MapDraws(flip, tf.where(flip, tf.stack([width - c[0] - 1, c[1]]), c), s)


def border_of(side: Int32[tf.Tensor, "*any"]) -> Int32[tf.Tensor, "*any"]:
    """How far a random centre keeps from the border: the largest 128 / 2^i of which more than two fit (_get_border)."""
    borders = tf.constant([BORDER >> i for i in range(9)])  # 128 .. 1, 0
    fits = side[..., tf.newaxis] > 2 * borders
    return tf.reduce_max(tf.where(fits, borders, 0), axis=-1)


def draw_colours(
    config: CenterNetAugmentation | None, seed: Int64[tf.Tensor, "2"], flip: Bool[tf.Tensor, ""]
) -> CenterNetDraws:
    """Draws scalars for one example, `flip` among them as it was drawn before (lib/utils/image.py color_aug)."""
    if config is None or not config.colour:
        return CenterNetDraws(flip, tf.constant(ORDERS[0]), tf.ones([3]), tf.zeros([3]))
    uniform_seed, normal_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    u = tf.random.stateless_uniform([4], uniform_seed)
    order = tf.gather(tf.constant(ORDERS), tf.cast(u[0] * len(ORDERS), tf.int32))
    lighting = tf.random.stateless_normal([3], normal_seed, stddev=LIGHTING_DEVIATION)
    return CenterNetDraws(flip, order, 1 + COLOUR_RANGE * (2 * u[1:] - 1), lighting)


def apply_affine(
    image: UInt8[tf.Tensor, "h w 3"], draws: MapDraws, input_size: tuple[int, int], interpolation: str
) -> UInt8[tf.Tensor, "H W 3"]:
    """The network's input, not yet mirrored where `draws.flip`; zeros where it shows no image.

    interpolation: of official/vision/warp.py.
    """
    where = affine_map(draws, input_size)
    if interpolation == "opencv":  # its steps are not symmetric, so the mirrored image itself is warped
        warped = WARPS[interpolation](tf.where(draws.flip, tf.reverse(image, [1]), image), where, input_size)
        return tf.where(draws.flip, tf.reverse(warped, [1]), warped)
    return WARPS[interpolation](image, faced(where, draws.flip, tf.shape(image)[1], input_size[1]), input_size)


def faced(where: Map, flip: Bool[tf.Tensor, ""], image_width: Int32[tf.Tensor, ""], input_width: int) -> Map:
    """Where `flip`: of an image's map that of the mirrored image into the mirrored input; done twice it is undone.

    Pixel x of the image is pixel width - 1 - x of the mirrored one, and so in the input.
    """
    last = tf.cast(image_width - 1, tf.float64)
    offset_x = input_width - 1 - where.offset[1] - where.scale[1] * last
    return Map(where.scale, tf.where(flip, tf.stack([where.offset[0], offset_x]), where.offset))


def piece_of(where: Map, input_size: tuple[int, int]) -> Pieces:
    """The input as one piece of the image, without fading at its rim: what `cut` decodes the visible part by."""
    # Pieces count from pixels' upper left corners, maps from their centres.
    start = (-0.5 - where.offset) / where.scale + 0.5
    window = tf.concat([start, start + tf.constant(input_size, tf.float64) / where.scale], axis=0)
    cell = tf.constant([[0, 0, *input_size]])
    return Pieces(tf.cast(window, tf.float32)[tf.newaxis], cell, tf.cast(cell, tf.float32), tf.constant([False]))


def map_of(cuts: Cuts) -> Map:
    """What has become of the map of `piece_of`, now that its piece begins and ends at whole pixels."""
    scale, offset = (tf.cast(part[0], tf.float64) for part in (cuts.scale, cuts.offset))
    return Map(scale, scale / 2 + offset - 0.5)


def transform_corners(
    boxes: Float32[tf.Tensor, "n xyxy=4"], image_size: Int32[tf.Tensor, "2"], flip: Bool[tf.Tensor, ""], where: Map
) -> Float32[tf.Tensor, "n xyxy=4"]:
    """Boxes xyxy in pixels of the image -> xyxy in pixels of the output maps, mirrored with the image; not clipped.

    Mirroring takes x to width - x - 1. float64 inside, as the original.

    Args:
        where: from the image, mirrored where `flip`, to the input. The original computes its map to the output anew:
            it is a fourth of this one to the last bit.
    """
    width = tf.cast(image_size[1], tf.float32)
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    mirrored = tf.stack([width - x2 - 1, y1, width - x1 - 1, y2], axis=1)  # [n, 4]
    boxes = tf.cast(tf.where(flip, mirrored, boxes), tf.float64)
    moved = boxes * tf.tile(where.scale[::-1] / STRIDE, [2]) + tf.tile(where.offset[::-1] / STRIDE, [2])
    return tf.cast(moved, tf.float32)


def affine_map(draws: MapDraws, canvas: tuple[int, int]) -> Map:
    """Pixels of the (mirrored) image -> pixels of a canvas (CenterNet get_affine_transform without rotation)."""
    scale = tf.fill([2], canvas[1] / draws.s)
    return Map(scale, tf.constant(canvas, tf.float64) / 2 - scale * tf.cast(draws.c[::-1], tf.float64))


def coloured(batch: TrainBatch, config: CenterNetAugmentation | None) -> Float32[tf.Tensor, "b H W 3"]:
    """The network's input before it is standardised: B, G, R, about 0..1, mirrored, then recoloured.

    config: that the batch was drawn by.
    """
    images = normalise(mirror(batch.image, batch.draws.flip))[..., ::-1]
    return recolour(images, batch.draws) if config is not None and config.colour else images


def mirror(images: UInt8[tf.Tensor, "b H W 3"], flip: Bool[tf.Tensor, " b"]) -> UInt8[tf.Tensor, "b H W 3"]:
    """Images left to right where `flip`."""
    return tf.where(flip[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [2]), images)


def recolour(images: Float32[tf.Tensor, "b H W 3"], draws: CenterNetDraws) -> Float32[tf.Tensor, "b H W 3"]:
    """Brightness, contrast and saturation in the drawn order, then lighting. Pixels B, G, R, about 0..1, not clipped.

    Each of the three is a mix of the image so far with nothing, with the mean of the first image's grey, or with that
    grey itself, so all of them are one sum of the image, its grey and their mean.
    """
    grey = tf.tensordot(images, tf.constant(GREY_OF_BGR), 1)[..., tf.newaxis]  # [b, H, W, 1]
    mean = tf.reduce_mean(grey, axis=[1, 2, 3], keepdims=True)  # [b, 1, 1, 1]
    of_image, of_mean, of_grey = tf.ones_like(draws.lighting[:, 0]), 0.0, 0.0  # [b] each
    for place in range(3):
        strength, kind = draws.strength[:, place], draws.order[:, place]
        rest = 1 - strength
        of_image = of_image * strength
        of_mean = of_mean * strength + tf.where(kind == 1, rest, 0.0)
        of_grey = of_grey * strength + tf.where(kind == 2, rest, 0.0)
    light = tf.linalg.matvec(tf.constant(EIGENVECTORS), draws.lighting * EIGENVALUES)  # [b, 3]
    of_image, of_mean, of_grey = (
        part[:, tf.newaxis, tf.newaxis, tf.newaxis] for part in (of_image, of_mean, of_grey)
    )  # [b, 1, 1, 1]
    return of_image * images + of_grey * grey + of_mean * mean + light[:, tf.newaxis, tf.newaxis]
