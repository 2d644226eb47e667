"""Writing a split as shards: in parallel, whole shards or none, on from where a killed conversion stopped."""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf

from dataloaders.reading.annotations import DataError
from dataloaders.reading.dataset import DetectionDataset
from dataloaders.reading.shards.layout import (
    MANIFEST_FORMAT,
    RECORD_FRAME,
    Index,
    index_path,
    read_index,
    read_json,
    shard_paths,
    write_index,
)
from dataloaders.reading.shards.record import serialize
from official.core.checkpoint import write_json
from official.core.progress import progress

STARTED_FORMAT = "unfinished conversion to detection shards, version 1"
IMAGES_PER_SHARD = 1_000  # of COCO: 160 MB
_WORKERS = 8
Advance = Callable[[int], None]


def write_shards(
    open_split: Callable[[], DetectionDataset],
    request: dict[str, Any],
    directory: str,
    name: str,
    shards: int | None = None,
    workers: int | None = None,
) -> str:
    """Writes a split as shards and returns their manifest; does nothing if they are there.

    The same split and number of shards give the same bytes. A shard that an earlier, killed conversion finished is not
    written again.

    Args:
        open_split: called only if something is to be written.
        request: what is converted and how (JSON values). Another one for the same `directory` and `name` is an error.
        shards: into how many; none: of about 1,000 images each.
        workers: shards written at a time; none: 8.

    Raises:
        DataError: there are shards of another request or of other annotations, or more shards than images; or an image
            cannot be read.
    """
    manifest, started = f"{directory.rstrip('/')}/{name}.json", f"{directory.rstrip('/')}/{name}.unfinished.json"
    request = {**request, "shards": shards}
    if tf.io.gfile.exists(manifest):
        content = read_json(manifest, "the manifest of a sharded split", MANIFEST_FORMAT)
        _check_same(manifest, content["request"], request)
        return manifest
    if tf.io.gfile.exists(started):
        _check_same(started, read_json(started, "a conversion's mark", STARTED_FORMAT)["request"], request)
    split = open_split()
    count = shards or max(1, round(len(split) / IMAGES_PER_SHARD))
    if count > len(split):
        raise DataError(f"{manifest}: {count} shards for {len(split)} images; expected no more shards than images")
    conversion = hashlib.sha256(f"{json.dumps(request, sort_keys=True)} {split.fingerprint()}".encode()).hexdigest()
    _start(started, request, conversion, directory)
    bounds = [len(split) * number // count for number in range(count + 1)]
    parts = [range(*ends) for ends in itertools.pairwise(bounds)]
    _write_missing(split, dict(zip(shard_paths(manifest, count), parts, strict=True)), conversion, workers or _WORKERS)
    write_json(
        manifest,
        {
            "format": MANIFEST_FORMAT,
            "images": len(split),
            "shards": count,
            "classes": list(split.class_names),
            "category_ids": list(split.category_ids),
            "conversion": conversion,
            "request": request,
            "report": asdict(split.report),
        },
    )
    tf.io.gfile.remove(started)
    return manifest


def _check_same(path: str, there: dict[str, Any], request: dict[str, Any]) -> None:
    different = [key for key in {**there, **request} if there.get(key) != request.get(key)]
    if different:
        told = "; ".join(f"{key} was {there.get(key)!r}, now {request.get(key)!r}" for key in different)
        raise DataError(
            f"{path}: is of a conversion with other settings: {told}. Repeat these, name another folder, or delete it "
            "and its shards"
        )


def _start(started: str, request: dict[str, Any], conversion: str, directory: str) -> None:
    """Leaves a mark of what is being converted, until the manifest takes its place."""
    if not tf.io.gfile.exists(started):
        tf.io.gfile.makedirs(directory)
        write_json(started, {"format": STARTED_FORMAT, "request": request, "conversion": conversion})
    elif read_json(started, "a conversion's mark", STARTED_FORMAT).get("conversion") != conversion:
        raise DataError(
            f"{started}: the annotations have changed since this conversion began; delete it and the shards beside it"
        )


def _write_missing(split: DetectionDataset, parts: dict[str, range], conversion: str, workers: int) -> None:
    missing = {path: rows for path, rows in parts.items() if not _is_there(path, conversion)}
    done, lock, stop = len(split) - sum(map(len, missing.values())), threading.Lock(), threading.Event()
    with progress(f"writing {len(parts)} shards", len(split), done) as advance, ThreadPoolExecutor(workers) as pool:

        def count(images: int) -> None:
            if stop.is_set():
                raise InterruptedError
            with lock:
                advance(images, "")

        written = [pool.submit(_write_shard, split, path, rows, conversion, count) for path, rows in missing.items()]
        try:
            finished, _ = wait(written, return_when=FIRST_EXCEPTION)
        finally:  # whatever ended the waiting, the first failure or Ctrl-C: nothing more is begun
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        for future in finished:
            future.result()


def _is_there(shard: str, conversion: str) -> bool:
    """True if an earlier attempt has finished the shard."""
    if not (tf.io.gfile.exists(index_path(shard)) and tf.io.gfile.exists(shard)):
        return False
    index = read_index(index_path(shard))
    return index.conversion == conversion and int(index.offsets[-1]) == tf.io.gfile.stat(shard).length


def _write_shard(split: DetectionDataset, path: str, rows: range, conversion: str, advance: Advance) -> None:
    """The shard, and then its index, each under another name until it is whole."""
    lengths, image_ids, trained = [], [], []
    with tf.io.TFRecordWriter(f"{path}.tmp") as writer:
        for record, image_id, boxes in _records(split, rows):
            writer.write(record)
            lengths.append(len(record) + RECORD_FRAME)
            image_ids.append(image_id)
            trained.append(boxes)
            advance(1)
    tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    index = Index(conversion, rows.start, np.array(image_ids, np.int64), np.array(trained, np.int32), offsets)
    write_index(index_path(path), index)


def _records(split: DetectionDataset, rows: range) -> Iterator[tuple[bytes, int, int]]:
    """Record, image id, number of trained boxes."""
    for truth, encoded in split.stored(rows):
        yield serialize(truth, encoded, split.class_names), truth.image_id, int(truth.trained.sum())
