"""Blur and noise of Darknet's build with OpenCV (image_opencv.cpp image_data_augmentation), on whole levels 0..255."""

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, UInt8

from configs.colour import DarknetOpencv
from dataloaders.augment.compiled import fused
from dataloaders.batch import Effects

BEHIND = 17  # size of the kernel that blurs what is behind the objects
_SMALL = {3: (64, 128), 5: (16, 64, 96), 7: (8, 28, 56, 72), 9: (4, 13, 30, 51, 60)}  # from the border to the middle


def apply_effects(
    levels: UInt8[tf.Tensor, "b H W 3"],
    boxes: Float32[tf.Tensor, "b n cxcywh=4"],
    valid: Bool[tf.Tensor, "b n"],
    effects: Effects | tuple[()],
    config: DarknetOpencv,
) -> UInt8[tf.Tensor, "b H W 3"]:
    """Blurs, then adds noise, where drawn. `boxes`: cxcywh relative to the image, as flipped as the pixels."""
    if config.blur:
        levels = blur_levels(levels, boxes, valid, effects.blur, config.blur)
    return add_noise(levels, effects.noise, effects.seed) if config.gaussian_noise else levels


@fused
def blur_levels(
    levels: UInt8[tf.Tensor, "b H W 3"],
    boxes: Float32[tf.Tensor, "b n cxcywh=4"],
    valid: Bool[tf.Tensor, "b n"],
    blur: Int32[tf.Tensor, " b"],
    largest: int,
) -> UInt8[tf.Tensor, "b H W 3"]:
    """cv::GaussianBlur, to the bit: the kernel in 8 bits, sums in 16 and 24, the border mirrored about its last pixels.

    A `blur` of 0 leaves an image alone; 1 blurs by 17 x 17 all that no box covers; a larger one is the kernel's size
    (an even one counts as the next odd). Where the shortest side of an object is below 8 times that, an eighth of it
    takes its place (data.c load_data_detection): then 1 and 0 mean the same as above, and without objects it is 0.

    Args:
        boxes: cxcywh relative to the image.
        largest: that `blur` may be.
    """
    size = _limited(blur, boxes * tf.constant([1, 1, levels.shape[2], levels.shape[1]], tf.float32), valid)
    half_kernels = _half_kernels(max(BEHIND, largest) // 2)
    taps = tf.gather(half_kernels, tf.where(size == 1, BEHIND // 2, size // 2))  # [b, radius + 1]
    sums = _weigh(_weigh(tf.cast(levels, tf.float32), taps, 1), taps, 2)  # levels times 2**16, below 2**24: exact
    blurred = tf.cast(tf.floor(sums * 2.0**-16 + 0.5), tf.uint8)
    sharp = (size == 1)[:, tf.newaxis, tf.newaxis] & _covered(boxes, valid, tuple(levels.shape[1:3]))  # [b, H, W]
    return tf.where(sharp[..., tf.newaxis], levels, blurred)


@fused
def add_noise(
    levels: UInt8[tf.Tensor, "b H W 3"], deviation: Int32[tf.Tensor, " b"], seed: Int32[tf.Tensor, "b 2"]
) -> UInt8[tf.Tensor, "b H W 3"]:
    """Adds normal noise, each example's own, in whole levels; its negative half is 0, as in Darknet's bytes."""

    def noise_of(own_seed: Int32[tf.Tensor, "2"]) -> Float32[tf.Tensor, "H W 3"]:
        return tf.random.stateless_normal(levels.shape[1:], own_seed, alg="philox")  # the same bits on every device

    normal = tf.map_fn(noise_of, seed, fn_output_signature=tf.float32)  # [b, H, W, 3]
    noise = tf.round(normal * tf.cast(deviation, tf.float32)[:, tf.newaxis, tf.newaxis, tf.newaxis])
    return tf.cast(tf.minimum(tf.cast(levels, tf.float32) + tf.maximum(noise, 0.0), 255.0), tf.uint8)


def _limited(
    blur: Int32[tf.Tensor, " b"], boxes: Float32[tf.Tensor, "b n cxcywh=4"], valid: Bool[tf.Tensor, "b n"]
) -> Int32[tf.Tensor, " b"]:
    """At most an eighth of the shortest side of a box; `boxes` are in pixels."""
    sides = tf.where(valid[..., tf.newaxis], boxes[..., 2:], boxes.dtype.max)  # [b, n, 2]
    smallest = tf.where(tf.reduce_any(valid, axis=1), tf.reduce_min(sides, axis=[1, 2]), 0.0)
    limit = tf.cast(smallest / 8.0, tf.int32)
    return tf.where((blur > 1) & (limit < blur), limit, blur)


def _half_kernels(largest: int) -> Float32[np.ndarray, "kernels taps"]:
    """Row r: the kernel of size 2 r + 1 from its middle outwards, in 256ths, zeros beyond; row 0 changes nothing.

    OpenCV smooth.dispatch.cpp: its deviation follows from its size, what rounding a tap leaves goes to the next one
    towards the middle, and the middle is what remains to 256.
    """
    kernels = np.zeros([largest + 1, largest + 1], np.float32)
    for radius in range(largest + 1):
        size = 2 * radius + 1
        exact = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (0.15 * size + 0.35)) ** 2)
        edges = np.rint(np.cumsum(256 * exact / exact.sum())[:radius])  # up to each tap, from the border
        outer = np.diff(edges, prepend=0) if size not in _SMALL else np.array(_SMALL[size][:-1])
        kernels[radius, 1 : radius + 1] = outer[::-1]
        kernels[radius, 0] = 256 - 2 * outer.sum()
    return kernels


def _weigh(
    planes: Float32[tf.Tensor, "b H W 3"], taps: Float32[tf.Tensor, "b taps"], axis: int
) -> Float32[tf.Tensor, "b H W 3"]:
    """The sum along height (1) or width (2) of what lies at each distance, times its tap."""
    length, radius = planes.shape[axis], taps.shape[1] - 1
    mirrored = np.pad(np.arange(length), radius, mode="reflect")  # also where the kernel is longer than the image
    padded = tf.gather(planes, mirrored, axis=axis)

    def at(distance: int) -> tf.Tensor:
        start = radius + distance
        return padded[:, start : start + length] if axis == 1 else padded[:, :, start : start + length]

    weights = taps[:, tf.newaxis, tf.newaxis, tf.newaxis]  # [b, 1, 1, 1, taps]
    pairs = [weights[..., distance] * (at(-distance) + at(distance)) for distance in range(1, radius + 1)]
    return tf.add_n([weights[..., 0] * at(0), *pairs])


def _covered(
    boxes: Float32[tf.Tensor, "b n cxcywh=4"], valid: Bool[tf.Tensor, "b n"], size: tuple[int, int]
) -> Bool[tf.Tensor, "b H W"]:
    """The pixels in a box: its corner and its size cut to whole pixels, each by itself."""
    ranges = []
    for axis, length in ((1, size[0]), (0, size[1])):
        centre, side = boxes[..., axis], boxes[..., 2 + axis]  # [b, n]
        first = tf.cast((centre - side / 2.0) * length, tf.int32)[..., tf.newaxis]
        beyond = first + tf.cast(side * length, tf.int32)[..., tf.newaxis]
        place = tf.range(length)
        ranges.append((place >= first) & (place < beyond) & valid[..., tf.newaxis])  # [b, n, length]
    rows, columns = (tf.cast(inside, tf.float32) for inside in ranges)
    return tf.matmul(rows, columns, transpose_a=True) > 0.0  # [b, H, W]
