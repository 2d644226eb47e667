"""What a [yolo] head's boxes would be with a known mistake: Darknet's decoding in NumPy."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reproduction.hints.layers import logistic
from reproduction.hints.residual import Array


class YoloHead(NamedTuple):
    """What decodes a head: all anchors (w, h) in pixels, those of this head, the network's (height, width)."""

    anchors: Sequence[tuple[float, float]]
    mask: Sequence[int]
    size: tuple[int, int]
    scale: float = 1.0
    new_coords: bool = False  # x, y, w and h are given between 0 and 1; a side is (2 w)^2 of its anchor's

    def boxes(self, raw: Array) -> Array:
        """Raw outputs [..., anchor, entry, row, column] -> boxes cxcywh, relative, [..., anchor, 4, row, column]."""
        xy = raw[..., 0:2, :, :]
        return self.of_activated(xy if self.new_coords else logistic(xy), raw)

    def of_activated(self, xy: Array, raw: Array) -> Array:
        """As `boxes`, with x and y between 0 and 1 already."""
        rows, columns = raw.shape[-2:]
        xy = xy * self.scale - 0.5 * (self.scale - 1)
        x = (xy[..., 0, :, :] + np.arange(columns)) / columns
        y = (xy[..., 1, :, :] + np.arange(rows)[:, np.newaxis]) / rows
        sides = np.array([self.anchors[index] for index in self.mask], float) / np.array(self.size[::-1])
        factors = 4 * raw[..., 2:4, :, :] ** 2 if self.new_coords else np.exp(raw[..., 2:4, :, :])
        wh = factors * sides[:, :, np.newaxis, np.newaxis]
        return np.stack([x, y, wh[..., 0, :, :], wh[..., 1, :, :]], axis=-3)


def decoding_alternatives(head: YoloHead, raw: Array) -> Mapping[str, Callable[[], Array]]:
    """Of the boxes [image, anchor, 4, row, column] of raw outputs [image, anchor, entry, row, column]."""

    def of(other: YoloHead) -> Callable[[], Array]:
        return lambda: other.boxes(raw)

    count, (rows, columns) = len(head.mask), raw.shape[-2:]
    found = {}
    for first in range(len(head.anchors) - count + 1):
        mask = tuple(range(first, first + count))
        if mask != tuple(head.mask):
            found[f"anchor_mask {mask}"] = of(head._replace(mask=mask))
    swapped = [(height, width) for width, height in head.anchors]
    found["height_width_swapped anchors"] = of(head._replace(anchors=swapped))
    found["height_width_swapped network size"] = of(head._replace(size=head.size[::-1]))
    right = head.boxes(raw)
    sides = np.array([columns, rows, 1, 1])[:, np.newaxis, np.newaxis]
    found["height_width_swapped grid"] = lambda: right * sides / sides[[1, 0, 2, 3]]
    found["anchor_units grid cells"] = of(head._replace(size=(rows, columns)))
    found["anchor_units not divided"] = of(head._replace(size=(1, 1)))
    found["anchor_units multiplied by the stride"] = of(
        head._replace(anchors=[(w * head.size[1] / columns, h * head.size[0] / rows) for w, h in head.anchors])
    )
    for other in (1.0, 1.05, 1.1, 1.2, 2.0):
        if other != head.scale:
            found[f"scale_x_y {other}"] = of(head._replace(scale=other))
    found["activation_twice"] = lambda: head.of_activated(logistic(logistic(raw[..., 0:2, :, :])), raw)
    found["activation_missing"] = lambda: head.of_activated(raw[..., 0:2, :, :], raw)
    return found
