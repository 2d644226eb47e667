"""CenterNet's targets with a known mistake, in NumPy (lib/datasets/sample/ctdet.py, lib/utils/image.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]
OVERLAP = 0.7
Radius = Callable[[float, float], float]


def original_radius(height: float, width: float, overlap: float = OVERLAP) -> float:
    """The least of its three roots, which are not the quadratics' own."""
    return min((b + root) / 2 for _, b, root in _quadratics(height, width, overlap))


def right_radius(height: float, width: float) -> float:
    """The least of the three quadratics' roots, as corrected later (and in CornerNet's successors)."""
    (a1, b1, root1), (a2, b2, root2), (a3, b3, root3) = _quadratics(height, width, OVERLAP)
    return min((b1 - root1) / (2 * a1), (b2 - root2) / (2 * a2), (b3 + root3) / (2 * a3))


def _quadratics(height: float, width: float, overlap: float) -> list[tuple[float, float, float]]:
    """(a, b, root of the discriminant) of each."""
    area, total = height * width, height + width
    terms = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    return [(a, b, float(np.sqrt(b * b - 4 * a * c))) for a, b, c in terms]


RADII: Mapping[str, Radius] = {
    "gaussian_radius by the right roots": right_radius,
    "gaussian_radius rounded up": lambda h, w: original_radius(h, w) + 1,
    "gaussian_radius of overlap 0.5": lambda h, w: original_radius(h, w, 0.5),
    "gaussian_radius of overlap 0.3": lambda h, w: original_radius(h, w, 0.3),
    "gaussian_radius half": lambda h, w: original_radius(h, w) / 2,
}


def radius_alternatives(sizes: Array) -> Alternatives:
    """Of the whole radii of boxes (height, width) in cells, [n, 2]."""
    whole = np.ceil(sizes)
    return {
        cause: lambda rule=rule: np.array([max(0, int(rule(*map(float, size)))) for size in whole])
        for cause, rule in RADII.items()
    }


@dataclass(frozen=True)
class Placed:
    """One image's truths on the output map.

    boxes: xyxy in cells, not clipped, float32 as the original's, [n, 4]; room: rows of the targets.
    """

    boxes: Array
    classes: Array
    grid: tuple[int, int]  # (rows, columns)
    class_count: int
    room: int
    keeps_cropped: bool = False
    draws_padding: bool = False
    swaps_cells: bool = False  # index by column * rows + row
    radius: Radius = original_radius
    spread: float = 6.0  # diameters of a Gaussian in its deviation

    def targets(self) -> dict[str, Array]:
        """hm [classes, rows, columns]; wh, reg, ind, reg_mask by truth."""
        (rows, columns), count = self.grid, self.room
        hm = np.zeros((self.class_count, rows, columns))
        made = {
            "wh": np.zeros((count, 2)),
            "reg": np.zeros((count, 2)),
            "ind": np.zeros(count),
            "reg_mask": np.zeros(count),
        }
        for number, (box, kind) in enumerate(zip(self.boxes[:count], self.classes[:count], strict=True)):
            x1, y1, x2, y2 = np.clip(box, 0, np.array([columns - 1, rows - 1] * 2, box.dtype))
            wide, high = x2 - x1, y2 - y1
            if (wide <= 0 or high <= 0) and not self.keeps_cropped:
                continue
            centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
            x, y = centre.astype(int).tolist()
            radius = max(0, int(self.radius(float(np.ceil(high)), float(np.ceil(wide))))) if min(wide, high) > 0 else 0
            self._draw(hm[int(kind)], x, y, radius)
            made["wh"][number] = wide, high
            made["reg"][number] = centre - [x, y]
            made["ind"][number] = x * rows + y if self.swaps_cells else y * columns + x
            made["reg_mask"][number] = 1
        if self.draws_padding and len(self.boxes) < count:
            self._draw(hm[0], 0, 0, 0)
            made["reg_mask"][len(self.boxes) :] = 1
        return made | {"hm": hm}

    def _draw(self, plane: Array, x: int, y: int, radius: int) -> None:
        rows, columns = self.grid
        down, across = (np.arange(side) - centre for side, centre in ((rows, y), (columns, x)))
        sigma = (2 * radius + 1) / self.spread
        drawn = np.exp(-(down[:, np.newaxis] ** 2 + across**2) / (2 * sigma**2))
        inside = (np.abs(down)[:, np.newaxis] <= radius) & (np.abs(across) <= radius)
        np.maximum(plane, np.where(inside, drawn, 0), out=plane)


def target_alternatives(right: Placed) -> Mapping[str, Alternatives]:
    """By target, each with every mistake."""
    others = {
        "cropped_boxes_counted": replace(right, keeps_cropped=True),
        "padded_rows_scatter first cell": replace(right, draws_padding=True),
        "height_width_swapped cells": replace(right, swaps_cells=True),
        "height_width_swapped boxes": replace(right, boxes=right.boxes[:, [1, 0, 3, 2]]),
        "class_ids_shifted plus 1": replace(right, classes=(right.classes + 1) % right.class_count),
        "class_ids_shifted minus 1": replace(right, classes=(right.classes - 1) % right.class_count),
        "gaussian_radius deviation": replace(right, spread=3.0),
        **{cause: replace(right, radius=rule) for cause, rule in RADII.items()},
    }
    return {
        name: {cause: lambda one=one, name=name: one.targets()[name] for cause, one in others.items()}
        for name in ("hm", "wh", "reg", "ind", "reg_mask")
    }


def term_alternatives(
    terms: Mapping[str, float], weights: Mapping[str, float], cells: int, objects: int
) -> Mapping[str, Alternatives]:
    """Of hm_loss, wh_loss, off_loss and the loss; cells: positives of the heatmaps; objects: truths."""
    heat = terms["hm_loss"] * max(cells, 1) / max(objects, 1)

    def total(**changed: float) -> Callable[[], Array]:
        values = dict(terms) | changed
        return lambda: np.array(sum(weight * values[name] for name, weight in weights.items()))

    twice = {name: 2 * terms[name] for name in ("wh_loss", "off_loss") if name in terms}
    found: dict[str, Alternatives] = {
        "hm_loss": {"focal_loss_positives objects for cells": lambda: np.array(heat)},
        "loss": {
            "focal_loss_positives objects for cells": total(hm_loss=heat),
            "loss_scale sizes and offsets by objects": total(**twice),
            "normaliser all weights 1": lambda: np.array(sum(terms[name] for name in weights)),
        },
    }
    for name, value in twice.items():
        found[name] = {"loss_scale by objects, not by numbers": lambda value=value: np.array(value)}
    return found
