"""What becomes of a batch's pixels and boxes on the accelerator: mirrored, recoloured by its draws, normalised.

Sources: Darknet image.c distort_image and image_opencv.cpp image_data_augmentation; WongKinYiu utils/datasets.py
augment_hsv; OpenCV modules/imgproc/src/color_hsv.simd.hpp. Blur and noise (dataloaders/augment/effects.py) are not
restated.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped, UInt8

from configs.colour import DarknetFloat, DarknetOpencv, HsvGains
from configs.data import AffineAugmentation, DarknetAugmentation

Image = UInt8[np.ndarray, "height width 3"]  # RGB
Plane = Float64[np.ndarray, "height width"]


def inputs(
    images: UInt8[np.ndarray, "batch height width 3"],
    boxes: Float32[np.ndarray, "batch truths cxcywh=4"],
    valid: Bool[np.ndarray, "batch truths"],
    draws: Sequence[Shaped[np.ndarray, " batch"]],
    config: DarknetAugmentation | AffineAugmentation | None,
) -> tuple[Float64[np.ndarray, "batch height width 3"], Float64[np.ndarray, "batch truths cxcywh=4"]]:
    """The network's input, RGB 0..1, and the boxes mirrored with it.

    An image whose draws change no colour keeps its levels: there is no way through HSV.

    Args:
        images: RGB.
        boxes: cxcywh relative to the input.
        valid: False for padding, which is not mirrored.
        draws: flip, hue, saturation and exposure of each example.
        config: whose draws they are; None: pixels are only normalised.

    Raises:
        NotImplementedError: colours with blur or noise.
    """
    boxes = boxes.astype(np.float64)
    if config is None:
        return images / 255.0, boxes
    colour = config.colour
    if isinstance(colour, DarknetOpencv) and (colour.blur or colour.gaussian_noise):
        raise NotImplementedError("inputs: blur and gaussian_noise are not restated; compare without them")
    pixels = np.zeros(images.shape)
    for number, (image, flip, *change) in enumerate(zip(images, *draws, strict=True)):
        image = image[:, ::-1] if flip else image
        same = tuple(change) == (0, 1, 1)
        pixels[number] = image / 255.0 if same else _recoloured(image, colour, *change)
        if flip:
            boxes[number, valid[number], 0] = 1 - boxes[number, valid[number], 0]
    return pixels, boxes


def _recoloured(
    image: Image, colour: DarknetFloat | DarknetOpencv | HsvGains, hue: np.float32, more: np.float32, value: np.float32
) -> Float64[np.ndarray, "height width 3"]:
    if isinstance(colour, DarknetFloat):
        return distorted(image, hue, more, value)
    hsv = opencv_hsv(image)
    if isinstance(colour, HsvGains):  # tables of 256 entries, made in float64 and cut to whole levels
        gains = (1 + np.float64(hue), np.float64(more), np.float64(value))
        scaled = [plane * gain for plane, gain in zip(hsv, gains, strict=True)]
        moved = [np.floor(scaled[0] % 180), *(np.floor(np.minimum(plane, 255)) for plane in scaled[1:])]
    else:  # in float, as OpenCV adds to and scales 8 bits, rounded to even and saturating
        planes = [plane.astype(np.float32) for plane in hsv]
        moved = [planes[0] + np.float32(179) * hue, planes[1] * more, planes[2] * value]
        moved = [np.clip(np.rint(plane), 0, 255) for plane in moved]
    return opencv_rgb(*(plane.astype(np.int64) for plane in moved)) / 255.0


def distorted(
    image: Image, hue: np.float32, saturation: np.float32, exposure: np.float32
) -> Float64[np.ndarray, "height width 3"]:
    """Darknet's distort_image: RGB 0..1 with the hue turned (in turns), saturation and value scaled, then clipped.

    Hues are float32 as there: one that comes to a full turn to the bit is none of hsv_to_rgb's first five cases and
    becomes magenta instead of red. What follows from the hue is float64.
    """
    levels = image.astype(np.float32) / np.float32(255)
    red, green, blue = np.moveaxis(levels, 2, 0)
    most, delta = levels.max(axis=2), levels.max(axis=2) - levels.min(axis=2)
    whole = np.where(delta > 0, delta, np.float32(1))
    of_green, of_blue = 2 + (blue - red) / whole, 4 + (red - green) / whole
    turns = np.where(red == most, (green - blue) / whole, np.where(green == most, of_green, of_blue))
    turns = np.where(turns < 0, turns + 6, turns) / np.float32(6) + hue
    turns = np.where(turns > 1, turns - 1, turns)
    sixths = 6 * np.where(turns < 0, turns + 1, turns)
    part = np.floor(sixths)
    rest = (sixths - part).astype(np.float64)
    value = most.astype(np.float64) * exposure
    strength = delta.astype(np.float64) / np.where(most > 0, most, 1) * saturation
    low, falling, rising = (value * (1 - strength * share) for share in (np.ones_like(rest), rest, 1 - rest))
    cases = (
        *((value, rising, low), (falling, value, low), (low, value, rising)),
        *((low, falling, value), (rising, low, value), (value, low, falling)),
    )
    rgb = [np.select([part == n for n in range(5)], [case[k] for case in cases[:5]], cases[5][k]) for k in range(3)]
    return np.clip(np.stack(rgb, axis=2), 0, 1)


def opencv_hsv(image: Image) -> tuple[Plane, Plane, Plane]:
    """OpenCV's RGB2HSV in 8 bits: hue 0..179, saturation and value 0..255; whole numbers.

    Quotients come from tables of whole 4096ths.
    """
    red, green, blue = np.moveaxis(image.astype(np.int64), 2, 0)
    value = np.maximum(np.maximum(red, green), blue)
    delta = value - np.minimum(np.minimum(red, green), blue)
    divisors = np.arange(1, 256)
    of_value = np.concatenate([[0], np.rint((255 << 12) / divisors).astype(np.int64)])
    of_delta = np.concatenate([[0], np.rint((180 << 12) / (6.0 * divisors)).astype(np.int64)])
    saturation = (delta * of_value[value] + 2048) >> 12
    ahead = np.where(value == green, blue - red + 2 * delta, red - green + 4 * delta)
    hue = (np.where(value == red, green - blue, ahead) * of_delta[delta] + 2048) >> 12
    hue = np.where(hue < 0, hue + 180, hue)
    return hue.astype(np.float64), saturation.astype(np.float64), value.astype(np.float64)


def opencv_rgb(
    hue: Shaped[np.ndarray, "height width"],
    saturation: Shaped[np.ndarray, "height width"],
    value: Shaped[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """OpenCV's HSV2RGB in 8 bits, of whole numbers; hues may go on beyond 180.

    In float32 and then cut, as there: where a channel is a whole number, its rounding says whether it falls to the
    level below. Fused multiplications round otherwise (one colour in some 9,000), in OpenCV as in the product.
    """
    one = np.float32(1)
    sixths = hue.astype(np.float32) * np.float32(6 / 180)
    sixths = np.where(sixths >= 6, sixths - 6, sixths)
    sector = np.floor(sixths)
    part = sixths - sector
    strength, full = (plane.astype(np.float32) * np.float32(1 / 255) for plane in (saturation, value))
    low, falling, rising = (full * (one - strength * share) for share in (one, part, one - part))
    cases = (
        *((full, rising, low), (falling, full, low), (low, full, rising)),
        *((low, falling, full), (rising, low, full), (full, low, falling)),
    )
    rgb = [np.select([sector == n for n in range(6)], [case[k] for case in cases]) for k in range(3)]
    return (np.float32(255) * np.stack(rgb, axis=2)).astype(np.uint8)
