"""Reader of TensorFlow Datasets: any prepared builder that has `image` and `objects`."""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from configs.data import TfdsSource
from dataloaders.reading.annotations import Annotations, DataError
from dataloaders.reading.files import FileDataset
from dataloaders.reading.image_header import ImageLook, look_at_bytes
from official.core.errors import first_line
from official.core.progress import track


def read_tfds(source: TfdsSource, classes: tuple[str, ...]) -> Annotations:
    """Images, boxes and labels of one split, in the order of the builder's files; all of it is read once.

    `objects/bbox` is ymin, xmin, ymax, xmax relative to the image, in float32: pixels come from these, so they are as
    exact as TFDS keeps them. `objects/label` is matched to `classes` by name; category ids are TFDS's own numbers of
    the labels, from 0. Image ids are `image/id` where that is a number, or else count from 1. Objects with `is_crowd`
    are ignored by the evaluation and not trained, those with `is_difficult` ignored and trained, as COCO's and VOC's
    readers have it.

    Raises:
        DataError: there is no such builder, or it is not prepared; no such split; it has no `objects` with `bbox` and
            `label`, or no `image`; its labels lack one of `classes`.
    """
    builder = _builder(source)
    names = _label_names(builder.info.features, source)
    category_ids = _own_ids(names, classes, source)
    images = builder.info.splits[source.split].num_examples
    examples = track(_read(builder, source), f"reading {_where(source)}", images)
    found = [_annotation(example, row) for row, example in enumerate(examples)]
    looks = [look for _, look, _ in found]
    objects = [objects for _, _, objects in found]
    image_ids = np.array([image_id for image_id, _, _ in found], np.int64)
    counts = [len(of_image["label"]) for of_image in objects]
    sizes = np.repeat(np.array([look.size for look in looks], np.int64).reshape(-1, 2), counts, axis=0)
    boxes = np.concatenate([np.zeros((0, 4)), *(of_image["bbox"] for of_image in objects)]).astype(np.float64)
    top, left, bottom, right = (boxes * np.tile(sizes, 2)).T  # pixels
    crowd, difficult = (_column(objects, name, 0.0) > 0 for name in ("is_crowd", "is_difficult"))
    return Annotations(
        where=_where(source),
        image_ids=image_ids,
        image_paths=[_place(source, row) for row in range(len(found))],
        image_sizes=np.zeros((len(found), 2), np.int32),
        box_image_ids=np.repeat(image_ids, counts),
        boxes=np.stack([left, top, right - left, bottom - top], axis=1),
        areas=_column(objects, "area", np.nan),
        labels=[names[number] for of_image in objects for number in of_image["label"]],
        ignored=crowd | difficult,
        trained=~crowd,
        category_ids=category_ids,
        looks=tuple(looks),
    )


@dataclass(frozen=True)
class TfdsDataset(FileDataset):
    """Truth in memory, images in TFDS's files, which are read from their start: to be converted, not to be trained on.

    Attributes:
        image_paths: the place of each image in the split, see `_place`.
    """

    source: TfdsSource

    def encoded(self, rows: range) -> Iterator[bytes]:
        """The encoded images of these rows, one after the other."""
        wanted = [int(path[path.rindex("[") + 1 : -1]) for path in self.image_paths[rows.start : rows.stop]]
        if not wanted:
            return
        first, chosen = wanted[0], set(wanted)
        for number, example in enumerate(_read(_builder(self.source), self.source, f"[{first}:{wanted[-1] + 1}]")):
            if first + number in chosen:
                yield example["image"]


def _where(source: TfdsSource) -> str:
    return f"tfds {source.name} ({source.split})"


def _place(source: TfdsSource, row: int) -> str:
    """The name of an image: TFDS's own words for this part of a split."""
    return f"{source.name}:{source.split}[{row}]"


def _builder(source: TfdsSource) -> Any:
    """A prepared builder that has the split."""
    import tensorflow_datasets as tfds  # takes seconds, and only this source needs it

    folder = os.path.expanduser(source.data_dir or "~/tensorflow_datasets")
    try:
        builder = tfds.builder(source.name, data_dir=source.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        prepared = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
        known = [*(name.strip("/") for name in prepared), *tfds.list_builders(with_community_datasets=False)]
        hint = _nearest(re.split("[/:]", source.name)[0], known)
        raise DataError(f"tfds knows no data set {source.name!r}, neither in {folder} nor of its own{hint}") from None
    except (ValueError, AssertionError, ImportError) as error:
        raise DataError(f"tfds cannot make the builder {source.name!r}: {first_line(error)}") from None
    splits = list(builder.info.splits)
    if not splits:
        raise DataError(
            f"tfds {source.name}: is not prepared in {folder}; run `tfds build {source.name} --data_dir {folder}` first"
        )
    if source.split not in splits:
        hint = _nearest(source.split, splits)
        raise DataError(f"tfds {source.name}: no split is named {source.split!r}{hint}; it has: {', '.join(splits)}")
    return builder


def _label_names(features: Any, source: TfdsSource) -> list[str]:
    """The names of the labels, of a builder that has all that is needed."""
    import tensorflow_datasets as tfds

    top = _as_dict(features)
    objects = _as_dict(getattr(top.get("objects"), "feature", top.get("objects")))  # of each element of the sequence
    wanted = [
        ("image", top.get("image"), tfds.features.Image),
        ("objects/bbox", objects.get("bbox"), tfds.features.BBoxFeature),
        ("objects/label", objects.get("label"), tfds.features.ClassLabel),
    ]
    missing = [f"{name} ({kind.__name__})" for name, found, kind in wanted if not isinstance(found, kind)]
    if missing:
        there = ", ".join([*top, *(f"objects/{name}" for name in objects)]) or f"one {type(features).__name__}"
        raise DataError(
            f"tfds {source.name}: has no boxes to train a detector on: it lacks {', '.join(missing)}; it has: {there}"
        )
    return list(objects["label"].names)


def _as_dict(features: Any) -> dict[str, Any]:
    return dict(features.items()) if hasattr(features, "items") else {}


def _read(builder: Any, source: TfdsSource, part: str = "") -> Iterator[dict[str, Any]]:
    """The examples of a split, or of `part` of it ("[5:9]"), in the order of the files, images encoded as they are."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=f"{source.split}{part}",
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    return iter(tfds.as_numpy(dataset))


def _annotation(example: dict[str, Any], row: int) -> tuple[int, ImageLook, dict[str, Any]]:
    """Image id, what a look at the image found, objects."""
    stated = example.get("image/id")
    image_id = int(stated) if isinstance(stated, np.integer) else row + 1
    return image_id, look_at_bytes(example["image"]), example["objects"]


def _column(objects: list[dict[str, Any]], name: str, otherwise: float) -> np.ndarray:
    """One number of each object of all images."""
    return np.concatenate(
        [np.zeros(0), *(np.asarray(one.get(name, [otherwise] * len(one["label"])), np.float64) for one in objects)]
    )


def _own_ids(names: list[str], classes: tuple[str, ...], source: TfdsSource) -> tuple[int, ...]:
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(
            f"tfds {source.name}: no label is named {missing[0]!r} (data.classes){_nearest(missing[0], names)}; "
            f"it has: {', '.join(names)}"
        )
    return tuple(names.index(name) for name in classes)


def _nearest(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
