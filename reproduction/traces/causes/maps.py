"""Hypotheses on arrays of two axes or more: images, layers, targets, parameters."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Shaped

from reproduction.traces.causes.residual import Array, Suspect, size_of

_SAME = 1e-4  # of the largest: a difference below it is no difference, when it is asked where one is
_FEW, _MANY = 0.002, 0.1  # share of the elements


def of_maps(
    ours: Shaped[np.ndarray, "*ours"], expected: Shaped[np.ndarray, "*expected"], layout: str
) -> Iterator[Suspect]:
    """Hypotheses on arrays of any shape; the shapes differ only where axes are exchanged."""
    if "H" in layout and "W" in layout:
        swapped = np.swapaxes(expected, layout.index("H"), layout.index("W"))
        yield Suspect("height_width_swapped", swapped, "rows and columns exchanged")
    if ours.shape != expected.shape:
        return
    yield from _mirrors(expected, layout)
    yield from _permuted(ours, expected, layout)
    yield from _shifted(ours, expected, layout)


def of_values(
    ours: Shaped[np.ndarray, "*shape"], expected: Shaped[np.ndarray, "*shape"], kind: str
) -> Iterator[Suspect]:
    """Hypotheses that a function of each element alone explains."""
    yield Suspect("gradient_sign", -expected, "the sign turned")
    negative = expected < -_SAME * size_of(expected)
    ratio = factor_between(ours[negative], expected[negative])
    if ratio is not None and (expected > 0).any():
        other = np.where(expected < 0, expected * ratio, expected)
        yield Suspect("leaky_slope", other, f"negative numbers times {ratio:.4g}: a slope of {0.1 * ratio:.3g} for 0.1")
    with np.errstate(all="ignore"):
        sigmoid = 1 / (1 + np.exp(-expected))
        if ((expected >= 0) & (expected <= 1)).all():
            yield Suspect("activation_missing", np.log(expected / (1 - expected)), "the sigmoid undone")
        yield Suspect("activation_twice", sigmoid, "a sigmoid applied once more")
        yield Suspect("activation_missing", np.log(expected), "the exponential undone")
        yield Suspect("activation_twice", np.exp(np.minimum(expected, 80)), "an exponential applied once more")
    yield Suspect("activation_other", np.maximum(expected, 0), "negative numbers cut to 0")
    ratio = factor_between(ours, expected)
    if ratio is not None:
        cause = "image_range" if kind == "image" else "constant_ratio"
        yield Suspect(cause, expected * ratio, f"all times {ratio:.6g}")
    finite = np.isfinite(ours) & np.isfinite(expected)
    if finite.sum() >= 8:
        offset = float(np.median(ours[finite] - expected[finite]))
        yield Suspect("constant_offset", expected + offset, f"all plus {offset:.6g}")


def of_places(
    ours: Shaped[np.ndarray, "*shape"], expected: Shaped[np.ndarray, "*shape"], layout: str
) -> Iterator[Suspect]:
    """Hypotheses that say where the difference is: what is left without that part."""
    absmax = size_of(expected)
    with np.errstate(invalid="ignore"):
        differs = ~(np.abs(ours - expected) <= _SAME * absmax) & ~(np.isnan(ours) & np.isnan(expected))
    differs &= ours != expected
    if not differs.any():
        return
    if differs.mean() <= _FEW:
        yield without("few_elements", differs, ours, expected, f"{int(differs.sum())} of {differs.size} elements")
    broken = ~np.isfinite(ours) ^ ~np.isfinite(expected)
    if broken.any():
        yield without("not_finite", broken, ours, expected, f"{int(broken.sum())} that only one side has finite")
    values = np.unique(np.round(ours[differs], 5)), np.unique(np.round(expected[differs], 5))
    is_binary = bool(np.isin(expected, (0, 1)).all())  # a mask, and no picture
    is_picture = layout.endswith(("HWC", "CHW")) and not is_binary
    if is_picture and all(len(one) == 1 for one in values) and differs.mean() > _FEW:
        words = f"only where the original has {values[1][0]:.4g}, ours has {values[0][0]:.4g}"
        yield without("letterbox_value", differs, ours, expected, words)
    if "H" in layout and "W" in layout:
        yield from _borders(differs, ours, expected, layout)
    for letter, cause, most in (("N", "one_image", 0.75), ("C", "one_channel", 0.25), ("A", "one_anchor", 0.75)):
        if letter in layout:
            axis = layout.index(letter)
            wrong = differs.any(axis=tuple(other for other in range(ours.ndim) if other != axis))
            # Places where neither side has anything, such as an image without a truth, say nothing.
            able = (differs | (expected != 0)).any(axis=tuple(other for other in range(ours.ndim) if other != axis))
            if 0 < wrong.sum() <= most * able.sum():
                which = ", ".join(map(str, np.flatnonzero(wrong)[:8]))
                inside = np.expand_dims(wrong, [a for a in range(ours.ndim) if a != axis])
                part = np.broadcast_to(inside, ours.shape)
                yield without(cause, part, ours, expected, f"only index {which} of {len(wrong)} along {letter}")
    yield from _channel_affine(ours, expected, layout)


def _mirrors(expected: Array, layout: str) -> Iterator[Suspect]:
    for letter, cause, words in (
        ("C", "channels_reversed", "channels in reverse order"),
        ("W", "image_mirrored", "columns in reverse order"),
        ("H", "image_upside_down", "rows in reverse order"),
    ):
        if letter in layout and expected.shape[layout.index(letter)] > 1:
            yield Suspect(cause, np.flip(expected, layout.index(letter)), words)
    if set("OIHW") == set(layout):  # a kernel: the channels of the image are its inputs
        yield Suspect("channels_reversed", np.flip(expected, layout.index("I")), "input channels in reverse order")
        turned = np.flip(expected, (layout.index("H"), layout.index("W")))
        yield Suspect("weights_layout", turned, "kernels turned by 180 degrees")


def _permuted(ours: Array, expected: Array, layout: str) -> Iterator[Suspect]:
    """Channels, or anchors, that are found again in another place."""
    for letter in set(layout) & set("CAO"):
        axis = layout.index(letter)
        count = ours.shape[axis]
        if not 1 < count <= 1024:
            continue
        if letter == "C" and not count % 2:
            half = np.roll(expected, count // 2, axis)
            yield Suspect("channel_halves_swapped", half, "the halves of the channels exchanged")
        mine, theirs = (np.moveaxis(array, axis, 0).reshape(count, -1) for array in (ours, expected))
        step = max(1, mine.shape[1] // 64)
        mine, theirs = np.nan_to_num(mine[:, ::step]), np.nan_to_num(theirs[:, ::step])
        squares = (mine**2).sum(1)[:, np.newaxis] + (theirs**2).sum(1) - 2 * mine @ theirs.T  # [ours, expected]
        order = squares.argmin(axis=1)
        if sorted(order) == list(range(count)) and (order != np.arange(count)).any():
            cause = "anchors_permuted" if letter == "A" else "channels_permuted"
            words = f"in the order {', '.join(map(str, order[:12]))}{', ...' if count > 12 else ''} along {letter}"
            yield Suspect(cause, np.take(expected, order, axis), words)


def _shifted(ours: Array, expected: Array, layout: str) -> Iterator[Suspect]:
    """One place off, judged where both have it."""
    if not {"H", "W"} <= set(layout):
        return
    rows, columns = layout.index("H"), layout.index("W")
    if min(ours.shape[rows], ours.shape[columns]) < 4:
        return
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if not (down or right):
                continue
            moved = np.roll(expected, (down, right), (rows, columns))
            for axis, step in ((rows, down), (columns, right)):
                if step:
                    edge = [slice(None)] * ours.ndim
                    edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
                    moved[tuple(edge)] = ours[tuple(edge)]
            yield Suspect("one_pixel_shift", moved, f"moved {down} rows down and {right} columns right")


def _borders(differs: Array, ours: Array, expected: Array, layout: str) -> Iterator[Suspect]:
    rows, columns = layout.index("H"), layout.index("W")
    height, width = ours.shape[rows], ours.shape[columns]
    shape = [1] * ours.ndim
    y = np.arange(height).reshape([*shape[:rows], height, *shape[rows + 1 :]])
    x = np.arange(width).reshape([*shape[:columns], width, *shape[columns + 1 :]])
    if min(height, width) > 4:
        border = (y < 1) | (y >= height - 1) | (x < 1) | (x >= width - 1)
        far = (y >= height - 1) | (x >= width - 1)
        near = (y < 1) | (x < 1)
        for part, words in ((far, "last row and column"), (near, "first row and column"), (border, "border rows")):
            yield without("border_only", np.broadcast_to(part, ours.shape), ours, expected, f"only in the {words}")
        if differs.mean() < _MANY:  # few numbers lie in any part
            return
        for parity in (0, 1):
            part = np.broadcast_to((y % 2 == parity) | (x % 2 == parity), ours.shape)
            words = f"only in every second row or column, from {parity}"
            yield without("stride_alignment", part, ours, expected, words)
        for axis, name in ((y, "row"), (x, "column")):
            for parity in (0, 1):
                part = np.broadcast_to(axis % 2 == parity, ours.shape)
                yield without("stride_alignment", part, ours, expected, f"only in every second {name}, from {parity}")


def _channel_affine(ours: Array, expected: Array, layout: str) -> Iterator[Suspect]:
    """Each channel by its own factor and summand, if there are enough numbers to tell."""
    if "C" not in layout or not np.isfinite(ours).all() or not np.isfinite(expected).all():
        return
    axis = layout.index("C")
    mine, theirs = (np.moveaxis(array, axis, 0).reshape(ours.shape[axis], -1) for array in (ours, expected))
    if mine.shape[1] < 16:
        return
    means = mine.mean(1, keepdims=True), theirs.mean(1, keepdims=True)
    spread = ((theirs - means[1]) ** 2).sum(1, keepdims=True)
    factor = ((mine - means[0]) * (theirs - means[1])).sum(1, keepdims=True) / np.where(spread, spread, 1)
    fitted = (factor * (theirs - means[1]) + means[0]).reshape(np.moveaxis(ours, axis, 0).shape)
    words = f"each channel by its own factor ({factor.min():.4g} to {factor.max():.4g}) and summand"
    yield Suspect("per_channel_affine", np.moveaxis(fitted, 0, axis), words)


def without(
    cause: str,
    part: Bool[np.ndarray, "*shape"],
    ours: Shaped[np.ndarray, "*shape"],
    expected: Shaped[np.ndarray, "*shape"],
    words: str,
) -> Suspect:
    """The hypothesis that only `part` differs: the rest is left."""
    with np.errstate(invalid="ignore"):
        squares = np.nan_to_num((ours - expected) ** 2, posinf=0.0)
    total = float(squares.sum())
    share = float(squares[part].sum()) / total if total else 1.0
    return Suspect(cause, np.where(part, ours, expected), f"{words}, with {share:.1%} of the squared error")


def factor_between(
    ours: Shaped[np.ndarray, "*shape"], expected: Shaped[np.ndarray, "*shape"], least: int = 8
) -> float | None:
    """The factor between two arrays, from their larger numbers; None where fewer than `least` say it."""
    size = size_of(expected)
    large = np.isfinite(ours) & np.isfinite(expected) & (np.abs(expected) > 0.01 * size)
    return float(np.median(ours[large] / expected[large])) if size and large.sum() >= least else None
