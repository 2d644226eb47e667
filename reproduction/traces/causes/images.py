"""What an image would become on its way into the network with a known mistake: resized and padded in NumPy."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from official.vision.protocol import EvaluationProtocol
from reproduction.restated.layers import resized
from reproduction.restated.placement import filled
from reproduction.traces.causes.residual import Alternatives, Array

GREY, ULTRALYTICS = 0.5, 114 / 255
Sides = tuple[int, int]  # (height, width)


def image_alternatives(
    image: Float[np.ndarray, "rows columns channels"], size: Sides, resize: str, interpolation: str
) -> Alternatives:
    """An image in 0..1, resized to (height, width) with each mistake.

    resize: what the original does, `stretch` or `letterbox`. interpolation: `align_corners` or `half_pixel`.
    """

    def made(way: str, rule: str, grey: float = GREY, order: int = 1) -> Callable[[], Array]:
        return lambda: _WAYS[way](image, size, rule, grey)[..., ::order]

    other = "letterbox" if resize == "stretch" else "stretch"
    rules = ("align_corners", "half_pixel", "nearest", "nearest centres", "area")
    found = {f"resize_{rule}": made(resize, rule) for rule in rules if rule != interpolation}
    found |= {f"letterbox_or_stretch {rule}": made(other, rule) for rule in rules[:2]}
    found |= {f"letterbox_or_stretch 114, {rule}": made(other, rule, ULTRALYTICS) for rule in rules[:2]}
    if resize == "letterbox":
        found["height_width_swapped aspect"] = lambda: _letterboxed(image, size, interpolation, GREY, aspect=(1, 0))
        for value in (ULTRALYTICS, 0.0):
            found[f"letterbox_value {value:.3f}"] = made(resize, interpolation, value)
    found["channels_reversed"] = made(resize, interpolation, order=-1)
    found["image_range 0..255"] = lambda: 255 * made(resize, interpolation)()
    if image.shape[:2] == tuple(size):
        found["preprocessing_missing"] = lambda: image
    return found


def _stretched(image: Array, size: tuple[int, int], rule: str, grey: float) -> Array:
    planar = np.moveaxis(image, -1, 0)  # [channels, rows, columns]
    if rule.startswith("nearest"):
        rows, columns = (
            ((np.arange(new) + 0.5 * rule.endswith("centres")) * old / new).astype(int)
            for new, old in zip(size, image.shape, strict=False)
        )
        return image[rows][:, columns]
    if rule == "area":
        for axis, new in ((1, size[0]), (2, size[1])):
            planar = np.moveaxis(np.tensordot(_area(planar.shape[axis], new), planar, (1, axis)), 0, axis)
        return np.moveaxis(planar, 0, -1)
    return np.moveaxis(resized(planar, size, rule), 0, -1)


def _letterboxed(
    image: Array, size: tuple[int, int], rule: str, grey: float, aspect: tuple[int, int] = (0, 1)
) -> Array:
    """aspect: which sides of the image its height and width are taken from."""
    canvas = np.full((*size, image.shape[2]), grey)
    first, sides = filled(
        (image.shape[aspect[0]], image.shape[aspect[1]]), size, EvaluationProtocol(resize="letterbox")
    )
    (top, left), (rows, columns) = first.astype(int).tolist(), sides.astype(int).tolist()
    canvas[top : top + rows, left : left + columns] = _stretched(image, (rows, columns), rule, grey)
    return canvas


def placement_alternatives(
    rows: Float[np.ndarray, "detections columns"], image: Sides, size: Sides, resize: str
) -> Alternatives:
    """Detections taken back in another way to the image that became an input of `size`.

    rows: cx, cy, w, h, ... relative to that image.
    """

    def back(way: str, sides: Sides = image) -> Callable[[], Array]:
        def compute() -> Array:
            (scale, shift), (other, moved) = _geometry(image, size, resize), _geometry(sides, size, way)
            centre = (rows[:, 0:2] * scale + shift - moved) / other
            return np.column_stack([centre, rows[:, 2:4] * scale / other, rows[:, 4:]])

        return compute

    other = "letterbox" if resize == "stretch" else "stretch"
    found = {"letterbox_or_stretch": back(other)}
    if resize == "letterbox":
        found["height_width_swapped aspect"] = back(resize, image[::-1])
    return found


def _geometry(image: Sides, size: Sides, way: str) -> tuple[Array, Array]:
    """(scale, shift) of (x, y): input = image * scale + shift, both relative."""
    first, sides = filled(image, size, EvaluationProtocol(resize=way))
    return tuple(part[::-1] / np.array(size[::-1]) for part in (sides, first))


def _area(old: int, new: int) -> Array:
    """[new, old]: the share of each old pixel in each new one."""
    edges = np.arange(new + 1) * old / new
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixels = np.arange(old)
    return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, 1) * new / old


_WAYS = {"stretch": _stretched, "letterbox": _letterboxed}
