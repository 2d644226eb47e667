"""Opens a data source: files of any format become one checked `DetectionDataset`.

Each format has a reader, which states what its files hold (annotations.py); checks.py judges it; files.py or
shards/reader.py gives access to what is left.
"""

from functools import partial
from typing import Literal

import numpy as np

from configs.data import Source, TfdsSource, TfRecordSource
from dataloaders.reading.annotations import Annotations, DataError
from dataloaders.reading.checks import check, rows_of_images
from dataloaders.reading.coco import read_coco
from dataloaders.reading.darknet import read_darknet
from dataloaders.reading.dataset import DetectionDataset
from dataloaders.reading.files import FileDataset
from dataloaders.reading.shards.reader import open_shards
from dataloaders.reading.shards.write import write_shards
from dataloaders.reading.tfds import TfdsDataset, read_tfds
from dataloaders.reading.voc import read_voc

READERS = {"coco": read_coco, "voc": read_voc, "darknet": read_darknet, "tfds": read_tfds}  # by the source's `type`
OnBad = Literal["fail", "skip"]


def read_source(config: Source, classes: tuple[str, ...]) -> Annotations:
    """One split's annotations as its files state them; nothing is checked yet.

    Args:
        classes: names of the classes, in the order of the contiguous class ids.

    Raises:
        FileNotFoundError: an annotation file is missing.
        DataError: an annotation file is malformed, a class is named twice, or the images are no files of their own.
    """
    _check_names(classes)
    if isinstance(config, TfRecordSource | TfdsSource):
        raise DataError(
            f"source.type {config.type}: its images are no files, and its boxes passed the checks when it was "
            "converted; look at the files that it was made of"
        )
    return READERS[config.type](config, classes)


def open_source(config: Source, classes: tuple[str, ...], on_bad: OnBad, max_boxes: int | None) -> DetectionDataset:
    """Reads and checks one split's annotations.

    A TFDS builder is converted to shards at its first use: its files can only be read from their start.

    Args:
        classes: names of the classes, in the order of the contiguous class ids.
        on_bad: whether anything wrong in the data is an error, or dropped and reported; see checks.py.
        max_boxes: boxes of one image that training can hold; none: no limit, for evaluation.

    Raises:
        FileNotFoundError: an annotation file is missing.
        DataError: an annotation file is malformed, a shard is damaged or missing, or the data has faults and `on_bad`
            is "fail".
    """
    _check_names(classes)
    match config:
        case TfRecordSource():
            return open_shards(config.manifest, classes, on_bad, max_boxes)
        case TfdsSource():
            request = {"source": config.model_dump(mode="json"), "classes": list(classes), "on_bad": on_bad}
            manifest = write_shards(
                lambda: _read_and_check(config, classes, on_bad, None), request, config.shards, config.split
            )
            return open_shards(manifest, classes, on_bad, max_boxes)
    return _read_and_check(config, classes, on_bad, max_boxes)


def split_to_convert(config: Source, classes: tuple[str, ...], on_bad: OnBad) -> DetectionDataset:
    """The data set that a conversion to shards reads: every checked image and box. Errors as in `open_source`."""
    _check_names(classes)
    if isinstance(config, TfRecordSource):
        return open_shards(config.manifest, classes, on_bad, None)
    return _read_and_check(config, classes, on_bad, None)


def _check_names(classes: tuple[str, ...]) -> None:
    if len(set(classes)) != len(classes):
        raise DataError(f"data.classes names a class twice: {', '.join(classes)}")


def _read_and_check(config: Source, classes: tuple[str, ...], on_bad: OnBad, max_boxes: int | None) -> FileDataset:
    found, box_classes, report = check(READERS[config.type](config, classes), classes, on_bad, max_boxes)
    kind = partial(TfdsDataset, source=config) if isinstance(config, TfdsSource) else FileDataset
    return kind(
        class_names=classes,
        category_ids=found.category_ids,
        image_ids=found.image_ids,
        image_paths=found.image_paths,
        image_sizes=found.image_sizes,
        splits=np.searchsorted(rows_of_images(found), np.arange(len(found.image_ids) + 1)).astype(np.int64),
        pixel_boxes=found.boxes,
        areas=found.areas,
        classes=box_classes,
        ignored=found.ignored,
        trained=found.trained,
        native=found.relative,
        report=report,
    )
