"""CenterNet's targets and loss with a known mistake: what is restated, with one thing changed."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from reproduction.centernet.restated import centernet
from reproduction.centernet.restated.centernet import Radius, Targets, quadratics, radius, whole_radius
from reproduction.traces.causes.residual import Alternatives, Array


def right_radius(height: float, width: float) -> float:
    """The least of the three quadratics' roots, as corrected later (and in CornerNet's successors)."""
    (a1, b1, root1), (a2, b2, root2), (a3, b3, root3) = quadratics(height, width)
    return min((b1 - root1) / (2 * a1), (b2 - root2) / (2 * a2), (b3 + root3) / (2 * a3))


RADII: Mapping[str, Radius] = {
    "gaussian_radius by the right roots": right_radius,
    "gaussian_radius rounded up": lambda h, w: radius(h, w) + 1,
    "gaussian_radius of overlap 0.5": lambda h, w: radius(h, w, 0.5),
    "gaussian_radius of overlap 0.3": lambda h, w: radius(h, w, 0.3),
    "gaussian_radius half": lambda h, w: radius(h, w) / 2,
}


def radius_alternatives(sizes: Shaped[np.ndarray, "boxes 2"]) -> Alternatives:
    """The whole radii of boxes (height, width) in cells, with each mistake."""
    return {
        cause: lambda rule=rule: np.array([whole_radius(*map(float, size), rule) for size in sizes])
        for cause, rule in RADII.items()
    }


def target_alternatives(
    boxes: Float[np.ndarray, "truths xyxy=4"],
    classes: Int[np.ndarray, " truths"],
    valid: Bool[np.ndarray, " truths"],
    grid: tuple[int, int],
    count: int,
) -> Mapping[str, Alternatives]:
    """Targets of one image by their name, each with every mistake.

    boxes: xyxy in cells; grid: (rows, columns) of the maps; count: of classes.
    """

    def made(boxes: Array = boxes, classes: Array = classes, rule: Radius = radius) -> Targets:
        return centernet.targets(boxes[np.newaxis], classes[np.newaxis], valid[np.newaxis], grid, count, rule)

    def with_lost(lost: Array, boxes: Array, classes: Array) -> Targets:
        """These are objects, too, of radius 0."""
        found = made()
        for row in np.flatnonzero(lost & ~found.reg_mask[0]).tolist():
            centernet.add(found, (0, row), centernet.clipped(boxes[row], grid), int(classes[row]), 0)
        return found

    def by_columns(right: Targets) -> Targets:
        y, x = np.divmod(right.ind, grid[1])
        return right._replace(ind=x * grid[0] + y)

    others: dict[str, Callable[[], Targets]] = {
        "cropped_boxes_counted": lambda: with_lost(valid, boxes, classes),
        "padded_rows_scatter first cell": lambda: with_lost(~valid, 0 * boxes, 0 * classes),
        "height_width_swapped cells": lambda: by_columns(made()),
        "height_width_swapped boxes": lambda: made(boxes[:, [1, 0, 3, 2]]),
        "class_ids_shifted plus 1": lambda: made(classes=(classes + 1) % count),
        "class_ids_shifted minus 1": lambda: made(classes=(classes - 1) % count),
        "gaussian_radius deviation": lambda: made()._replace(hm=made().hm ** 0.25),  # twice as wide
        **{cause: lambda rule=rule: made(rule=rule) for cause, rule in RADII.items()},
    }

    def named(targets: Targets, name: str) -> Array:
        return np.moveaxis(targets.hm[0], -1, 0) if name == "hm" else getattr(targets, name)[0]

    return {
        name: {cause: lambda one=one, name=name: named(one(), name) for cause, one in others.items()}
        for name in ("hm", "wh", "reg", "ind", "reg_mask")
    }


def term_alternatives(
    terms: Mapping[str, float], weights: Mapping[str, float], cells: int, objects: int
) -> Mapping[str, Alternatives]:
    """The terms hm_loss, wh_loss and off_loss, and the loss, each with each mistake.

    cells: positives of the heatmaps; objects: truths.
    """
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
