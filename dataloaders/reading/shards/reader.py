"""A split in shards: opened by its indices, read record by record. Neither pixels nor boxes are held in memory."""

import difflib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64, Shaped

from dataloaders.reading.annotations import DataError
from dataloaders.reading.checks import SHOWN_IDS, Finding, Report, refuse
from dataloaders.reading.dataset import Example, Examples, Truth, TruthForm, coco_dict, decode_example
from dataloaders.reading.shards.layout import (
    AGAIN,
    MANIFEST_FORMAT,
    Index,
    index_path,
    read_index,
    read_json,
    shard_paths,
)
from dataloaders.reading.shards.record import parse_example, parse_stored, truth_of
from official.core.errors import first_line

_LOG = logging.getLogger(__name__)
_OPENING_THREADS = 8
_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ShardedDataset:
    """One split in shards. In memory: 24 bytes an image, and 16 in a graph that reads its examples.

    Attributes:
        image_ids: the data set's own.
        most: training sees so many boxes of an image.
        conversion: identifies the conversion that wrote the shards.
        files: the shards; shard i has rows starts[i] to starts[i + 1].
        offsets, lengths: bytes of each record in its shard.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_ids: Int64[np.ndarray, " images"]
    most: int
    report: Report
    conversion: str
    files: tuple[str, ...]
    starts: Int64[np.ndarray, " bounds"]
    offsets: Int64[np.ndarray, " images"]
    lengths: Int64[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.image_ids)

    def fingerprint(self) -> str:
        """A hash that distinguishes this truth from any other."""
        return self.conversion

    def examples(self, form: TruthForm) -> Examples:
        """Reads a record at a time; boxes in that form."""
        return _ShardedExamples(self, form)

    def stored(self, rows: range) -> Iterator[tuple[Truth, bytes]]:
        """Truth and encoded image of these rows (one after the other), read in one go.

        Raises:
            DataError: naming the record that cannot be read.
        """
        first = self._shard(rows.start)
        records = tf.data.TFRecordDataset(list(self.files[first:])).skip(rows.start - int(self.starts[first]))
        parsed = records.take(len(rows)).map(tf.autograph.experimental.do_not_convert(parse_stored)).prefetch(8)
        row = rows.start
        try:
            for features in parsed.as_numpy_iterator():
                yield truth_of(features), features["image/encoded"]
                row += 1
        except tf.errors.OpError as error:
            raise self._unreadable(row, error) from None

    def ground_truth(self) -> dict[str, Any]:
        """The truth as a COCO dict, in the data set's own category ids; see `coco_dict`.

        For evaluation, which holds all truth anyway: the shards are read once, and then it is kept.
        """
        return coco_dict(self.class_names, self.category_ids, self._truths)

    @cached_property
    def _truths(self) -> tuple[Truth, ...]:
        return tuple(truth for truth, _ in self.stored(range(len(self))))

    def example_name(self, example_id: int) -> str:
        """The image file of an example id as its source called it, if that can be read, and the record."""
        rows = np.flatnonzero(self.image_ids == example_id).tolist()
        if not rows:
            return f"no image with id {example_id}"
        try:
            return f"{self._example(rows[0]).name.numpy().decode()} ({self.place(rows[0])})"
        except tf.errors.OpError:
            return self.place(rows[0])

    def place(self, row: int) -> str:
        """The place of a row, for messages: shard and record, counted from 0."""
        shard = self._shard(row)
        return f"{self.files[shard]}, record {row - self.starts[shard]}"

    def check(self, row: int) -> None:
        """Reads and decodes one record.

        Raises:
            DataError: naming shard and record; it cannot be read or decoded as it was written.
        """
        try:
            example = self._example(row)
            decode_example(example)
        except tf.errors.OpError as error:
            raise self._unreadable(row, error) from None
        if int(example.example_id) != self.image_ids[row]:
            remedy = self._remedy(self._shard(row))
            raise DataError(f"{self.place(row)}: is image {int(example.example_id)}; {remedy}")

    def _example(self, row: int) -> Example:
        """One record, by its offset: those before it do not matter."""
        numbers = map(tf.constant, (self.offsets[row], self.lengths[row]))
        record = read_record(tf.constant(self.files[self._shard(row)]), *numbers)
        return parse_example(record, "yxyx", tf.constant(self.most, tf.int64))

    def _shard(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _unreadable(self, row: int, error: tf.errors.OpError) -> DataError:
        where = f"{self.place(row)} (image id {self.image_ids[row]})"
        return DataError(f"{where}: cannot be read: {first_line(error)}. {self._remedy(self._shard(row))}")

    def _remedy(self, shard: int) -> str:
        return f"Delete {self.files[shard]} and the manifest. {AGAIN}"


class _ShardedExamples:
    """Examples that are records of shards."""

    def __init__(self, dataset: ShardedDataset, form: TruthForm) -> None:
        self._form, self._most = form, tf.constant(dataset.most, tf.int64)
        self._files, self._starts = tf.constant(dataset.files), tf.constant(dataset.starts)
        self._offsets, self._lengths = tf.constant(dataset.offsets), tf.constant(dataset.lengths)

    def __len__(self) -> int:
        return self._offsets.shape[0]

    def read(self, row: Int64[tf.Tensor, ""]) -> Example:
        shard = tf.searchsorted(self._starts, row[tf.newaxis], side="right")[0] - 1
        record = read_record(self._files[shard], self._offsets[row], self._lengths[row])
        return parse_example(record, self._form, self._most)


def read_record(
    file: Shaped[tf.Tensor, ""], offset: Int64[tf.Tensor, ""], length: Int64[tf.Tensor, ""]
) -> Shaped[tf.Tensor, ""]:
    """The data (scalar string) of the TFRecord that begins at `offset` of `file`; its CRCs are checked.

    Args:
        length: of the whole record, so that one request to the file system brings it.

    Raises:
        tf.errors.OpError: there is no whole record.
    """
    types = {"output_types": [tf.string], "output_shapes": [[]]}
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=file[tf.newaxis], compression_type="", buffer_size=length, byte_offsets=offset[tf.newaxis]
    )
    first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **types)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **types)[0]


def open_shards(
    manifest: str, classes: tuple[str, ...], on_bad: Literal["fail", "skip"], max_boxes: int | None
) -> ShardedDataset:
    """Opens a converted split: reads the manifest and the indices, and looks at each shard's size and first record.

    What was wrong in the source was decided when it was converted, and is in the manifest's report; `on_bad` applies to
    it as if the source were read now, and to images with more than `max_boxes` boxes.

    Raises:
        FileNotFoundError: no such manifest.
        DataError: a shard or index is missing, cut, or of something else; the classes are others; `on_bad` is "fail"
            and the report has faults.
    """
    content = read_json(manifest, "the manifest of a sharded split", MANIFEST_FORMAT)
    _check_classes(manifest, tuple(content["classes"]), classes)
    files = shard_paths(manifest, content["shards"])
    _check_there(manifest, files)
    with ThreadPoolExecutor(_OPENING_THREADS) as pool:
        indices = list(pool.map(lambda file: _open_shard(file, content["conversion"]), files))
    starts = np.cumsum([0] + [len(index.image_ids) for index in indices]).astype(np.int64)
    if [index.first for index in indices] != starts[:-1].tolist() or starts[-1] != content["images"]:
        raise DataError(f"{manifest}: its shards do not follow on each other; delete them all. {AGAIN}")
    dataset = ShardedDataset(
        class_names=classes,
        category_ids=tuple(content["category_ids"]),
        image_ids=np.concatenate([index.image_ids for index in indices]),
        most=_NO_LIMIT if max_boxes is None else max_boxes,
        report=_report(content["report"], manifest),
        conversion=content["conversion"],
        files=tuple(files),
        starts=starts,
        offsets=np.concatenate([index.offsets[:-1] for index in indices]),
        lengths=np.concatenate([np.diff(index.offsets) for index in indices]),
    )
    dataset = replace(dataset, report=_with_crowded(dataset, np.concatenate([index.trained for index in indices])))
    refuse(dataset.report, on_bad)
    if dataset.report.findings:
        _LOG.warning("%s", dataset.report)
    return dataset


def _check_classes(manifest: str, there: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if there == wanted:
        return
    if sorted(there) == sorted(wanted):
        raise DataError(
            f"{manifest}: has the classes of data.classes in another order; expected there: [{', '.join(there)}]"
        )
    unknown = [name for name in wanted if name not in there]
    near = difflib.get_close_matches(unknown[0], there, n=1) if unknown else []
    hint = f"; did you mean {near[0]!r} by {unknown[0]!r}?" if near else ""
    raise DataError(
        f"{manifest}: was converted with other classes than data.classes{hint}; the shards have: {', '.join(there)}. "
        "Take these, or convert from the source again with yours"
    )


def _check_there(manifest: str, files: list[str]) -> None:
    with ThreadPoolExecutor(_OPENING_THREADS) as pool:
        wanted = [path for file in files for path in (file, index_path(file))]
        missing = [path for path, there in zip(wanted, pool.map(tf.io.gfile.exists, wanted), strict=True) if not there]
    if missing:
        raise DataError(
            f"{manifest}: {len(missing)} of its {len(wanted)} files are missing: {', '.join(missing[:10])}"
            f"{' and more' if len(missing) > 10 else ''}. Delete the manifest. {AGAIN}"
        )


def _open_shard(file: str, conversion: str) -> Index:
    index, size = read_index(index_path(file)), tf.io.gfile.stat(file).length
    if index.conversion != conversion:
        raise DataError(f"{index_path(file)}: is the index of another conversion's shard; delete both. {AGAIN}")
    if size != index.offsets[-1]:
        whole = int(np.searchsorted(index.offsets, size, side="right")) - 1
        fault = f"is cut in or before record {whole}" if size < index.offsets[-1] else "is too long"
        raise DataError(
            f"{file}: {fault}: it has {size} bytes, its index says {index.offsets[-1]}. Delete it and the manifest. "
            f"{AGAIN}"
        )
    try:
        record = read_record(tf.constant(file), *map(tf.constant, (index.offsets[0], index.offsets[1])))
        example_id = int(parse_example(record, "yxyx", tf.constant(1, tf.int64)).example_id)
    except tf.errors.OpError as error:
        raise DataError(
            f"{file}: is no shard that `python -m tools.shards` wrote, but a foreign or damaged TFRecord: "
            f"{first_line(error)}. Delete it and the manifest. {AGAIN}"
        ) from None
    if example_id != index.image_ids[0]:
        raise DataError(
            f"{file}: its first record is image {example_id}, its index says {index.image_ids[0]}: they belong to "
            f"different shards. Delete both and the manifest. {AGAIN}"
        )
    return index


def _report(stored: dict[str, Any], manifest: str) -> Report:
    """The report of the conversion, as dataclasses.asdict made it plain."""
    findings = (
        Finding(**{**finding, "image_ids": tuple(finding["image_ids"]), "names": tuple(finding["names"])})
        for finding in stored["findings"]
    )
    return Report(**{**stored, "where": f"{manifest}, converted from {stored['where']}", "findings": tuple(findings)})


def _with_crowded(dataset: ShardedDataset, trained: Int32[np.ndarray, " images"]) -> Report:
    """The report, with the images that have more boxes than training can hold."""
    rows = np.flatnonzero(trained > dataset.most).tolist()
    if not rows:
        return dataset.report
    names = tuple(next(dataset.stored(range(row, row + 1)))[0].name.rpartition("/")[2] for row in rows[:SHOWN_IDS])
    crowded = Finding("too_many_boxes", len(rows), tuple(dataset.image_ids[rows].tolist()), names)
    return replace(dataset.report, findings=(*dataset.report.findings, crowded))
