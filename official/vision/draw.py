"""Pictures with boxes, for people: in NumPy and Pillow, on the host."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Integer, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def class_colour(class_id: int) -> tuple[int, int, int]:
    """RGB of a class: neighbouring ids lie far apart on the colour circle."""
    hue = (class_id * _GOLDEN_RATIO) % 1.0
    saturation = (0.95, 0.65, 0.8)[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n yxyx=4"],
    labels: Sequence[str],
    scores: Float[np.ndarray, " n"] | None,
    class_ids: Integer[np.ndarray, " n"],
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of the image with its boxes, each in its class's colour, with "label 0.87" at its upper left corner.

    Args:
        boxes: yxyx relative to the image (0..1); parts outside are not drawn, a box that is not finite is left out.
            The caller passes the valid rows only.
        labels: text of each box (n of them), usually its class's name.
        scores: 0..1, or none (for truths).
        class_ids: choose the colour.
    """
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    side = min(picture.size)
    font = ImageFont.load_default(size=min(max(10, side // 28), 24))
    line_width = max(1, side // 200)
    # The best box is drawn last, so that it lies on top; without scores the given order stays.
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for index in order:
        if np.isfinite(boxes[index]).all():
            text = labels[index] if scores is None else f"{labels[index]} {scores[index]:.2f}"
            _draw_box(canvas, picture.size, boxes[index], text, class_colour(int(class_ids[index])), font, line_width)
    return np.asarray(picture)


def _draw_box(canvas, picture_size, box, text, colour, font, line_width) -> None:
    width, height = picture_size
    edges = np.rint(np.clip(np.asarray(box, np.float64), 0, 1) * [height, width, height, width])
    top, left, bottom, right = (int(edge) for edge in edges)
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(left, right - 1), max(top, bottom - 1)  # the last pixel inside
    canvas.rectangle([left, top, right, bottom], outline=colour, width=line_width)
    text_left, text_top, text_right, text_bottom = canvas.textbbox((0, 0), text, font=font)
    text_width, text_height = text_right - text_left + 4, text_bottom - text_top + 4
    # Above the box where there is room, else inside it; never beyond the right edge if it fits at all.
    x = max(0, min(left, width - text_width))
    y = top - text_height if top >= text_height else top
    canvas.rectangle([x, y, x + text_width, y + text_height], fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if luminance > 110 else (255, 255, 255)
    canvas.text((x + 2 - text_left, y + 2 - text_top), text, fill=ink, font=font)


def grid(images: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """One picture of many, row by row, near to square; smaller images are padded with white at the right and bottom.

    Args:
        images: uint8 [height, width, 3] each, of any sizes; at least one.
    """
    if not images:
        raise ValueError("grid() got no images; it needs at least one")
    gap = 4
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def save_picture(image: UInt8[np.ndarray, "h w 3"], path: str) -> None:
    """As a file, local or remote, in the format that its name ends with, such as .png or .jpg."""
    with tf.io.gfile.GFile(path, "wb") as file:
        Image.fromarray(image).save(file, Image.registered_extensions()[f".{path.rpartition('.')[2]}"], quality=90)


def pixels_of(figure: Figure) -> UInt8[np.ndarray, "h w 3"]:
    """The figure as `save_figure` draws it."""
    figure.set_dpi(100)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: str) -> None:
    """As a PNG file, local or remote."""
    with tf.io.gfile.GFile(path, "wb") as file:
        figure.savefig(file, format="png", dpi=100)
