"""Reader of Darknet's data: `.data`, `.names`, lists of image files, a label file of `class cx cy w h` lines an image.

Darknet (AlexeyAB) -> here, where that is worth knowing:

- A relative path in a `.data` or a list counts from the current directory -> the same; if there is nothing, from beside
  the file that names it.
- An image without label file has no objects -> the same, counted in the report; none for a whole list is an error.
- Reading of a label file stops, silently, where something is no number -> a line that is not a class below `classes`
  and four numbers is reported with file and line; `on_bad: skip` drops the line.
- A box that reaches out of its image is clipped, one outside or centred at (0, 0) dropped (data.c correct_boxes) ->
  clipped, reported if by more than 1 pixel; outside: reported; the centre (0, 0) is a place like any other.
- A box below one pixel of the network's input is dropped (data.c fill_truth_detection) -> dropped in training.
- Every box goes to corners and back, in float32, even where nothing is cropped (correct_boxes) -> as read.
"""

import difflib
import itertools
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int64

from configs.data import DarknetSource
from dataloaders.reading.annotations import Annotations, DataError, read_bytes

_READING_THREADS = 8
_SHOWN = 80  # characters of a line in a message
_LARGEST = float(np.finfo(np.float32).max)
_INTEGER, _NUMBER = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

# In Darknet's order; each replaces its first occurrence (utils.c replace_image_to_label).
_FOLDERS = (
    ("/images/train2017/", "/labels/train2017/"),
    ("/images/val2017/", "/labels/val2017/"),
    ("/JPEGImages/", "/labels/"),
    ("\\images\\train2017\\", "\\labels\\train2017\\"),
    ("\\images\\val2017\\", "\\labels\\val2017\\"),
    ("\\images\\train2014\\", "\\labels\\train2014\\"),
    ("\\images\\val2014\\", "\\labels\\val2014\\"),
    ("/images/train2014/", "/labels/train2014/"),
    ("/images/val2014/", "/labels/val2014/"),
    ("\\JPEGImages\\", "\\labels\\"),
)
_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".bmp", ".BMP", ".ppm", ".PPM", ".tiff", ".TIFF")


class DataFile(NamedTuple):
    """A `.data` file: its options as they stand there, the first of a duplicate (option_list.c option_find)."""

    path: str
    options: dict[str, str]
    lines: dict[str, int]  # where each option stands

    def __getitem__(self, key: str) -> str:
        """The value of an option.

        Raises:
            DataError: there is no such option.
        """
        if key not in self.options:
            near = difflib.get_close_matches(key, self.options, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{self.path}: no `{key} = …` in this .data file{hint} (it has: {', '.join(self.options) or 'nothing'})"
            )
        return self.options[key]

    def file(self, key: str) -> str:
        """The path that an option names: as it is, from the current directory, or else beside the `.data` file."""
        return _from_here_or_beside(self[key], self.path)


class Labels(NamedTuple):
    """One label file. `malformed`: a message for each line that is no box, with file and line."""

    classes: Int64[np.ndarray, " boxes"]
    boxes: Float32[np.ndarray, "boxes cxcywh=4"]  # centre x, centre y, width, height relative to the image
    malformed: tuple[str, ...]


def read_darknet(source: DarknetSource, classes: tuple[str, ...]) -> Annotations:
    """Images, boxes and labels of one split (`train` or `valid`) of a `.data` file.

    Image ids are the line numbers of the list, from 1; category ids are Darknet's own, from 0: the lines of `.names`,
    which are matched to `classes` by name. With `difficult = LIST` in the `.data` (a list parallel to `valid`), the
    boxes in the label files of that list are ignored by the evaluation (detector.c validate_detector_map).

    Raises:
        FileNotFoundError: a file that the `.data` names, or itself, is missing.
        DataError: the `.data`, `.names` or list is malformed; numbers of classes disagree; no image has a label file.
    """
    data = read_data_file(source.data)
    names = class_names(data)
    list_path = data.file(source.split)
    images = read_image_list(list_path)
    found = _read_all(images, names, data.file("names"))
    missing = [image_id for image_id, labels in found.items() if labels is None]
    if len(missing) == len(images):
        first = next(iter(images.values()))
        raise DataError(
            f"{list_path}: none of its {len(images)} images has a label file; for {first} that is {label_path(first)} "
            "(beside the image; only /images/train2017/ and the like, and /JPEGImages/, become /labels/, as in Darknet)"
        )
    boxes = [(image_id, labels, False) for image_id, labels in found.items() if labels is not None]
    if source.split == "valid" and "difficult" in data.options:
        boxes += [(image_id, labels, True) for image_id, labels in _difficult(data, images, names)]
    counts = [len(labels.classes) for _, labels, _ in boxes]
    ignored = np.repeat(np.array([difficult for _, _, difficult in boxes], bool), counts)
    numbers = np.concatenate([labels.classes for _, labels, _ in boxes])
    return Annotations(
        where=f"{list_path} ({source.split} of {source.data})",
        image_ids=np.array(list(images), np.int64),
        image_paths=list(images.values()),
        image_sizes=np.zeros((len(images), 2), np.int32),
        box_image_ids=np.repeat(np.array([image_id for image_id, _, _ in boxes], np.int64), counts),
        boxes=np.full((len(numbers), 4), np.nan),
        areas=np.full(len(numbers), np.nan),
        labels=[names[number] for number in numbers.tolist()],
        ignored=ignored,
        trained=~ignored,
        category_ids=_own_ids(names, classes, data.file("names")),
        malformed=tuple((image_id, message) for image_id, labels, _ in boxes for message in labels.malformed),
        unlabelled=tuple(missing),
        relative=np.concatenate([labels.boxes for _, labels, _ in boxes]),
    )


def read_data_file(path: str) -> DataFile:
    """A `.data` file in Darknet's grammar: all white space is dropped, `#` and `;` begin a comment line.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a line is not `key = value`, with its number.
    """
    data = DataFile(path, {}, {})
    for number, line in _lines(path, "the .data file"):
        stripped = re.sub(r"[ \t\r]", "", line)
        if not stripped or stripped[0] in "#;":
            continue
        key, _, value = stripped.partition("=")
        if not key or not value:
            raise DataError(f"{path}:{number}: expected `key = value`, got {line.strip()[:_SHOWN]!r}")
        data.options.setdefault(key, value)
        data.lines.setdefault(key, number)
    return data


def class_names(data: DataFile) -> tuple[str, ...]:
    """The class names of a `.data` file: the lines of the file that it names under `names`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: an empty or repeated name, with its line; or not as many as the `.data`'s `classes`.
    """
    path = data.file("names")
    names, stated = read_names(path), data.options.get("classes")
    if stated not in (None, str(len(names))):
        raise DataError(f"{data.path}: classes = {stated}, but {path} has {len(names)} names; expected one a class")
    return names


def read_names(path: str) -> tuple[str, ...]:
    """Class names, one a line; empty lines at the end are none.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: there is no name, an empty line before the last name, or a name twice.
    """
    lines = [line.strip() for _, line in _lines(path, "the file of class names")]
    while lines and not lines[-1]:
        lines.pop()
    names: dict[str, int] = {}
    for number, name in enumerate(lines):
        if not name:
            raise DataError(f"{path}:{number + 1}: an empty line in place of the name of class {number}")
        if names.setdefault(name, number) != number:
            raise DataError(f"{path}:{number + 1}: {name!r} is the name of class {names[name]} too; give each its own")
    if not names:
        raise DataError(f"{path}: no class names in it; expected one a line")
    return tuple(names)


def read_image_list(path: str) -> dict[int, str]:
    """Line number -> image file. Empty lines count, but name nothing.

    Where the first image is not found from the current directory, but beside the list, all are taken from there.

    Raises:
        FileNotFoundError: there is no such list.
        DataError: it names no image, or one whose label file Darknet's rule cannot tell, with its line.
    """
    images = {number: line.strip() for number, line in _lines(path, "the list of images") if line.strip()}
    if not images:
        raise DataError(f"{path}: no images in it; expected one path a line")
    for number, image in images.items():
        if not image.endswith(_ENDINGS):
            raise DataError(f"{path}:{number}: {image[:_SHOWN]!r} is no image file; its name must end in .jpg or .png")
    first = next(iter(images.values()))
    if _from_here_or_beside(first, path) != first:
        folder = os.path.dirname(path)
        images = {number: os.path.join(folder, image) for number, image in images.items()}
    return images


def label_path(image_path: str) -> str:
    """The label file of an image, by Darknet's rule (utils.c replace_image_to_label): folder, then ending.

    >>> label_path("/data/VOC2007/JPEGImages/000001.jpg")
    '/data/VOC2007/labels/000001.txt'
    """
    path = image_path
    for folder, replacement in _FOLDERS:
        path = path.replace(folder, replacement, 1)
    path = path.strip(" \t")
    for ending in _ENDINGS:
        if path.endswith(ending):
            path = path[: -len(ending)] + ".txt"
    return path


def read_labels(path: str, classes: int, names_path: str) -> Labels:
    """The boxes of a label file: lines of class, centre x, centre y, width, height, relative to the image.

    Numbers become the nearest float32, as C's scanf reads them (data.c read_boxes). Ranges are not checked here.

    Args:
        classes: how many there are; `names_path` says where, in messages.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is not text.
    """
    numbers, boxes, malformed = [], [], []
    for line_number, line in _lines(path, "the label file"):
        fields = line.split()
        if not fields:
            continue
        fault = _fault(fields, classes, names_path)
        if fault:
            malformed.append(f"{path}:{line_number}: {fault}")
            continue
        numbers.append(int(fields[0]))
        boxes.append([float(field) for field in fields[1:]])
    return Labels(
        np.array(numbers, np.int64), np.array(boxes, np.float64).reshape(-1, 4).astype(np.float32), tuple(malformed)
    )


def _fault(fields: list[str], classes: int, names_path: str) -> str:
    """The fault of a line of a label file; an empty string if it has none."""
    shown = " ".join(fields)[:_SHOWN]
    if len(fields) != 5 or not all(_NUMBER.fullmatch(field) for field in fields[1:]):
        return f"expected `class cx cy width height`, five numbers; got {shown!r}"
    if not _INTEGER.fullmatch(fields[0]):
        return f"expected a class number first, a whole one; got {shown!r}"
    if len(fields[0]) > 9 or not 0 <= int(fields[0]) < classes:
        return f"class {fields[0][:_SHOWN]}, but {names_path} has {classes} names: expected 0 to {classes - 1}"
    if any(abs(float(field)) > _LARGEST for field in fields[1:]):
        return f"a number is beyond float32; got {shown!r}"
    return ""


def _read_all(images: dict[int, str], names: tuple[str, ...], names_path: str) -> dict[int, Labels | None]:
    """Image id -> its labels; none where there is no label file."""

    def read(image: str) -> Labels | None:
        try:
            return read_labels(label_path(image), len(names), names_path)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_READING_THREADS) as pool:
        return dict(zip(images, pool.map(read, images.values()), strict=True))


def _difficult(data: DataFile, images: dict[int, str], names: tuple[str, ...]) -> Iterator[tuple[int, Labels]]:
    """Image id and difficult boxes of the images that have some; the two lists are matched by order."""
    path = data.file("difficult")
    others = read_image_list(path)
    if len(others) != len(images):
        raise DataError(
            f"{path}: names {len(others)} images, but {data.file('valid')} names {len(images)}; `difficult` is a list "
            "of the same images in the same order, with their difficult objects in the label files"
        )
    labels = _read_all(others, names, data.file("names"))
    pairs = zip(images, labels.values(), strict=True)
    return ((image_id, of_image) for image_id, of_image in pairs if of_image is not None)


def _own_ids(names: tuple[str, ...], classes: tuple[str, ...], path: str) -> tuple[int, ...]:
    missing = [name for name in classes if name not in names]
    if missing:
        near = difflib.get_close_matches(missing[0], names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path}: no class is named {missing[0]!r} (data.classes){hint}; it has: {', '.join(names)}")
    return tuple(names.index(name) for name in classes)


def _lines(path: str, what: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of every line of a UTF-8 file.

    Raises:
        FileNotFoundError: there is no such file. DataError: it is not UTF-8.
    """
    text = read_bytes(path, what)
    try:
        return zip(itertools.count(1), text.decode("utf-8-sig").split("\n"), strict=False)
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from None


def _from_here_or_beside(path: str, file: str) -> str:
    """`path`, or, where that does not exist, the path as seen from the folder of `file`, if it exists there."""
    beside = os.path.join(os.path.dirname(file), path)
    return beside if not tf.io.gfile.exists(path) and tf.io.gfile.exists(beside) else path
