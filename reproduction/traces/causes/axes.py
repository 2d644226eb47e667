"""Which axis of an array means what, for the hypotheses: letters as in a manifest's layout."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from reproduction.traces.causes.residual import Array
from reproduction.traces.compare import CompareError

HeadView = Shaped[np.ndarray, "image anchor entry row column"]

_GUESSED = {
    "image": {2: "HW", 3: "HWC", 4: "NHWC"},
    "parameters": {2: "OI", 4: "OIHW"},
    "head": {4: "NCHW", 5: "NHWAE"},
    "gradient": {4: "NCHW", 5: "NHWAE"},
}
_USUAL = {2: "NC", 3: "CHW", 4: "NCHW", 5: "NHWAE"}
_ANCHORS = (3, 5, 2, 6, 9, 1)  # of a head, the usual ones first
GROUPS = {"xy": slice(0, 2), "wh": slice(2, 4), "objectness": slice(4, 5), "classes": slice(5, None)}


def letters(array: Array, kind: str, layout: str) -> str:
    """A letter per axis: the layout, or the usual one for so many axes; '?' where nothing is known."""
    if layout and layout.isupper():
        if len(layout) != array.ndim:
            raise CompareError(
                f"layout {layout!r} does not fit an array of shape {array.shape}: a letter for each axis"
            )
        return layout
    return _GUESSED.get(kind, _USUAL).get(array.ndim, _USUAL.get(array.ndim, "?" * array.ndim))


def anchor_views(array: Array, layout: str) -> Iterator[HeadView]:
    """A head's array as [image, anchor, entry, row, column], a view where possible: for each likely anchor count.

    Axes A and E say it; of a channel axis alone, anchor * entries + entry is assumed.
    """
    if set("NAEHW") <= set(layout):
        yield np.moveaxis(array, [layout.index(letter) for letter in "NAEHW"], range(5))
        return
    if sorted(layout) != sorted("NCHW"):
        return
    planar = np.moveaxis(array, [layout.index(letter) for letter in "NCHW"], range(4))
    for anchors in _ANCHORS:
        if not planar.shape[1] % anchors and planar.shape[1] // anchors > 5:
            yield planar.reshape(planar.shape[0], anchors, -1, *planar.shape[2:])


def from_anchor_view(view: HeadView, layout: str) -> Array:
    """The array in `layout` again: the inverse of `anchor_views`."""
    if set("NAEHW") <= set(layout):
        return np.moveaxis(view, range(5), [layout.index(letter) for letter in "NAEHW"])
    planar = view.reshape(view.shape[0], -1, *view.shape[3:])
    return np.moveaxis(planar, range(4), [layout.index(letter) for letter in "NCHW"])
