"""Files of a sharded split NAME: NAME.json (the manifest, written last), its shards, an offset index beside each.

    NAME.json
    NAME-00000-of-00012.tfrecord    standard TFRecord: length, CRC, bytes of a tf.train.Example (see record.py), CRC
    NAME-00000-of-00012.index.json  where each record begins, its image's id, how many boxes training has in it

An index is written when its shard is complete; so what has no index is not there.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from dataloaders.reading.annotations import DataError, read_bytes
from official.core.checkpoint import write_text

MANIFEST_FORMAT, INDEX_FORMAT = "detection shards, version 1", "index of a detection shard, version 1"
RECORD_FRAME = 16  # bytes of a TFRecord around its data: length (8), CRC of it (4); CRC of the data (4)
AGAIN = "Convert again: the same `python -m tools.shards` command writes what is missing"


@dataclass(frozen=True)
class Index:
    """The places of a shard's records. Record i is bytes offsets[i] to offsets[i + 1]; the last is the file's size.

    Attributes:
        conversion: identifies the conversion that wrote the shard.
        first: row in the split of record 0.
        trained: how many boxes of each image training sees.
    """

    conversion: str
    first: int
    image_ids: Int64[np.ndarray, " records"]
    trained: Int32[np.ndarray, " records"]
    offsets: Int64[np.ndarray, " bounds"]


def shard_paths(manifest: str, count: int) -> list[str]:
    """The shards of the split that a manifest is of."""
    stem = manifest.removesuffix(".json")
    return [f"{stem}-{number:05d}-of-{count:05d}.tfrecord" for number in range(count)]


def index_path(shard: str) -> str:
    return f"{shard.removesuffix('.tfrecord')}.index.json"


def write_index(path: str, index: Index) -> None:
    write_text(
        path,
        json.dumps(
            {
                "format": INDEX_FORMAT,
                "conversion": index.conversion,
                "first": index.first,
                "records": len(index.image_ids),
                "bytes": int(index.offsets[-1]),
                "offsets": index.offsets[:-1].tolist(),
                "image_ids": index.image_ids.tolist(),
                "trained_boxes": index.trained.tolist(),
            }
        ),
    )


def read_index(path: str) -> Index:
    """The index of a shard.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is none, or damaged.
    """
    content = read_json(path, "the index of a shard", INDEX_FORMAT)
    try:
        index = Index(
            content["conversion"],
            content["first"],
            np.array(content["image_ids"], np.int64),
            np.array(content["trained_boxes"], np.int32),
            np.array([*content["offsets"], content["bytes"]], np.int64),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: damaged, it has no good {error}. Delete it. {AGAIN}") from None
    lengths = {len(index.offsets) - 1, len(index.image_ids), len(index.trained), content.get("records")}
    if len(lengths) != 1 or (np.diff(index.offsets) < RECORD_FRAME).any() or index.offsets[0] != 0:
        raise DataError(f"{path}: damaged, its lists do not fit together. Delete it. {AGAIN}")
    return index


def read_json(path: str, what: str, expected_format: str) -> dict[str, Any]:
    """A JSON object that says it is of the format.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is anything else.
    """
    text = read_bytes(path, what)
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    found = content.get("format") if isinstance(content, dict) else None
    if found != expected_format:
        said = f"says {found!r}" if found else "is something else (a TFRecord of another origin must be converted)"
        raise DataError(
            f"{path}: is not {what} as `python -m tools.shards` writes it: expected JSON whose `format` is "
            f"{expected_format!r}, the file {said}"
        )
    return content
