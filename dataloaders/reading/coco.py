"""Reader of COCO's JSON (cocodataset.org, "Data format", object detection)."""

import difflib
import json
import os
from typing import Any

import numpy as np

from configs.data import CocoSource
from dataloaders.reading.annotations import Annotations, DataError, as_number, read_bytes


def read_coco(source: CocoSource, classes: tuple[str, ...]) -> Annotations:
    """Images, boxes and categories of one COCO file.

    A crowd region (`iscrowd` 1) stays in the evaluation's truth, where pycocotools ignores it; it is not trained unless
    the source says so.
    Categories are matched to `classes` by name, so that the gaps of COCO's own ids (80 classes, ids up to 90) never
    reach the model.

    Raises:
        FileNotFoundError: no such annotation file.
        DataError: it is not JSON (with line and column), lacks a key, or lacks a category of `classes`.
    """
    path = source.annotations
    content = _parse(read_bytes(path, "the COCO annotation file"), path)
    images = [_image(entry, f"{path}: images[{number}]") for number, entry in enumerate(_list(content, "images", path))]
    names = _category_names(_list(content, "categories", path), path)
    entries = _list(content, "annotations", path)
    boxes = [_annotation(entry, f"{path}: annotations[{number}]") for number, entry in enumerate(entries)]
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool)
    return Annotations(
        where=path,
        image_ids=np.array([image_id for image_id, _, _ in images], np.int64),
        image_paths=[os.path.join(source.images, name) for _, name, _ in images],
        image_sizes=np.array([size for _, _, size in images], np.int32).reshape(-1, 2),
        box_image_ids=np.array([image_id for image_id, _, _ in boxes], np.int64),
        boxes=np.array([box for _, _, box in boxes], np.float64).reshape(-1, 4),
        areas=np.array([as_number(entry.get("area")) for entry in entries], np.float64),
        labels=[names.get(category, f"category_id {category}") for _, category, _ in boxes],
        ignored=crowd,
        trained=~crowd | source.train_crowds,
        category_ids=_own_ids(names, classes, path),
    )


def categories_of(path: str) -> dict[int, str]:
    """Category id -> name of a COCO file. Errors as in `read_coco`."""
    return _category_names(_list(_parse(read_bytes(path, "the COCO annotation file"), path), "categories", path), path)


def _parse(text: bytes, path: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images, annotations and categories, got {_kind(content)}")
    return content


def _list(content: dict[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list):
        found = "it is missing" if key not in content else f"got {_kind(value)}"
        raise DataError(f"{path}: expected a list under {key!r}, {found}; keys there: {', '.join(content)}")
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {key}[{number}]: expected an object, got {_kind(entry)}")
    return value


def _image(entry: dict[str, Any], where: str) -> tuple[int, str, tuple[int, int]]:
    height, width = (as_number(entry.get(key, 0)) for key in ("height", "width"))
    known = 0 < height < 2**31 and 0 < width < 2**31
    name = _value(entry, "file_name", str, where)
    return _value(entry, "id", int, where), name, (int(height), int(width)) if known else (0, 0)


def _annotation(entry: dict[str, Any], where: str) -> tuple[int, int, list[float]]:
    box = entry.get("bbox")
    numbers = [as_number(value) for value in box] if isinstance(box, list) and len(box) == 4 else [float("nan")] * 4
    return _value(entry, "image_id", int, where), _value(entry, "category_id", int, where), numbers


def _category_names(entries: list[dict[str, Any]], path: str) -> dict[int, str]:
    where = [f"{path}: categories[{number}]" for number in range(len(entries))]
    return {_value(e, "id", int, w): _value(e, "name", str, w) for e, w in zip(entries, where, strict=True)}


def _own_ids(names: dict[int, str], classes: tuple[str, ...], path: str) -> tuple[int, ...]:
    ids = {name: category for category, name in names.items()}
    missing = [name for name in classes if name not in ids]
    if missing:
        near = difflib.get_close_matches(missing[0], ids, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path}: no category is named {missing[0]!r} (data.classes){hint}; it has: {', '.join(ids)}")
    return tuple(ids[name] for name in classes)


def _value(entry: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "it is missing" if key not in entry else f"got {value!r}"
        raise DataError(f"{where}: expected {key!r} to be {'an integer' if kind is int else 'text'}, {found}")
    return value


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null"}.get(type(value), repr(value))
