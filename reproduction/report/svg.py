"""Charts as SVG text, and maps of numbers as PNG: no file and no script beside the page."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
import PIL.Image

from reproduction.traces.case import Row
from reproduction.traces.result import Boxes, Lines
from reproduction.traces.worst_map import Grid, Maps

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720.0, 300.0, 58.0, 34.0, 14.0
_RIGHT = _WIDTH - 12
LEAST_SHARE = 1e-4  # of a bound, the chart's foot
# From dark to light, also without colour: five stops of a perceptual scale.
_SCALE = np.array([(13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], float)


def error_chart(rows: Sequence[Row]) -> str:
    """Of each compared quantity, in order, its error as a share of its bound, on a logarithmic scale."""
    shares = [(row, max(row.share_of_bound, LEAST_SHARE)) for row in rows if row.bound and row.error is not None]
    shares = [(row, share if math.isfinite(share) else 1e6) for row, share in shares]
    if len(shares) < 2:
        return ""
    top = max(10.0, *(share for _, share in shares))
    low, high = round(math.log10(LEAST_SHARE)), math.ceil(math.log10(top))
    height = _HEIGHT - _BOTTOM - _TOP

    def y(share: float) -> float:
        return _TOP + height * (high - math.log10(share)) / (high - low)

    step = (_RIGHT - _LEFT) / len(shares)
    marks = []
    for number, (row, share) in enumerate(shares):
        x, label = _LEFT + step * (number + 0.5), f"{row.case} {row.quantity}: {share:.2g} of its bound ({row.outcome})"
        marks.append(_mark(x, y(share), row.outcome == "fail", label))
    grid = [
        _line_across(y(10.0**power), f"1e{power}" if power else "bound", power == 0) for power in range(low, high + 1)
    ]
    first, last = shares[0][0].quantity, shares[-1][0].quantity
    names = _text(_LEFT, _HEIGHT - 10, first) + _text(_RIGHT, _HEIGHT - 10, last, "end")
    title = "Error of each quantity as a share of its bound"
    return f'<p class="dim axis">{title}</p>' + _svg("".join([*grid, *marks, names]), title)


def lines_chart(exhibit: Lines) -> str:
    """Curves over a common axis."""
    points = [point for line in exhibit.lines.values() for point in line if all(map(math.isfinite, point))]
    if len(points) < 2:
        return ""
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    width, height, tall = (right - left) or 1.0, (high - low) or 1.0, _HEIGHT - _BOTTOM - _TOP
    parts = []
    for number, (name, line) in enumerate(exhibit.lines.items()):
        placed = [
            f"{_LEFT + (_RIGHT - _LEFT) * (x - left) / width:.1f},{_TOP + tall * (high - y) / height:.1f}"
            for x, y in line
            if math.isfinite(x) and math.isfinite(y)
        ]
        kind = f"line{min(number, 2)}"
        parts.append(f'<polyline class="{kind}" points="{" ".join(placed)}"/>')
        parts.append(f'<g class="{kind}">{_text(_LEFT + 10 + 170 * number, _TOP + 8, name)}</g>')
    for value, at in ((high, _TOP + 4), (low, _HEIGHT - _BOTTOM)):
        parts.append(_text(_LEFT - 6, at, f"{value:.3g}", "end"))
    parts.append(_text(_LEFT, _HEIGHT - 10, f"{exhibit.across} {left:.4g}"))
    parts.append(_text(_RIGHT, _HEIGHT - 10, f"{right:.4g}", "end"))
    return _svg("".join(parts), exhibit.title)


def boxes_picture(exhibit: Boxes) -> str:
    """The picture with the original's boxes and, dashed, ours."""
    source = f"data:image/jpeg;base64,{escape(exhibit.jpeg)}"
    parts = [f'<image href="{source}" width="100" height="100" preserveAspectRatio="none"/>']
    for kind, boxes in (("theirs", exhibit.expected), ("ours", exhibit.ours)):
        for top, left, bottom, right, score in boxes:
            size = f'width="{100 * (right - left):.2f}" height="{100 * (bottom - top):.2f}"'
            where = f'x="{100 * left:.2f}" y="{100 * top:.2f}" {size}'
            parts.append(f'<rect class="{kind}" {where}><title>{kind} {score:.3f}</title></rect>')
    width, height = _jpeg_size(exhibit.jpeg)
    ratio = f'style="aspect-ratio:{width}/{height}"'
    return (
        f'<svg class="photo" {ratio} viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(exhibit.title)}">{"".join(parts)}</svg>'
    )


def map_pictures(maps: Maps) -> str:
    """Ours, the original's and their difference, side by side, each with what its lightest and darkest mean."""
    ours, expected = (np.array(grid, float) for grid in (maps.ours, maps.expected))
    both = np.concatenate([ours, expected])
    finite = both[np.isfinite(both)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    difference = np.abs(ours - expected)
    largest = float(np.nanmax(np.where(np.isfinite(difference), difference, 0)))
    panels = (("ours", ours, low, high), ("original", expected, low, high), ("|difference|", difference, 0.0, largest))
    return "".join(
        f'<figure><img alt="{escape(name)}" src="{_png(values, least, most)}"><figcaption>{escape(name)}, '
        f"{least:.3g} to {most:.3g}</figcaption></figure>"
        for name, values, least, most in panels
    )


def _png(values: Grid | np.ndarray, low: float, high: float) -> str:
    share = np.clip((np.nan_to_num(np.asarray(values, float), nan=high) - low) / ((high - low) or 1.0), 0, 1)
    at = share * (len(_SCALE) - 1)
    below = np.minimum(at.astype(int), len(_SCALE) - 2)
    colours = _SCALE[below] + (_SCALE[below + 1] - _SCALE[below]) * (at - below)[..., np.newaxis]
    file = io.BytesIO()
    PIL.Image.fromarray(colours.astype(np.uint8)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _jpeg_size(jpeg: str) -> tuple[int, int]:
    """(width, height); square where it is no picture."""
    try:
        with PIL.Image.open(io.BytesIO(base64.b64decode(jpeg))) as image:
            return image.size
    except (OSError, ValueError):
        return 1, 1


def _mark(x: float, y: float, failed: bool, label: str) -> str:
    shape = f"M{x:.1f},{y - 5:.1f}l5,9h-10z" if failed else f"M{x - 2:.1f},{y - 2:.1f}h4v4h-4z"
    return f'<path class="{"bad" if failed else "good"}" d="{shape}"><title>{escape(label)}</title></path>'


def _line_across(y: float, label: str, is_bound: bool) -> str:
    kind = "bound" if is_bound else "grid"
    return f'<line class="{kind}" x1="{_LEFT:g}" x2="{_RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>' + _text(
        _LEFT - 6, y + 4, label, "end"
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(inside: str, label: str) -> str:
    box = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(label)}"'
    return f'<div class="wide"><svg class="chart" {box}>{inside}</svg></div>'
