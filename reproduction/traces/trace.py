"""Traces: named arrays that a program recorded, in a form that any language can write. docs/traces.md is the manual.

A trace is `NAME.npz`, a zip of .npy members, and may have a manifest `NAME.json` beside it: who computed the numbers,
and for each array its shape, dtype, layout, the meaning of its axes and the SHA-256 of its bytes. Arrays are numbers or
text, never objects. They are read when asked for, one at a time, so that a trace may be larger than the memory; a
damaged file is one error, and never takes more memory than its size justifies.
"""

import difflib
import functools
import hashlib
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pydantic
from jaxtyping import Shaped

from official.core.config import Config
from official.core.errors import UserError, first_line

FORMAT = "detector trace"
DTYPES = "bool, int8 to int64, uint8 to uint64, float16, float32, float64 or text"
# Deflate reaches 1000:1 on zeros; a whole file that expands further than this was made to, or is damaged.
_FREE_BYTES, _EXPANSION = 64 << 20, 100
_HEADER_BYTES = 10_000  # of the description in a .npy member


class TraceError(UserError):
    """A trace that cannot be read, or lacks what was asked of it; the message names the file and the array."""


class Source(Config):
    """Which program computed the numbers."""

    program: str = ""
    repository: str = ""
    commit: str = ""
    note: str = ""


UNKNOWN = Source()


class Layout(Config):
    """How to read an array: a letter per axis (NCHW, OIHW, ...), and what each axis counts. Either may be left out."""

    layout: str = ""
    axes: tuple[str, ...] = ()


class _Entry(Layout):
    shape: tuple[int, ...]
    dtype: str
    sha256: str = pydantic.Field("", pattern="^([0-9a-f]{64})?$", description="Empty: not known, not compared.")


class _Manifest(Config):
    format: Literal["detector trace"]
    version: Literal[1]
    source: Source = UNKNOWN
    arrays: dict[str, _Entry]


class Trace(Mapping):
    """Named arrays, from a file or from memory. `origin` is what errors call it.

    As a mapping it gives an np.ndarray as it is; `array`, `number` and `text` check what they give. (The mapping's type
    has no parameters: run-time checks of them would read an array each time.)
    """

    def __init__(
        self,
        arrays: Mapping,
        origin: str,
        source: Source = UNKNOWN,
        layouts: Mapping[str, Layout] = MappingProxyType({}),
    ):
        self.arrays, self.origin, self.source, self.layouts = arrays, origin, source, layouts

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            near = difflib.get_close_matches(name, self.arrays, n=3, cutoff=0.5)
            has = f"the nearest of its names: {', '.join(near)}" if near else f"it has {len(self.arrays)} others"
            raise TraceError(f"{self.origin}: no array {name!r}; {has}")
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def array(
        self, name: str, shape: Sequence[int | str] | None = None, dtype: type[np.generic] = np.generic
    ) -> Shaped[np.ndarray, "..."]:
        """The array of this name.

        Args:
            shape: the length of each axis, or the name of an axis that may have any length. None: any shape.
            dtype: a NumPy type or family of types: np.float32, np.floating, np.integer.

        Raises:
            TraceError: it is not there, or of another shape or dtype; nothing is transposed or converted.
        """
        values = self[name]
        if shape is not None and not _fits(values.shape, shape):
            raise TraceError(
                f"{self.origin}: expected array {name!r} of shape ({', '.join(map(str, shape))}), found {values.shape}"
            )
        if not np.issubdtype(values.dtype, dtype):
            raise TraceError(f"{self.origin}: expected array {name!r} of {dtype.__name__}, found {values.dtype}")
        return values

    def number(self, name: str) -> float | int:
        """The single number of this name."""
        return self.array(name, shape=()).item()

    def text(self, name: str) -> str:
        """The text of this name, such as a configuration file."""
        value = self.array(name, shape=(), dtype=np.character).item()
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def layout(self, name: str) -> str:
        """Letter per axis as the manifest says; empty where it says nothing."""
        return self.layouts.get(name, Layout()).layout


def relayout(array: Shaped[np.ndarray, "..."], given: str, wanted: str) -> Shaped[np.ndarray, "..."]:
    """The array with its axes in another order: `relayout(x, "NCHW", "NHWC")`. Letters name axes; none is added."""
    if sorted(given) != sorted(wanted) or len(set(given)) != len(given) or len(given) != array.ndim:
        raise TraceError(f"cannot turn an array of shape {array.shape} from layout {given!r} to {wanted!r}")
    return np.transpose(array, [given.index(axis) for axis in wanted])


def read_trace(path: str | os.PathLike) -> Trace:
    """Opens the trace at `path` (.npz) and its manifest, if there is one.

    The table of contents is read and checked now, each array when it is asked for.

    Raises:
        TraceError: not a whole npz file, or not what its manifest says.
    """
    path = Path(path)
    members = _members(path)
    manifest_path = path.with_suffix(".json")
    if not manifest_path.is_file():
        return Trace(_NpzArrays(path, members, {}), str(path))
    manifest = _read_manifest(manifest_path)
    differing = set(manifest.arrays) ^ set(members)
    if differing:
        name = min(differing)
        where = "is in the manifest alone" if name in manifest.arrays else "is missing in the manifest"
        raise TraceError(f"{path}: array {name!r} {where} ({manifest_path}); {len(differing)} such arrays")
    layouts = {name: Layout(layout=entry.layout, axes=entry.axes) for name, entry in manifest.arrays.items()}
    return Trace(_NpzArrays(path, members, manifest.arrays), str(path), manifest.source, layouts)


def write_trace(
    path: str | os.PathLike,
    arrays: Mapping[str, Any],
    source: Source = UNKNOWN,
    layouts: Mapping[str, Layout] = MappingProxyType({}),
) -> None:
    """Writes `arrays` (numbers or text) to `path` (.npz), and the manifest beside it.

    One array is in memory at a time if the mapping makes them so. The same arrays give the same bytes. A reader sees
    the old file or the new one.
    """
    path, entries = Path(path), {}
    if path.suffix != ".npz":
        raise TraceError(f"{path}: a trace is written to a file that ends in .npz")
    partial = path.with_name(f"{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            values = _writable(name, value, path)
            info = zipfile.ZipInfo(f"{name}.npy")  # of 1980, always
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
            layout = layouts.get(name, Layout())
            if {len(layout.axes), len(layout.layout)} - {0, values.ndim}:
                raise TraceError(f"{path}: array {name!r} has {values.ndim} axes, its layout says {layout!r}")
            entries[name] = _Entry(
                **layout.model_dump(), shape=values.shape, dtype=_name(values.dtype), sha256=_digest(values)
            )
    unknown = set(layouts) - set(entries)
    if unknown:
        raise TraceError(f"{path}: a layout is given for {min(unknown)!r}, which is not among the arrays")
    manifest = _Manifest(format=FORMAT, version=1, source=source, arrays=entries)
    os.replace(partial, path)
    partial.write_text(manifest.model_dump_json(indent=1))
    os.replace(partial, path.with_suffix(".json"))


@dataclass(frozen=True)
class _NpzArrays(Mapping):
    """The arrays of an npz file, each read when it is asked for and compared with its entry in the manifest."""

    path: Path
    members: Mapping[str, zipfile.ZipInfo]
    entries: Mapping[str, _Entry]

    def __getitem__(self, name: str) -> np.ndarray:
        info = self.members[name]
        with _damage(f"{self.path}: array {name!r} cannot be read"), _opened(self.path).open(info) as member:
            values = _read_array(member, info.file_size)
        if name in self.entries:
            self._compare(name, values)
        return values

    def _compare(self, name: str, values: np.ndarray) -> None:
        entry = self.entries[name]
        says, found = (entry.shape, entry.dtype), (values.shape, _name(values.dtype))
        if says != found:
            raise TraceError(f"{self.path}: array {name!r}: the manifest says shape and dtype {says}, found {found}")
        if entry.sha256 and entry.sha256 != _digest(values):
            raise TraceError(f"{self.path}: array {name!r} was changed: its SHA-256 is not the manifest's")

    def __contains__(self, name: object) -> bool:
        return name in self.members

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Damaged bytes make zipfile, zlib and NumPy raise nearly anything; all of it becomes one error."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:
        raise TraceError(f"{what}: {first_line(error)}") from None


def _opened(path: Path) -> zipfile.ZipFile:
    """The file, opened again only if another one was since: its table of contents may be long."""
    stat = path.stat()
    return _archive(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=2)
def _archive(path: Path, state: tuple[int, ...]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # closes when it is dropped here


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Name of each array -> its member in the file."""
    with _damage(f"{path}: not a whole .npz file"), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    size = path.stat().st_size
    expanded = sum(info.file_size for info in infos)
    if expanded > _FREE_BYTES + _EXPANSION * size:
        raise TraceError(f"{path}: claims to hold {expanded:,} bytes of arrays, too much for a file of {size:,} bytes")
    members = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in members:
            raise TraceError(f"{path}: expected members NAME.npy, each once; found {info.filename!r}")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise TraceError(f"{path}: member {info.filename!r} is encrypted, or neither stored nor deflated")
        members[name] = info
    return members


def _read_array(member: zipfile.ZipExtFile, size: int) -> np.ndarray:
    """One .npy member of `size` bytes; its header is believed only where the size agrees. ValueError if not."""
    version = np.lib.format.read_magic(member)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"its .npy version is {version}; 1.0 and 2.0 are read")
    shape, fortran_order, dtype = read_header[version](member, max_header_size=_HEADER_BYTES)
    if not _is_plain(dtype):
        raise ValueError(f"its dtype is {dtype}; expected {DTYPES}")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != size - member.tell():
        raise ValueError(f"shape {shape} and dtype {dtype} do not agree with its {size:,} bytes")
    data = member.read()  # to the end, where the checksum is compared
    values = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    values = values.reshape(shape, order="F" if fortran_order else "C")
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))


def _is_plain(dtype: np.dtype) -> bool:
    """Numbers and text that every language can read."""
    return dtype.kind in "biuSU" or (dtype.kind == "f" and dtype.itemsize <= 8)


def _read_manifest(path: Path) -> _Manifest:
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise TraceError(f"{path}: not a manifest of a trace: {where}: {first['msg']}") from None


def _writable(name: str, value: Any, path: Path) -> np.ndarray:
    """The value as a plain little-endian array in C order."""
    if not name or name != name.strip("/") or "\\" in name or ".." in name.split("/"):
        raise TraceError(f"{path}: {name!r} is no name for an array; expected words separated by '/'")
    values = np.asarray(value, order="C")
    if not _is_plain(values.dtype):
        raise TraceError(f"{path}: array {name!r} has dtype {values.dtype}; expected {DTYPES}")
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _name(dtype: np.dtype) -> str:
    """The dtype as manifests write it: float32, int64, text."""
    return "text" if dtype.kind in "US" else dtype.name


def _digest(values: np.ndarray) -> str:
    """SHA-256 of the elements in C order, little-endian."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def _fits(shape: tuple[int, ...], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, wanted, strict=True)
    )
