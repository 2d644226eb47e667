"""Hypotheses on what a head gives out, or on its gradient, seen as [image, anchor, entry, row, column].

The entries are x, y, w, h, objectness, classes.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Shaped

from reproduction.traces.causes.axes import GROUPS, HeadView, anchor_views, from_anchor_view
from reproduction.traces.causes.maps import factor_between, without
from reproduction.traces.causes.residual import Array, Suspect, size_of

LEAST_ENTRIES = 4  # x, y, w, h
_SAME = 1e-5  # of the largest of the entries
_FEW = 1  # numbers say a factor: a gradient is sparse
_PLACES = {group: f"entries_{group}" for group in GROUPS}


def of_head(
    ours: Shaped[np.ndarray, "*shape"], expected: Shaped[np.ndarray, "*shape"], layout: str, kind: str
) -> Iterator[Suspect]:
    """All of this file; of an array with a channel axis, for each number of anchors that it may have."""
    for mine, theirs in zip(anchor_views(ours, layout), anchor_views(expected, layout), strict=True):
        if theirs.shape[2] < LEAST_ENTRIES:
            continue  # one group of entries alone, such as the objectness
        for suspect in _of_view(mine, theirs, kind):
            words = f"{suspect.tried} ({theirs.shape[1]} anchors)"
            yield Suspect(suspect.cause, from_anchor_view(suspect.expected, layout), words)


def _of_view(ours: HeadView, expected: HeadView, kind: str) -> Iterator[Suspect]:
    differs = _differs(ours, expected)
    if not differs.any():
        return
    is_gradient = kind == "gradient"
    yield from _assignment(ours, expected, differs) if is_gradient else _decoded(ours, expected)
    yield from _factors(ours, expected, differs, is_gradient)
    broken = np.isnan(ours) & ~np.isnan(expected)
    if broken.any() and not broken[:, :, [entry for entry in range(ours.shape[2]) if entry not in (2, 3)]].any():
        yield without("nan_zero_width", broken, ours, expected, f"NaN in {int(broken.sum())} numbers of w and h alone")
    if ours.shape[1] > 1:
        order = [
            int(np.abs(expected - one[:, np.newaxis]).sum((0, 2, 3, 4)).argmin()) for one in np.moveaxis(ours, 1, 0)
        ]
        if sorted(order) == list(range(len(order))) and order != sorted(order):
            yield Suspect("anchors_permuted", expected[:, order], f"anchors in the order {order}")
    yield from _located(ours, expected, differs)


def _assignment(
    ours: HeadView, expected: HeadView, differs: Bool[np.ndarray, "image anchor entry row column"]
) -> Iterator[Suspect]:
    """Gradients that differ because a slot [image, anchor, row, column] was judged otherwise."""
    slots = differs.any(axis=2)
    groups = [name for name, part in GROUPS.items() if differs[:, :, part].any()]
    if groups == ["objectness"]:
        one_is_zero = (ours == 0) ^ (expected == 0)
        if (one_is_zero | ~differs).all():
            more = int((differs & (ours == 0)).sum()), int((differs & (expected == 0)).sum())
            words = f"objectness alone, {more[0]} slots that only ours ignores, {more[1]} that only the original does"
            yield without("ignore_rule", differs, ours, expected, words)
    if groups == ["classes"]:
        size = np.abs(ours - expected)[differs]
        if size.max() - size.min() <= 1e-3 * size.max():
            words = (
                f"classes of {int(slots.sum())} slots alone, each by {size.max():.4g}, as of a class that counts or not"
            )
            yield without("second_truth_overwrites", differs, ours, expected, words)
    cells = slots.any(axis=1)  # [images, rows, columns]
    for corner, name in (((0, 0), "first"), ((-1, -1), "last")):
        if cells.shape[1] * cells.shape[2] > 1 and cells.sum() == cells[:, corner[0], corner[1]].sum():
            words = f"only in the {name} cell, of {int(cells.sum())} images"
            yield without("padded_rows_scatter", differs, ours, expected, words)
    mine, theirs = ((array[:, :, GROUPS["xy"]] != 0).any(2) for array in (ours, expected))  # positives
    for cause, part in (("positives_extra", mine & ~theirs), ("positives_missing", theirs & ~mine)):
        if part.any():
            inside = np.broadcast_to(part[:, :, np.newaxis], ours.shape)
            yield without(cause, inside, ours, expected, f"{int(part.sum())} slots [image, anchor, row, column]")


def _decoded(ours: HeadView, expected: HeadView) -> Iterator[Suspect]:
    """Outputs that differ because entries were decoded otherwise."""
    xy = expected[:, :, GROUPS["xy"]]
    factor = factor_between(ours[:, :, GROUPS["xy"]] - 0.5, xy - 0.5)
    if factor is not None:
        words = f"x and y {factor:.6g} times as far from their cell's middle"
        yield Suspect("scale_x_y", _with(expected, "xy", (xy - 0.5) * factor + 0.5), words)
    for group in GROUPS:
        part = expected[:, :, GROUPS[group]]
        with np.errstate(all="ignore"):
            sigmoid, logit = 1 / (1 + np.exp(-part)), np.log(part / (1 - part))
            twice = np.exp(np.minimum(part, 80)) if group == "wh" else sigmoid
            undone = np.log(part) if group == "wh" else logit
        yield Suspect("activation_twice", _with(expected, group, twice), f"{group} activated once more")
        yield Suspect("activation_missing", _with(expected, group, undone), f"the activation of {group} undone")


def _factors(
    ours: HeadView, expected: HeadView, differs: Bool[np.ndarray, "image anchor entry row column"], is_gradient: bool
) -> Iterator[Suspect]:
    """A group of entries off by one factor; of width and height, by one for each anchor."""
    changed = expected
    factors = {}
    for group, part in GROUPS.items():
        if not differs[:, :, part].any():
            continue
        found = factor_between(ours[:, :, part], expected[:, :, part], _FEW)
        if found is None:
            continue
        factors[group] = found
        scaled = expected[:, :, part] * found
        changed = _with(changed, group, scaled)
        cause = "normaliser" if is_gradient else "constant_ratio"
        if group == "wh":
            cause = "ciou_gradient_wh" if is_gradient else "anchor_units"
        yield Suspect(cause, _with(expected, group, scaled), f"{group} times {found:.6g}")
    if is_gradient and len(factors) > 1:
        words = " and ".join(f"{group} times {factor:.4g}" for group, factor in factors.items())
        pair = factors.get("xy"), factors.get("wh")
        same = set(factors) == {"xy", "wh"} and abs(pair[0] - pair[1]) <= 1e-3 * abs(pair[0])
        yield Suspect("normaliser", changed, words if not same else f"x, y, w and h times {pair[0]:.6g}")
    part = expected[:, :, GROUPS["wh"]]
    each = np.ones((1, *part.shape[1:3], 1, 1))  # a factor for each anchor's w and h
    for anchor in range(part.shape[1]):
        for side in range(2):
            found = factor_between(ours[:, anchor, 2 + side], part[:, anchor, side], _FEW)
            each[0, anchor, side] = 1.0 if found is None else found
    words = f"w and h of each anchor times {np.array2string(each[0, :, :, 0, 0], precision=3).replace(chr(10), '')}"
    cause = "ciou_gradient_wh" if is_gradient else "anchor_mask"
    yield Suspect(cause, _with(expected, "wh", part * each), words)


def _located(
    ours: HeadView, expected: HeadView, differs: Bool[np.ndarray, "image anchor entry row column"]
) -> Iterator[Suspect]:
    for group, entries in GROUPS.items():
        part = np.zeros(ours.shape, bool)
        part[:, :, entries] = True
        if not (differs & ~part).any():
            yield without(_PLACES[group], part, ours, expected, f"only in {group}")
    wrong = differs.any(axis=(0, 2, 3, 4))  # by anchor
    if 0 < wrong.sum() < len(wrong):
        part = np.broadcast_to(wrong[np.newaxis, :, np.newaxis, np.newaxis, np.newaxis], ours.shape)
        yield without("one_anchor", part, ours, expected, f"only in anchor {np.flatnonzero(wrong).tolist()}")


def _with(view: HeadView, group: str, values: Array) -> HeadView:
    changed = view.copy()
    changed[:, :, GROUPS[group]] = values
    return changed


def _differs(ours: HeadView, expected: HeadView) -> Bool[np.ndarray, "image anchor entry row column"]:
    with np.errstate(invalid="ignore"):
        near = np.abs(ours - expected) <= _SAME * size_of(expected)
    return ~near & ~(np.isnan(ours) & np.isnan(expected)) & (ours != expected)
