"""Figures of a data set's boxes, and its images with their boxes as the network sees them."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.scale import LogScale

from dataloaders.reading.annotations import read_bytes
from official.vision.draw import draw_boxes, grid
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_input, decode_image, resize_image, whole_image, whole_levels
from tools.doctor.anchors import Sides
from tools.doctor.boxes import Statistics, boxes_of_images
from tools.doctor.splits import SplitData, sides_in_input

_SAMPLES = 16
_POINTS = 20_000  # a scatter of more says nothing more


def box_figure(
    splits: Sequence[SplitData], input_size: tuple[int, int], protocol: EvaluationProtocol, anchors: dict[str, Sides]
) -> Figure:
    """Widths, heights and both, in pixels of the network's input, and the number of boxes of an image.

    anchors: by the name they are drawn with.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    width_axes, height_axes, shape_axes, count_axes = figure.subplots(2, 2).ravel()
    for number, data in enumerate(splits):
        sides = sides_in_input(data, data.kept_boxes, input_size, protocol)
        sides = sides[(sides > 0).all(1)]
        for axes, axis, name, side in ((width_axes, 0, "width", 1), (height_axes, 1, "height", 0)):
            _histogram(axes, sides[:, axis], data.name)
            axes.set(xlabel=f"box {name}, pixels of the {input_size[side]} pixel input", ylabel="boxes")
        some = sides[:: max(1, len(sides) // _POINTS)]
        shape_axes.scatter(*some.T, s=4, alpha=0.3, color=f"C{number}", label=data.name)
        counts = np.bincount(boxes_of_images(data)) if data.kept.any() else np.zeros(1)
        count_axes.step(np.arange(len(counts)), counts, where="mid", label=data.name)
    for (name, sides), marker in zip(anchors.items(), "x+", strict=False):
        shape_axes.scatter(*sides.T, s=90, marker=marker, color="black", label=name)
    shape_axes.set(xlabel="box width", ylabel="box height")
    log_axes = (width_axes.xaxis, height_axes.xaxis, shape_axes.xaxis, shape_axes.yaxis)
    for axis in log_axes if any(data.kept_boxes.any() for data in splits) else ():
        axis.axes.set(**{f"{axis.axis_name}scale": LogScale(axis, base=2)})
        axis.set_major_formatter("{x:g}")
    count_axes.set(xlabel="boxes of an image", ylabel="images")
    for axes in (width_axes, height_axes, shape_axes, count_axes):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def _histogram(axes: Axes, values: np.ndarray, label: str) -> None:
    if len(values):
        edges = np.geomspace(values.min(), max(values.max(), values.min() * 1.01), 40)
        axes.hist(values, bins=edges, histtype="step", label=f"{label} ({len(values)})")


def class_figure(names: Sequence[str], of_splits: Sequence[Statistics]) -> Figure:
    """Boxes of each class, by split."""
    classes = [one.name for one in of_splits[0].classes]
    figure = Figure(figsize=(max(6, 0.22 * len(classes)), 5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for number, (name, stats) in enumerate(zip(names, of_splits, strict=True)):
        counts = [one.boxes for one in stats.classes]
        axes.bar(np.arange(len(classes)) + (number - (len(names) - 1) / 2) * width, counts, width, label=name)
    axes.set(yscale="symlog", ylabel="boxes")
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.legend()
    return figure


def sample_picture(
    data: SplitData, input_size: tuple[int, int], protocol: EvaluationProtocol, seed: int
) -> UInt8[np.ndarray, "height width 3"] | None:
    """A picture of some images with their boxes, as the network sees them; none where no image can be used."""
    rows = np.flatnonzero(data.kept)
    if not len(rows):
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_SAMPLES])
    return grid([_drawn(data, int(row), input_size, protocol) for row in rows])


def _drawn(data: SplitData, row: int, input_size: tuple[int, int], protocol: EvaluationProtocol) -> np.ndarray:
    image = decode_image(tf.constant(read_bytes(data.stated.image_paths[row], "the image")))
    size = tf.constant(data.images[row].size, tf.int32)
    chosen = data.kept_boxes & (data.examined.image_of_box == row)
    x, y, width, height = data.examined.found.boxes[chosen].T / np.tile(size.numpy()[::-1], 2)[:, np.newaxis]
    corners = np.stack([y, x, y + height, x + width], axis=1).astype(np.float32)  # [n, 4]
    placed = boxes_to_input(tf.constant(corners), size, whole_image(size), input_size, protocol).numpy()
    classes = data.examined.box_classes[chosen]
    pixels = whole_levels(resize_image(image, input_size, protocol)).numpy()
    return draw_boxes(pixels, placed, [data.classes[number] for number in classes], None, classes)
