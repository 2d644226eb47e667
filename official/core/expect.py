"""Checks of tensors that a user hands over: static, so free within a graph; of values only where they are at hand.

What is expected is read from the jaxtyping annotation; errors say it with what was found and the likely mistake.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from official.core.errors import UserError

Sizes = dict[str, int | None]  # of named dimensions; None: not static
FAR = 10.0  # a relative coordinate beyond is in pixels; in the padding of a letterbox a box may well be outside 0..1


class TensorError(UserError):
    """A tensor that cannot be what it is given for."""


def expect(what: str, value: Any, kind: Any, meaning: str = "", sizes: Sizes | None = None) -> None:
    """Raises a TensorError unless a tensor or array has the dtype and static shape of a jaxtyping annotation.

    Args:
        what: the function and its argument.
        value: of unknown rank, it is let pass.
        kind: the annotation, or a union of some.
        meaning: what is expected in the project's terms: box format, unit, range.
        sizes: what named dimensions are known to be; those found are added.
    """
    sizes = {} if sizes is None else sizes
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        raise TensorError(f"{what} is a {type(value).__name__}; expected a tensor or array{_named(meaning)}")
    if getattr(value.shape, "rank", 0) is None:
        return
    dtype, shape = getattr(value.dtype, "name", str(value.dtype)), list(value.shape)
    kinds = get_args(kind) or (kind,)
    if any(_fits(dtype, one) and _bound(shape, _names(one), sizes) for one in kinds):
        return
    names = _names(kinds[0])
    wanted = " or ".join(f"{_kind(one)} [{', '.join(_names(one))}]" for one in kinds)
    known = ", ".join(f"{name} = {size}" for name, size in sizes.items() if size and name in names)
    raise TensorError(
        f"{what} is {dtype} {_listed(shape)}; expected {wanted}{_named(meaning)}{f' ({known})' if known else ''}. "
        + _likely(dtype, shape, kinds[0], sizes)
    )


def expect_fields(what: str, value: Any, kind: type, meanings: Mapping[str, str], sizes: Sizes | None = None) -> None:
    """The same of each annotated tensor of a NamedTuple `kind`; named dimensions are those of all its fields."""
    sizes = {} if sizes is None else sizes
    if not isinstance(value, kind):
        fields = ", ".join(kind.__annotations__)
        raise TensorError(f"{what} is a {type(value).__name__}; expected a {kind.__name__}({fields})")
    for name, annotation in kind.__annotations__.items():
        if hasattr(annotation, "dim_str"):
            expect(f"{what}.{name}", getattr(value, name), annotation, meanings.get(name, ""), sizes)


def expect_relative(what: str, boxes: Any, valid: Any, form: str) -> None:
    """Raises a TensorError if most boxes lie so far off that they can only be in pixels. Only of values at hand.

    boxes: [..., 4] in `form`, relative to an image; valid: [...]. Not finite ones say nothing.
    """
    if any(tf.is_tensor(part) and not hasattr(part, "numpy") for part in (boxes, valid)):
        return  # within a graph
    boxes = np.asarray(boxes)[np.asarray(valid)]  # [valid, 4]
    boxes = boxes[np.isfinite(boxes).all(axis=-1)]
    middle = boxes[:, :2] if form in ("cxcywh", "xywh") else (boxes[:, :2] + boxes[:, 2:]) / 2
    off = np.abs(middle).max(axis=-1, initial=0) > FAR
    if off.sum() * 2 > len(off):
        values = ", ".join(f"{value:g}" for value in boxes[off][0])
        raise TensorError(
            f"{what} has a box [{values}], and {off.sum()} of {len(off)} boxes like it; expected {form} relative to "
            "the image, 0..1. Likely in pixels: divide by the image's height and width"
        )


def _kind(kind: Any) -> str:
    return kind.__name__.partition("[")[0].lower()


def _names(kind: Any) -> list[str]:
    """The dimensions of an annotation, without what they are called where their size is fixed: 4 for `yxyx=4`."""
    return [name.rpartition("=")[2] for name in kind.dim_str.split()]


def _fits(dtype: str, kind: Any) -> bool:
    return not isinstance(kind.dtypes, Sequence) or dtype in kind.dtypes


def _bound(shape: list[int | None], names: list[str], sizes: Sizes) -> bool:
    """Whether a shape can be so named; sizes of new names are then added. Anything may stand for "..." or "*name"."""
    free = next((place for place, name in enumerate(names) if name == "..." or name.startswith("*")), None)
    if free is not None:
        behind = len(names) - free - 1
        shape = shape[:free] + shape[len(shape) - behind :] if len(shape) >= free + behind else []
        names = names[:free] + names[free + 1 :]
    if len(shape) != len(names):
        return False
    new = {}
    for size, name in zip(shape, names, strict=True):
        wanted = int(name) if name.isdigit() else {**sizes, **new}.get(name)
        if None not in (size, wanted) and size != wanted:
            return False
        if size is not None and name.isidentifier() and not name.startswith("_"):
            new[name] = size
    sizes |= new
    return True


def _likely(dtype: str, shape: list[int | None], kind: Any, sizes: Sizes) -> str:
    """The likely mistake, and what to do."""
    names = _names(kind)
    if _bound(shape, names, dict(sizes)):
        return f"Only the dtype is wrong: cast it, to {_kind(kind)}"
    if len(shape) == len(names) - 1 and _bound(shape, names[1:], {}):
        return f"Likely without its first axis, {names[0]}: add it by x[tf.newaxis]"
    if len(shape) == len(names) + 1:
        return "It has an axis too many: a one-hot class, or a batch of batches?"
    swapped = [*shape[:-2], *reversed(shape[-2:])]
    if len(shape) == len(names) > 1 and _bound(swapped, names, dict(sizes)):
        return "Likely its last two axes are swapped"
    if names[-1:] == ["4"] and (shape[-1:] or [0])[0] not in (None, 4):
        return "Its last axis is no box of four numbers: class and score go into tensors of their own"
    other = [f"{name} is {size}" for size, name in zip(shape, names, strict=False) if sizes.get(name, size) != size]
    return f"Here {', '.join(other)}: of another batch or data set?" if other else "Give it that shape"


def _named(meaning: str) -> str:
    return f", {meaning}" if meaning else ""


def _listed(shape: list[int | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
