"""A cheap look at an image file: its size from the header and whether its end is there. Nothing is decoded."""

import struct
from typing import NamedTuple

import tensorflow as tf

_HEAD_BYTES = 65_536
_TAIL_BYTES = 4_096
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
# Start-of-frame markers; C4 (Huffman tables), C8 (reserved) and CC (arithmetic coding) lie in the same range.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset([0x01, *range(0xD0, 0xD9)])


class ImageLook(NamedTuple):
    """The findings: `size` is (height, width) where `problem` is none; else `problem` is a kind of checks.py."""

    size: tuple[int, int]
    problem: str | None


def look_at_image(path: str) -> ImageLook:
    """Size of a JPEG or PNG file, as its decoder will see it (an EXIF orientation is not applied).

    Args:
        path: local, or anything TensorFlow's file systems know (gs://...).

    Returns:
        size, or the problem: "missing_image", "unreadable_image" (neither JPEG nor PNG, or a broken header), or
        "truncated_image" (no end mark behind the header; what follows it, such as a camera's own data, is no fault).
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            length = file.size()
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, length - _TAIL_BYTES))
            tail = file.read()
            look = _look(head, tail, length - len(tail))
            if look.problem is not None and head.startswith((_JPEG_START, _PNG_START)):
                # Perhaps metadata fills the head, or a trailer the tail: rare, so the whole file is read.
                file.seek(0)
                whole = file.read()
                look = _look(whole, whole, 0)
            return look
    except tf.errors.NotFoundError:
        return ImageLook((0, 0), "missing_image")
    except tf.errors.OpError:  # a folder, or no permission
        return ImageLook((0, 0), "unreadable_image")


def look_at_bytes(data: bytes) -> ImageLook:
    """Size, or the problem, of a whole file's bytes; see `look_at_image`."""
    return _look(data, data, 0)


def _look(head: bytes, tail: bytes, tail_at: int) -> ImageLook:
    if head[:2] == _JPEG_START:
        size, after_header = _jpeg_size(head)
        end = _JPEG_END
    elif head[:8] == _PNG_START:
        size, after_header = _png_size(head)
        end = _PNG_END
    else:
        return ImageLook((0, 0), "unreadable_image" if head else "truncated_image")
    if min(size) <= 0:
        return ImageLook((0, 0), "unreadable_image" if len(head) >= _HEAD_BYTES else "truncated_image")
    # Behind the frame header the end mark cannot occur inside compressed data, only in a thumbnail before it.
    return ImageLook(size, None if tail.find(end, max(0, after_header - tail_at)) >= 0 else "truncated_image")


def _jpeg_size(data: bytes) -> tuple[tuple[int, int], int]:
    """(height, width) and where the frame header ends; (0, 0) when there is none in `data`."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            return struct.unpack(">HH", data[at + 5 : at + 9]), at + 9
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _MARKERS_WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return (0, 0), at


def _png_size(data: bytes) -> tuple[tuple[int, int], int]:
    """(height, width) and where the image header ends; (0, 0) when it is not whole."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return (0, 0), 8
    width, height = struct.unpack(">II", data[16:24])
    return (height, width), 33
