"""PyTorch's files of weights (`torch.save` of a state dict: .pth, .pt, .pth.tar), read and written without PyTorch.

**Safety.** torch.save's files hold pickles, and unpickling a file means running what it says. This reader runs nothing:
torch_pickle.py reads the pickle as data, refuses every name that no state dict needs, and says which. Sizes,
strides and offsets are checked against the storages, and storages against the file; nothing is decompressed. Whatever a
file says, it takes at most 12 times its size in memory, about 150 MB besides for a pickle of as many opcodes as are
read, and ten seconds or so for these. A file that does not pass ends in one error, `TorchFileError`.

Not promised: that weights are good. The format before 1.6 has no checksums, so that a flipped bit is another number.

Two formats (torch/serialization.py): since 1.6 an uncompressed zip archive of `NAME/data.pkl` and, for each storage, an
entry `NAME/data/KEY`; before, the pickles of a magic number, a version, facts about the machine, the object, and a list
of keys, and then each storage as a count of 8 bytes and its elements.
"""

import functools
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Shaped

from modeling.weights.torch_pickle import STORAGES, Pickled, Storage, Tensor, TorchFileError, read_pickle
from official.core.errors import first_line

_ZIP_START = b"PK\x03\x04"
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # near the start, where the pickle's protocol has it
_PARALLEL = "module."  # which torch.nn.DataParallel puts before every name
_VERSION = 1001  # of the format before 1.6
_WRITTEN = {np.dtype("f4"): "FloatStorage", np.dtype("i8"): "LongStorage"}


class _File(NamedTuple):
    """What one of either format holds."""

    tree: Any
    storage: Callable[[Storage], memoryview]  # the bytes of a storage, all that the file has
    byte_order: str = "<"


def read_state_dict(path: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The tensors of a state dict, or of the `state_dict` of a checkpoint such as CenterNet's, by their names.

    Floats of every width become float32, all else keeps its type. `module.` before names is taken off. Arrays are
    read-only, and share the file's memory where they can.

    Raises:
        TorchFileError: the file cannot be read, is damaged, or holds something else; the message says what.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as stream:
            content = stream.read()
        file = _open(content)
        return _arrays(file, _state_dict(file.tree), len(content))
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from None
    except tf.errors.OpError as error:
        raise TorchFileError(f"{path}: cannot read this file: {first_line(error)}") from None
    except Exception as error:  # zipfile, pickletools and numpy tell of damage by errors of many types
        raise TorchFileError(f"{path}: is damaged or truncated: {first_line(error)}") from None


def _open(content: bytes) -> _File:
    if content.startswith(_ZIP_START):
        return _open_zip(content)
    if _MAGIC_NUMBER in content[:32]:
        return _open_legacy(content)
    if content[257:262] == b"ustar":
        raise TorchFileError(
            "is a tar archive, as the first versions of PyTorch wrote them (torchvision has published its own anew); in"
            " PyTorch: torch.save(torch.load(FILE), OTHER_FILE)"
        )
    start = f"its first bytes are {content[:12]!r}" if content else "it is empty"
    raise TorchFileError(f"is no file that torch.save has written: {start}")


def _open_zip(content: bytes) -> _File:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    folders = [name.partition("/")[0] for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise TorchFileError("is a zip archive, but none that torch.save has written: it lacks NAME/data.pkl")
    folder = folders[0]
    if f"{folder}/constants.pkl" in entries or any(name.startswith(f"{folder}/code/") for name in entries):
        raise TorchFileError(
            "is a TorchScript archive, which holds a program, not a state dict; in PyTorch:"
            " torch.save(torch.jit.load(FILE).state_dict(), OTHER_FILE)"
        )
    if sum(entry.file_size for entry in entries.values()) > len(content):
        raise TorchFileError("is damaged, or made to harm: what is in it overlaps, or is compressed")

    @functools.cache  # storages are shared by tensors
    def entry(name: str) -> memoryview:
        if f"{folder}/{name}" not in entries:
            raise TorchFileError(f"is damaged: it lacks {name}")
        return _stored(content, entries[f"{folder}/{name}"])

    order = bytes(entry("byteorder")) if f"{folder}/byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise TorchFileError(f"is damaged: its byte order is {order[:12]!r}; expected little or big")
    tree = read_pickle(io.BytesIO(entry("data.pkl"))).tree
    return _File(tree, lambda storage: entry(f"data/{storage.key}"), "<" if order == b"little" else ">")


def _stored(content: bytes, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, in place."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise TorchFileError(f"is not as torch.save writes it: {entry.filename[:100]!r} is compressed")
    local = content[entry.header_offset : entry.header_offset + 30]  # its own header; name and extra field follow
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
    part = memoryview(content)[start : start + entry.file_size]
    if not local.startswith(_ZIP_START) or len(part) != entry.file_size or zlib.crc32(part) != entry.CRC:
        raise TorchFileError(f"is damaged: {entry.filename[:100]!r} has not the size or checksum it should have")
    return part


def _open_legacy(content: bytes) -> _File:
    stream = io.BytesIO(content)
    read_pickle(stream)  # the magic number
    if read_pickle(stream).tree != _VERSION:
        raise TorchFileError(f"is damaged: the format before PyTorch 1.6 has no other version than {_VERSION}")
    read_pickle(stream)  # facts about the machine, but elements are little-endian from every machine
    saved = read_pickle(stream)
    keys = read_pickle(stream).tree
    places = _legacy_storages(content, stream.tell(), keys, saved)

    def bytes_of(storage: Storage) -> memoryview:
        if storage.key not in places:
            raise TorchFileError(f"is damaged: it lacks storage {storage.key[:100]!r}")
        return places[storage.key]

    return _File(saved.tree, bytes_of)


def _legacy_storages(content: bytes, position: int, keys: Any, saved: Pickled) -> dict[str, memoryview]:
    places = {}
    for key in keys:
        if not isinstance(key, str) or key not in saved.storages:
            raise TorchFileError("is damaged: its list of storages names one that no tensor is in")
        (count,) = struct.unpack_from("<q", content, position)
        position += 8
        size = count * np.dtype(STORAGES[saved.storages[key].kind]).itemsize
        if not 0 <= size <= len(content) - position:
            raise TorchFileError(f"is truncated or damaged: storage {key[:100]!r} ends after the end of the file")
        places[key] = memoryview(content)[position : position + size]
        position += size
    if position != len(content):
        raise TorchFileError(f"is damaged: {len(content) - position:,} bytes follow its last storage")
    return places


def _state_dict(tree: Any) -> dict[str, Tensor]:
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict) or not tree:
        raise TorchFileError(f"holds {_described(tree)}; expected a state dict, or a dictionary with one as state_dict")
    tensors = {}
    for name, value in tree.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            raise TorchFileError(
                f"holds no state dict: its {str(name)[:100]!r} is {_described(value)}; expected tensors with names, or"
                " a dictionary with such a state_dict"
            )
        tensors[name.removeprefix(_PARALLEL)] = value
    if len(tensors) != len(tree):
        raise TorchFileError(f"has tensors whose names are the same without {_PARALLEL!r}")
    return tensors


def _described(value: Any) -> str:
    if isinstance(value, dict) and value:
        return f"a dictionary of {', '.join(str(key)[:30] for key in list(value)[:5])}"
    return f"a {type(value).__name__}"


def _arrays(file: _File, tensors: dict[str, Tensor], file_size: int) -> dict[str, np.ndarray]:
    """Every tensor's values; what is the same tensor under two names, the same array."""
    sizes = {tensor: math.prod(tensor.shape) * _dtype(tensor).itemsize for tensor in tensors.values()}
    # An expanded tensor (stride 0) may have any size.
    if max(sizes.values()) > file_size or sum(sizes.values()) > 4 * file_size:
        raise TorchFileError(
            f"is damaged, or made to harm: its tensors would take {sum(sizes.values()):,} bytes of memory, and the file"
            f" has {file_size:,}"
        )
    arrays = {tensor: _array(file, tensor) for tensor in sizes}
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def _dtype(tensor: Tensor) -> np.dtype:
    return np.dtype(STORAGES[tensor.storage.kind])


def _array(file: _File, tensor: Tensor) -> np.ndarray:
    """One tensor; torch_pickle has checked that all of it lies inside its storage."""
    storage, dtype = tensor.storage, _dtype(tensor).newbyteorder(file.byte_order)
    raw = file.storage(storage)[storage.start * dtype.itemsize :]
    if len(raw) < storage.count * dtype.itemsize:
        raise TorchFileError(f"is truncated or damaged: storage {storage.key[:100]!r} lacks elements")
    if 0 in tensor.shape:
        values = np.zeros(tensor.shape, dtype)
    else:
        elements = np.frombuffer(raw, dtype, storage.count)[tensor.offset :]
        # The stride of an axis of size 1 means nothing, and may be anything.
        axes = zip(tensor.shape, tensor.strides, strict=True)
        strides = [stride * dtype.itemsize if size > 1 else 0 for size, stride in axes]
        values = np.lib.stride_tricks.as_strided(elements, tensor.shape, strides, writeable=False)
    if storage.kind == "BFloat16Storage":  # the upper half of a float32
        values = (values.astype("u4") << 16).view("f4")
    elif storage.kind == "BoolStorage":
        values = values.view("u1") != 0
    kind = np.dtype("f4") if values.dtype.kind == "f" else values.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which whoever takes weights refuses
        values = np.asarray(values, kind, order="C")
    values.flags.writeable = False
    return values


def write_state_dict(path: str, tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Writes {"epoch": 0, "state_dict": tensors}, which CenterNet's load_model reads (lib/models/model.py).

    In the format before 1.6: PyTorch 0.4.1, which CenterNet was made for, knows no other, and every later one reads it,
    with weights_only=True too.

    Raises:
        TorchFileError: an array of a type that no weights have; expected float32 or int64.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    for name, array in arrays.items():
        if array.dtype not in _WRITTEN:
            raise TorchFileError(f"{path}: {name} is {array.dtype}; expected float32 or int64")
    facts = {"protocol_version": _VERSION, "little_endian": True}
    keys = [str(number) for number in range(len(arrays))]
    pickles = [b"\x8a\x0a" + _MAGIC_NUMBER, *map(_pickled, (_VERSION, facts)), _checkpoint(arrays), _pickled(keys)]
    temporary = f"{path}.tmp"
    with tf.io.gfile.GFile(temporary, "wb") as file:
        for opcodes in pickles:
            file.write(b"\x80\x02%b." % opcodes)  # PROTO 2 ... STOP
        for array in arrays.values():
            elements = array.astype(array.dtype.newbyteorder("<"), copy=False)
            file.write(struct.pack("<q", array.size) + elements.tobytes())
    tf.io.gfile.rename(temporary, path, overwrite=True)


def _checkpoint(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The object's pickle, opcode by opcode, as Python's pickler would import what is named in it."""
    ordered_dict = b"ccollections\nOrderedDict\n)R"  # GLOBAL, EMPTY_TUPLE, REDUCE
    items = []
    for number, (name, array) in enumerate(arrays.items()):
        kind = b"ctorch\n%b\n" % _WRITTEN[array.dtype].encode()
        identity = (_pickled("storage"), kind, _pickled(str(number)), _pickled("cpu"), _pickled(array.size), b"N")
        storage = b"(%btQ" % b"".join(identity)  # MARK ... TUPLE, BINPERSID; N: not a part of another storage
        strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        requires_grad = b"\x89"  # NEWFALSE
        arguments = (storage, _pickled(0), _pickled(array.shape), _pickled(strides), requires_grad, ordered_dict)
        items.append(_pickled(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(%btR" % b"".join(arguments))
    state_dict = b"%b(%bu" % (ordered_dict, b"".join(items))  # MARK ... SETITEMS
    return b"}(%b%b%b%bu" % (_pickled("epoch"), _pickled(0), _pickled("state_dict"), state_dict)  # EMPTY_DICT, MARK ...


def _pickled(value: Any) -> bytes:
    """The opcodes of a value that names nothing."""
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"\x8a\x08" + struct.pack("<q", value)  # LONG1 of 8 bytes
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()  # BINUNICODE
        case tuple():
            return b"(%bt" % b"".join(map(_pickled, value))
        case list():
            return b"](%be" % b"".join(map(_pickled, value))
        case dict():
            return b"}(%bu" % b"".join(_pickled(part) for pair in value.items() for part in pair)
    raise TypeError(f"no state dict has a {type(value).__name__} in it")
