"""Reader of Pascal VOC's XML, in the folder layout of the VOC development kit."""

import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import tensorflow as tf

from configs.data import VocSource
from dataloaders.reading.annotations import Annotations, DataError, as_number, read_bytes

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
Object = tuple[str, list[float], bool]  # label, x y width height in pixels, difficult


def read_voc(source: VocSource, classes: tuple[str, ...]) -> Annotations:
    """Images, boxes and labels of one split.

    Image ids are the line numbers of the split file, from 1. Corners in the files count pixels from 1 and include the
    last one (VOC development kit), so x = xmin - 1, y = ymin - 1 and the right and bottom edges are xmax and ymax.
    Where min and max coincide there is no box of one pixel but no extent at all, as labelling tools write for a click:
    checks.py reports it. Files that count from 0 are a pixel off at the left and top, which checks.py clips.
    "Difficult" objects are trained, and ignored by the evaluation, as the development kit does. (Darknet's voc_label.py
    leaves them out of training.) Category ids are 1, 2, ... in the order of `classes`.

    Raises:
        FileNotFoundError: no such split or annotation file.
        DataError: an XML file is malformed, lacks an object's name or box, or declares a document type; the split file
            is not UTF-8.
    """
    names = _split_names(source)
    files = _image_files(os.path.join(source.root, "JPEGImages"))
    sizes, objects, box_image_ids = [], [], []
    for image_id, name in names.items():
        size, found = _read_xml(os.path.join(source.root, "Annotations", f"{name}.xml"))
        sizes.append(size)
        objects.extend(found)
        box_image_ids.extend([image_id] * len(found))
    difficult = np.array([is_difficult for _, _, is_difficult in objects], bool)
    return Annotations(
        where=f"{source.root} ({source.split})",
        image_ids=np.array(list(names), np.int64),
        image_paths=[
            os.path.join(source.root, "JPEGImages", files.get(os.path.basename(name), f"{name}.jpg"))
            for name in names.values()
        ],
        image_sizes=np.array(sizes, np.int32).reshape(-1, 2),
        box_image_ids=np.array(box_image_ids, np.int64),
        boxes=np.array([box for _, box, _ in objects], np.float64).reshape(-1, 4),
        areas=np.full(len(objects), np.nan),
        labels=[label for label, _, _ in objects],
        ignored=difficult,
        trained=np.ones(len(objects), bool),
        category_ids=tuple(range(1, len(classes) + 1)),
    )


def _split_names(source: VocSource) -> dict[int, str]:
    """Line number -> image name; empty lines count, but name nothing."""
    folder = os.path.join(source.root, "ImageSets", "Main")
    path = os.path.join(folder, f"{source.split}.txt")
    if not tf.io.gfile.exists(path):
        there = sorted(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else []
        splits = ", ".join(name[:-4] for name in there if name.endswith(".txt")) or f"none in {folder}"
        raise FileNotFoundError(f"no VOC split {source.split!r}: {path} does not exist; splits there: {splits}")
    text = read_bytes(path, "the VOC split file")
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    return {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}


def _image_files(folder: str) -> dict[str, str]:
    """Image name -> file name; the development kit has .jpg only, data sets in its layout also have others."""
    if not tf.io.gfile.isdir(folder):
        raise FileNotFoundError(f"no folder of images: {folder} does not exist (VOC layout: root/JPEGImages)")
    stems = (os.path.splitext(name) for name in sorted(tf.io.gfile.listdir(folder), reverse=True))
    return {stem: stem + ending for stem, ending in stems if ending.lower() in _IMAGE_ENDINGS}


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type before its entities are read: a few lines of them can expand to gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"declares a document type (<!DOCTYPE {name}>), which VOC annotations never do; remove it")


def _read_xml(path: str) -> tuple[tuple[int, int], list[Object]]:
    """(height, width), or (0, 0) where it does not say, and the objects."""
    text = read_bytes(path, "the VOC annotation file")
    try:
        root = ElementTree.fromstring(text, parser=ElementTree.XMLParser(target=_NoDoctype()))
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(f"{path}, line {line}, column {column + 1}: not valid XML: {error.msg}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    height, width = (as_number(root.findtext(f"size/{key}")) for key in ("height", "width"))
    known = 0 < height < 2**31 and 0 < width < 2**31
    objects = [_object(entry, f"{path}: object {n}") for n, entry in enumerate(root.findall("object"), start=1)]
    return (int(height), int(width)) if known else (0, 0), objects


def _object(entry: ElementTree.Element, where: str) -> Object:
    label = (entry.findtext("name") or "").strip()
    if not label or entry.find("bndbox") is None:
        raise DataError(f"{where}: expected <name> and <bndbox>, one of them is missing")
    x1, y1, x2, y2 = (as_number(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
    x, y = (x1 - 1 if x2 > x1 else x1), (y1 - 1 if y2 > y1 else y1)
    return label, [x, y, x2 - x, y2 - y], (entry.findtext("difficult") or "0").strip() == "1"
