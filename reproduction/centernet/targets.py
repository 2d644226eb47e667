"""What CenterNet draws from an image's boxes: Gaussians and their radii, and all targets (`gaussian*`, `targets_*`)."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from losses.centernet.gaussian import draw_heatmap, gaussian_radius
from losses.centernet.targets import Targets, assign, assign_dense_size, place
from losses.truth import Truth
from reproduction.centernet.mistakes import radius_alternatives, target_alternatives
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, Exact
from reproduction.traces.trace import Trace, TraceError, relayout

HEATMAP = Absolute(bound=1e-6)
BOXES = Absolute(bound=1e-3)  # pixels


def folders(case: Case) -> list[str]:
    """The cases of a file: what stands before the first `/` in its names."""
    return sorted({name.split("/")[0] for name in case.trace if "/" in name})


def gaussian(case: Case) -> Iterator[Row]:
    """`radius`: of boxes; `draw0`, ...: several Gaussians on one map; `gaussian2D`: each alone on a map of its size."""
    names = [name for name in case.trace if name.startswith(f"{case.part}/")]
    if case.part == "radius":
        yield from _radii(case)
    elif case.part == "gaussian2D":
        for name in names:
            side = 2 * int(name.rpartition("/")[2]) + 1
            drawn = _draw(np.array([[side // 2] * 3]), (side, side))
            yield case.compare(name, drawn, HEATMAP)
    elif case.part.startswith("draw"):
        x_y_radius = case.trace.array(f"{case.part}/x_y_radius", ("boxes", 3), np.integer)
        expected = case.trace.array(f"{case.part}/umich", ("rows", "columns"), np.floating)
        yield from heatmap(case, f"{case.part}/umich", _draw(x_y_radius, expected.shape), expected)
        if f"{case.part}/msra" in case.trace:
            yield case.skip(f"{case.part}/msra", "of --mse_loss, which the original cannot run")
    else:
        raise TraceError(f"{case.path}: {case.part!r} is neither radius, gaussian2D nor draw with a number")


def _radii(case: Case) -> Iterator[Row]:
    sizes = case.trace.array("radius/height_width", ("boxes", 2), np.number)
    height, width = tf.constant(np.ceil(sizes).astype(np.int32).T)
    clue = Clue("targets", "", radius_alternatives(sizes))
    yield case.compare("radius/int_overlap0.7", gaussian_radius(height=height, width=width), Exact(), clue=clue)
    for name in case.trace:
        if name.startswith("radius/") and name not in ("radius/height_width", "radius/int_overlap0.7"):
            yield case.skip(name, "the whole part of the radius for an overlap of 0.7 is all that is used")


def _draw(x_y_radius: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Gaussians on one map, [rows, columns]."""
    given = tf.constant(x_y_radius[np.newaxis], tf.int32)
    classes = tf.zeros(given.shape[:2], tf.int32)
    mask = tf.ones(given.shape[:2], tf.bool)
    return draw_heatmap(given[..., :2], given[..., 2], classes, mask, grid, 1)[0, ..., 0].numpy()


def heatmap(
    case: Case,
    name: str,
    ours: Float[np.ndarray, "..."],
    expected: Float[np.ndarray, "..."],
    clue: Clue | None = None,
) -> Iterator[Row]:
    """Its values, and exactly where it is 1 and 0: the loss counts the ones."""
    yield case.compare(name, ours, HEATMAP, expected, clue)
    for value in (1, 0):
        yield case.compare(f"{name} == {value}", ours == value, Exact(), expected == value)


def targets(case: Case) -> Iterator[Row]:
    """All that one image's annotations become, beside the record; sizes in the form that its option gives them."""
    trace, prefix = case.trace, case.part
    hm = trace.array(f"{prefix}/hm", ("classes", "rows", "columns"), np.floating)
    classes, *grid = hm.shape
    room = len(trace.array(f"{prefix}/reg_mask", ("truths",)))
    objects = place(truth(trace, prefix, room), tuple(grid), classes)
    ours = assign(objects, tuple(grid), classes)
    clues = _clues(trace, prefix, room, (*grid, classes))
    yield from heatmap(case, f"{prefix}/hm", relayout(ours.hm[0].numpy(), "HWC", "CHW"), hm, clues["hm"])
    for name in ("reg", "ind", "reg_mask"):
        yield case.compare(f"{prefix}/{name}", getattr(ours, name)[0], Exact(), clue=clues[name])
    if f"{prefix}/cat_spec_wh" in trace or f"{prefix}/cat_spec_mask" in trace:
        yield from _sizes_by_class(case, ours, classes)
    elif f"{prefix}/dense_wh" in trace or f"{prefix}/dense_wh_mask" in trace:
        dense = assign_dense_size(objects, tuple(grid))
        yield case.compare(f"{prefix}/dense_wh", relayout(dense.wh[0].numpy(), "HWC", "CHW"), Exact())
        weight = np.repeat(dense.mask.numpy(), 2, axis=0)  # the original has it once for width, once for height
        yield case.compare(f"{prefix}/dense_wh_mask", weight, HEATMAP)
    else:
        yield case.compare(f"{prefix}/wh", ours.wh[0], Exact(), clue=clues["wh"])
    if f"{prefix}/gt_det" in trace:
        yield case.compare(f"{prefix}/gt_det", _boxes(ours), BOXES)


def _clues(trace: Trace, prefix: str, room: int, sides: tuple[int, int, int]) -> dict[str, Clue]:
    """What each target would be with a known mistake. sides: rows, columns, classes."""
    given = (part.numpy()[0] for part in truth(trace, prefix, room))
    others = target_alternatives(*given, sides[:2], sides[2])
    return {name: Clue("targets", "CHW" if name == "hm" else "", one) for name, one in others.items()}


def truth(trace: Trace, prefix: str, room: int) -> Truth:
    """The recorded annotations as one padded example in output pixels, the affine map in float64 as the original's.

    room: rows of the example; annotations beyond are cut off, as the original does.
    """
    boxes = trace.array(f"{prefix}/boxes_xywh", ("boxes", 4), np.number)[:room]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    if f"{prefix}/flipped" in trace and trace.number(f"{prefix}/flipped"):
        width = trace.array(f"{prefix}/image_wh", (2,))[0]
        corners[:, [0, 2]] = width - corners[:, [2, 0]] - 1
    matrix = trace.array(f"{prefix}/trans_output", (2, 3), np.floating).astype(np.float64)
    mapped = (corners.reshape(-1, 2).astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]).reshape(-1, 4)
    rows = np.full((1, room, 4), np.float32(-7e4))  # what is in padding must not matter
    rows[0, : len(mapped)] = mapped
    classes = np.full((1, room), 10**6, np.int32)
    classes[0, : len(mapped)] = trace.array(f"{prefix}/class", ("boxes",), np.integer)[:room]
    valid = np.arange(room)[np.newaxis] < len(mapped)
    return Truth(tf.constant(rows), tf.constant(classes), tf.constant(valid))


def _sizes_by_class(case: Case, ours: Targets, classes: int) -> Iterator[Row]:
    """Width and height in the two columns of the object's class, [truths, 2 classes], and where they stand."""
    mask = tf.one_hot(ours.classes[0], classes) * tf.cast(ours.reg_mask[0], tf.float32)[:, tf.newaxis]
    mask = tf.repeat(mask, 2, axis=1)  # [truths, 2 classes]
    yield case.compare(f"{case.part}/cat_spec_mask", mask, Exact())
    yield case.compare(f"{case.part}/cat_spec_wh", mask * tf.tile(ours.wh[0], [1, classes]), Exact())


def _boxes(ours: Targets) -> np.ndarray:
    """Rows xyxy, 1, class of the objects alone; one row of zeros where there is none (the original's `gt_det`)."""
    wh, reg, ind, mask, classes = (part[0].numpy() for part in ours[1:])
    columns = ours.hm.shape[2]
    centre = np.stack([ind % columns, ind // columns], axis=1) + reg
    rows = np.column_stack([centre - wh / 2, centre + wh / 2, np.ones(len(ind)), classes])[mask]
    return rows if len(rows) else np.zeros((1, 6))
