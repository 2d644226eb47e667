"""Every image file, decoded once as training will decode it: what it holds, and what the pipeline makes of it."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, UInt8
from PIL import Image

from dataloaders.reading.annotations import DataError, read_bytes
from official.core.errors import first_line
from official.core.progress import track
from official.vision.resize import decode_image

_THREADS = 8
_EXIF_ORIENTATION = 0x0112
_JPEG_START, _JPEG_END, _PNG_START = b"\xff\xd8", b"\xff\xd9", b"\x89PNG"
_DARK = 16  # of 256 levels
THUMBNAIL = 32  # pixels a side


class ImageFacts(NamedTuple):
    """The facts about an image file.

    Attributes:
        problem: why it cannot be decoded, else empty; then all that follows is empty, too.
        size: (height, width), as decoded.
        traits: words of tools/doctor/files.py.
        orientation: EXIF's, 1 to 8; 1 where there is none.
        digest: of the file's bytes.
        thumbnail: grey levels, the whole image averaged to a square.
    """

    problem: str
    size: tuple[int, int] = (0, 0)
    traits: tuple[str, ...] = ()
    orientation: int = 1
    digest: bytes = b""
    thumbnail: UInt8[np.ndarray, "32 32"] | None = None


def decode_all(paths: Sequence[str], readable: Bool[np.ndarray, " images"], title: str) -> tuple[ImageFacts, ...]:
    """Facts of all files, in their order; those not `readable` are known to be broken and left alone."""

    def look(path: str, can_be_read: bool) -> ImageFacts:
        return look_inside(path) if can_be_read else ImageFacts("its header or end is broken, or it is not there")

    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(track(pool.map(look, paths, readable.tolist()), title, len(paths)))


def look_inside(path: str) -> ImageFacts:
    """Decodes one file, by the pipeline's own decoder."""
    try:
        contents = read_bytes(path, "the image")
        pixels = decode_image(tf.constant(contents)).numpy()  # [h, w, 3]
    except (FileNotFoundError, DataError, tf.errors.OpError) as error:
        return ImageFacts(first_line(error))
    traits, orientation = _stored(contents)
    if _is_cut(contents, pixels):
        traits = (*traits, "cut_short")
    small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).convert("L")
    thumbnail = np.asarray(small)
    if thumbnail.min() == thumbnail.max() and (pixels == pixels[0, 0]).all():
        traits = (*traits, "one_colour")
    elif thumbnail.max() < _DARK:
        traits = (*traits, "dark")
    digest = hashlib.blake2b(contents, digest_size=16).digest()
    return ImageFacts("", pixels.shape[:2], traits, orientation, digest, thumbnail)


def _stored(contents: bytes) -> tuple[tuple[str, ...], int]:
    """Traits of the way the file stores its pixels, and its EXIF orientation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(contents))
            mode, orientation = image.mode, int(image.getexif().get(_EXIF_ORIENTATION, 1))
            transparent = mode.endswith(("A", "a")) or "transparency" in image.info
        except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError):
            return (), 1  # TensorFlow could read it: nothing is wrong, but nothing more is known
    deep = contents.startswith(_PNG_START) and contents[24] == 16  # bit depth, in the header chunk
    stored = {
        "grey": mode in ("1", "L", "LA", "La") or mode.startswith(("I", "F")),
        "cmyk": mode == "CMYK",
        "alpha": transparent,
        "sixteen_bits": deep,
        "exif_rotated": 2 <= orientation <= 8,
    }
    return tuple(trait for trait, has in stored.items() if has), orientation if 1 <= orientation <= 8 else 1


def _is_cut(contents: bytes, pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """True if a JPEG's data stops before its last row, though an end mark follows: a repaired or padded torso.

    libjpeg fills the rest with one colour and only warns. Bytes put before the end mark change nothing in a whole
    image; in such a one they are taken for the missing data.
    """
    end = contents.rfind(_JPEG_END)
    if not contents.startswith(_JPEG_START) or (pixels[-1] != pixels[-1, -1]).any() or end < 0:
        return False
    longer = contents[:end] + b"\x5a\x3c" * 64 + contents[end:]
    try:  # by Pillow, which is silent about the bytes that a whole image has too many
        short, long = (np.asarray(Image.open(io.BytesIO(data))) for data in (contents, longer))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return bool((short != long).any())
