"""A replayed example as one picture: its stages side by side, boxes drawn in, parameters below."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from official.vision.draw import draw_boxes
from tools.replay.rebuild import Replay, Stage

_MOST_IN_A_ROW = 6
_CHARACTERS = 60  # of a line, for each picture above it
_LONG = ("boxes", "classes", "boxes_yxyx")  # they are drawn


def figure_of(replay: Replay, class_names: Sequence[str]) -> Figure:
    """Images first, then compositions, then what the host sends and the network sees."""
    count = len(replay.stages)
    columns = min(count, _MOST_IN_A_ROW)
    rows = -(-count // columns)
    lines = text_of(replay.parameters, _CHARACTERS * columns)
    text_height = 0.16 * len(lines)
    figure = Figure(figsize=(4 * columns, 4 * rows + text_height), layout="constrained")
    pictures, text = figure.subfigures(2, 1, height_ratios=[4 * rows, max(text_height, 0.1)])
    for axes, stage in zip(pictures.subplots(rows, columns, squeeze=False).ravel(), replay.stages, strict=False):
        names = [class_names[number] for number in stage.classes]
        axes.imshow(draw_boxes(stage.image, stage.boxes, names, None, stage.classes))
        height, width = stage.image.shape[:2]
        axes.set_title(f"{stage.title}, {width} x {height}", fontsize=9)
        _mark_shown(axes, stage)
    for axes in pictures.axes:
        axes.set_axis_off()
    text.text(0.01, 0.99, "\n".join(lines), family="monospace", fontsize=7, va="top")
    return figure


def text_of(parameters: dict[str, Any], width: int) -> list[str]:
    """The parameters without what is drawn, in lines of at most so many characters."""
    lines = []
    for name, value in parameters.items():
        if name in _LONG:
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            labelled = {f"{name}[{number}]": one for number, one in enumerate(value)}
        else:
            labelled = {name: value}
        for label, one in labelled.items():
            lines += textwrap.wrap(f"{label}: {_short(one)}", width, subsequent_indent="    ")
    return lines


def _short(value: Any) -> str:
    """JSON without quotes, floats to six digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items() if name not in _LONG)
    if isinstance(value, list):
        return f"[{', '.join(_short(one) for one in value)}]"
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _mark_shown(axes, stage: Stage) -> None:
    if stage.shown is not None:
        top, left, bottom, right = stage.shown
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="white", linewidth=3))
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="black", linestyle="--"))
