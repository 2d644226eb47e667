"""Figures of an evaluation and of a training: curves, bars, a matrix; drawn on the host by matplotlib."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMED = 12  # so many classes are told apart in one figure of curves


def precision_recall_figure(
    names: Sequence[str], recall: Float[np.ndarray, " levels"], precision: Float[np.ndarray, "levels classes"]
) -> Figure:
    """One line a class, and their mean; -1 marks a class that the ground truth does not have."""
    figure, axes = _figure(7, 5)
    known = [number for number in range(len(names)) if (precision[:, number] > -1).all()]
    for number in known:
        label = names[number] if len(known) <= NAMED else None
        axes.plot(recall, precision[:, number], linewidth=0.8, label=label, color=None if label else "0.75")
    if known:
        axes.plot(recall, precision[:, known].mean(axis=1), color="black", linewidth=2, label="mean of classes")
        axes.legend(fontsize="small", loc="lower left")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="precision and recall, IoU 0.5")
    return figure


def average_precision_figure(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars of each class's AP and AP50, the best at the top; a class that the ground truth lacks is left out."""
    known = sorted((name for name in scores if scores[name]["AP"] > -1), key=lambda name: scores[name]["AP"])
    figure, axes = _figure(7, 1.5 + 0.22 * len(known))
    for metric, colour in (("AP50", "0.8"), ("AP", "tab:blue")):
        axes.barh(known, [scores[name][metric] for name in known], color=colour, label=metric)
    axes.set(xlabel="AP", xlim=(0, 1), title="average precision by class")
    axes.margins(y=0.01)
    axes.legend(loc="lower right")
    return figure


def confusion_figure(names: Sequence[str], counts: Int64[np.ndarray, "truth found"], title: str) -> Figure:
    """Each row's shares as shades, the counts as numbers where they can be read; the last row and column: nothing."""
    size = len(counts)
    side = min(max(4.0, 0.3 * size + 2), 26.0)
    figure, axes = _figure(side + 1, side)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, label="part of the row")
    labels = [*names, "nothing"]
    axes.set_xticks(range(size), labels, rotation=90)
    axes.set_yticks(range(size), labels)
    axes.set(xlabel="detected", ylabel="truth", title=title)
    for row, column in np.argwhere(counts) if size <= 3 * NAMED else ():
        ink = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize="x-small")
    return figure


def history_figure(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """One panel a quantity, (steps, values); values on a logarithmic axis where all are above 0."""
    figure = Figure(figsize=(8, 2.2 * len(curves)), layout="constrained")
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, (steps, values)) in zip(panels, curves.items(), strict=True):
        axes.plot(steps, values, linewidth=1, marker="." if len(steps) < 30 else None)
        axes.set_ylabel(name)
        if min(values) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    return figure


def _figure(width: int | float, height: int | float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
