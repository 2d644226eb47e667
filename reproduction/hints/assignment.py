"""Which slot of a [yolo] head answers for which truth, with a known mistake: Darknet's rule in NumPy.

Truths are rows cx, cy, w, h, class, as recorded: the list of an image ends at the first whose cx is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reproduction.hints.residual import Array

Alternatives = Mapping[str, Callable[[], Array]]


@dataclass(frozen=True)
class Assignment:
    """Of one head. anchors: all (w, h) in pixels; mask: those of the head; size: (height, width) in pixels."""

    truth: Array  # [images, truths, 5 or more]
    anchors: Sequence[tuple[float, float]]
    mask: Sequence[int]
    size: tuple[int, int]
    grid: tuple[int, int]  # (rows, columns)
    swaps_cells: bool = False  # x chooses the row
    first_stays: bool = False  # a later truth does not take a slot
    padding: str = ""  # where rows behind the list's end go: the `first` cell, the `last`, or nowhere
    class_shift: int = 0

    def matches(self) -> list[tuple[int, int, int, int, int]]:
        """(image, truth, anchor of the head, row, column) of the best slot of each truth, where the head has it."""
        rows, columns = self.grid
        height, width = self.size
        shapes = np.array(self.anchors, float) / np.array([width, height])
        found = []
        for image, truths in enumerate(self.truth):
            ended = False
            for number, (x, y, w, h, *_) in enumerate(truths):
                ended = ended or x == 0
                if ended and not self.padding:
                    break
                across, down = (y, x) if self.swaps_cells else (x, y)
                column, row = min(int(across * columns), columns - 1), min(int(down * rows), rows - 1)
                if ended:
                    w = h = 0.0
                    row, column = (0, 0) if self.padding == "first" else (rows - 1, columns - 1)
                shared = np.minimum(shapes[:, 0], w) * np.minimum(shapes[:, 1], h)
                best = int((shared / np.maximum(shapes.prod(1) + w * h - shared, 1e-12)).argmax())
                if best in self.mask:
                    found.append((image, number, list(self.mask).index(best), row, column))
        return found

    def class_ids(self) -> Array:
        """[image, anchor, row, column]: the class asked for, -1 for none; of several truths the last one's."""
        ids = np.full((len(self.truth), len(self.mask), *self.grid), -1)
        for image, number, *slot in self.matches():
            at = (image, *slot)
            if not (self.first_stays and ids[at] >= 0):
                ids[at] = int(self.truth[image, number, 4]) + self.class_shift
        return ids


def assignment_alternatives(right: Assignment) -> Mapping[str, Assignment]:
    """The same with a mistake, by cause."""
    found = {}
    count = len(right.mask)
    for first in range(len(right.anchors) - count + 1):
        mask = tuple(range(first, first + count))
        if mask != tuple(right.mask):
            found[f"anchor_mask {mask}"] = replace(right, mask=mask)
    for shift in (1, -1):
        mask = tuple(index + shift for index in right.mask)
        if set(mask) <= set(range(len(right.anchors))):
            found[f"anchor_mask {mask}"] = replace(right, mask=mask)
    found["height_width_swapped cells"] = replace(right, swaps_cells=True)
    found["height_width_swapped network size"] = replace(right, size=right.size[::-1])
    found["height_width_swapped anchors"] = replace(right, anchors=[(h, w) for w, h in right.anchors])
    found["anchor_units not divided"] = replace(right, size=(1, 1))
    found["anchor_units grid cells"] = replace(right, size=right.grid)
    for side in (416, 608):
        found[f"anchor_units of an input of {side}"] = replace(right, size=(side, side))
    found["padded_rows_scatter first cell"] = replace(right, padding="first")
    found["padded_rows_scatter last cell"] = replace(right, padding="last")
    found["second_truth_ignored"] = replace(right, first_stays=True)
    found["class_ids_shifted plus 1"] = replace(right, class_shift=1)
    found["class_ids_shifted minus 1"] = replace(right, class_shift=-1)
    for side, name in ((0, "widths and heights"), (1, "boxes as corner and size")):
        truth = right.truth.copy()
        if side == 0:
            truth[..., 2:4] = truth[..., 3:1:-1]
            found[f"height_width_swapped {name} of truths"] = replace(right, truth=truth)
        else:
            truth[..., :2] -= truth[..., 2:4] / 2
            found[f"box_format {name}"] = replace(right, truth=truth)
    return found
