"""Images that occur twice: the same bytes, or the same picture after a new encoding, a resize, a change of brightness.

A picture's hash is the signs of its 64 lowest frequencies (DCT of a 32 x 32 grey version; Zauner 2010, "perceptual
hash"). Pictures whose hashes differ in at most 7 bits must also correlate, so that likeness of layout alone does not
count. Such pairs agree in at least one of 8 bytes (pigeonhole): only those are compared, not all pairs.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8, UInt64

from tools.doctor.findings import Finding
from tools.doctor.images import THUMBNAIL
from tools.doctor.splits import SplitData

MOST_BITS = 7
_BANDS, _BAND_BITS = MOST_BITS + 1, 64 // (MOST_BITS + 1)
LEAST_CORRELATION = 0.95  # different photographs of COCO reach 0.7, a copy at JPEG quality 10 0.986
_LEAST_SPREAD = 2.0  # levels; a flat picture has no structure to compare
_CHUNK = 2**22  # comparisons held at a time


def picture_hashes(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> UInt64[np.ndarray, " n"]:
    """64 bits each."""
    place = np.arange(THUMBNAIL)
    cosines = np.cos(np.pi / THUMBNAIL * np.outer(np.arange(11), place + 0.5)).astype(np.float32)  # [11, 32]
    frequencies = cosines @ thumbnails.astype(np.float32) @ cosines.T  # [n, 11, 11]
    total = np.add.outer(np.arange(11), np.arange(11)).ravel()
    lowest = np.argsort(total, kind="stable")[1:65]  # the first is the mean
    bits = (frequencies.reshape(-1, 121)[:, lowest] > 0).astype(np.uint8)  # [n, 64]
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64).ravel()


def likeness_before(thumbnails: UInt8[np.ndarray, "n 32 32"], preferred: int) -> Int64[np.ndarray, " n"]:
    """For each picture an earlier one that is like it, or its own number.

    preferred: so many at the start; a picture that is like one of these gets such a one.
    """
    hashes, shapes = picture_hashes(thumbnails), _shapes(thumbnails)
    before = np.arange(len(hashes))
    for band in range(_BANDS):
        key = (hashes >> np.uint64(band * _BAND_BITS) & np.uint64(2**_BAND_BITS - 1)).astype(np.int64)
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        for bucket in (part for part in np.split(order, starts[1:]) if len(part) > 1):
            _compare(bucket, hashes, shapes, before, preferred)
    return before


def _compare(
    bucket: Int64[np.ndarray, " m"],
    hashes: UInt64[np.ndarray, " n"],
    shapes: Float32[np.ndarray, "n 256"],
    before: Int64[np.ndarray, " n"],
    preferred: int,
) -> None:
    """Enters into `before` what the pictures of a bucket, in ascending order, are like in it."""
    # Once a picture has an answer, only one of the preferred could be a better one.
    open_rows = np.flatnonzero((before[bucket] == bucket) | ((bucket >= preferred) & (before[bucket] >= preferred)))
    step = max(1, _CHUNK // len(bucket))
    for start in range(0, len(open_rows), step):
        places = open_rows[start : start + step]
        rows = bucket[places]
        alike = np.bitwise_count(hashes[rows, np.newaxis] ^ hashes[bucket]) <= MOST_BITS  # [rows, m]
        alike &= bucket < rows[:, np.newaxis]
        some = alike.any(1)
        rows, alike = rows[some], alike[some]  # most have none
        alike &= shapes[rows] @ shapes[bucket].T >= LEAST_CORRELATION
        some = alike.any(1)
        rows, earlier = rows[some], bucket[alike.argmax(1)[some]]
        before[rows] = np.minimum(before[rows], earlier)


def _shapes(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> Float32[np.ndarray, "n 256"]:
    """16 x 16 pixels each, of mean 0 and length 1, so that a product is a correlation; 0 where all is flat."""
    small = thumbnails.reshape(-1, 16, 2, 16, 2).mean((2, 4), dtype=np.float32).reshape(-1, 256)
    small -= small.mean(1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    return np.where(length > _LEAST_SPREAD * 16, small / np.maximum(length, 1e-6), 0)  # 16: root of 256 pixels


def duplicate_findings(splits: Sequence[SplitData]) -> list[Finding]:
    """Within each split, and between the first, which trains, and the others."""
    rows = [(number, row) for number, data in enumerate(splits) for row in np.flatnonzero(data.kept).tolist()]
    split_of = np.array([number for number, _ in rows], np.int64)
    facts = [splits[number].images[row] for number, row in rows]
    paths = [splits[number].stated.image_paths[row] for number, row in rows]
    digests: dict[bytes, int] = {}
    same = np.array([digests.setdefault(one.digest, place) for place, one in enumerate(facts)], np.int64)
    # Copies of one file are told apart from likeness: only the first of them is compared.
    unique = np.flatnonzero(same == np.arange(len(same)))
    preferred = int((split_of[unique] == 0).sum())
    thumbnails = np.array([facts[place].thumbnail for place in unique], np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
    like = unique[likeness_before(thumbnails, preferred)]
    alike = same.copy()
    alike[unique] = like
    findings = []
    for earlier, is_copy in ((same, True), (np.where(same == np.arange(len(same)), alike, -1), False)):
        twice = (earlier >= 0) & (earlier < np.arange(len(same)))
        leaks = twice & (split_of > 0) & (split_of[earlier] == 0)
        findings += _leak(splits, paths, split_of, earlier, leaks, is_copy)
        findings += _within(splits, paths, split_of, earlier, twice & ~leaks, is_copy)
    return findings


def _pairs(paths: list[str], earlier: Int64[np.ndarray, " n"], chosen: Bool[np.ndarray, " n"]) -> tuple[str, ...]:
    places = np.flatnonzero(chosen)
    return tuple(f"{paths[place]} = {paths[earlier[place]]}" for place in places)


def _leak(splits, paths, split_of, earlier, leaks, is_copy: bool) -> list[Finding]:
    if not leaks.any():
        return []
    places = np.flatnonzero(leaks)
    same_file = all(paths[place] == paths[earlier[place]] for place in places)
    cause = "random division of frames, bursts or augmented copies into splits"
    if is_copy:
        cause = "both splits read the same files" if same_file else "a file was copied into both splits"
    names = f"{splits[0].name}, {', '.join(data.name for data in splits[1:])}"
    what = "are byte for byte in training, too" if is_copy else "show the same picture as an image of training"
    count = len(places)
    return [
        Finding(
            "fault",
            "leak" if is_copy else "near_leak",
            names,
            f"{count} of {int((split_of > 0).sum())} images of validation {what}: their score says nothing",
            count,
            _pairs(paths, earlier, leaks),
            cause,
            "leave them out of one of the splits; divide by scene or source, not by image",
        )
    ]


def _within(splits, paths, split_of, earlier, twice, is_copy: bool) -> list[Finding]:
    findings = []
    for number, data in enumerate(splits):
        chosen = twice & (split_of == number)
        if chosen.any():
            what = "are byte for byte another image's file" if is_copy else "show the same picture as another image"
            findings.append(
                Finding(
                    "warning",
                    "duplicate_files" if is_copy else "near_duplicates",
                    data.name,
                    f"{int(chosen.sum())} of {int((split_of == number).sum())} images {what}: they count twice",
                    int(chosen.sum()),
                    _pairs(paths, earlier, chosen),
                    "copies under several names" if is_copy else "bursts, frames of a video, or new encodings",
                    "keep one of each; see that copies do not carry different boxes",
                )
            )
    return findings
