"""Pickles and files of PyTorch's, put together by hand for tests."""

import io
import struct
import zipfile

FLOAT = b"ctorch\nFloatStorage\n"
MAGIC_NUMBER = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # LONG1 of 10 bytes


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def bytes_text(value: str) -> bytes:
    """A text of Python 2."""
    return b"U" + bytes([len(value)]) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 1 << 31 else b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(count: int, view: bytes = b"") -> bytes:
    return b"(" + text("storage") + FLOAT + text("0") + text("cpu") + number(count) + view + b"tQ"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, of: bytes = storage(6)) -> bytes:
    arguments = of + number(offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def zip_file(tree: bytes, storages, order: bytes = b"little") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + tree + b".")
        archive.writestr("x/byteorder", order)
        for key, values in storages:
            archive.writestr(f"x/data/{key}", values)
        archive.writestr("x/version", "3\n")
    return content.getvalue()


def legacy_file(tree: bytes, storages, replaced: dict[int, bytes] | None = None) -> bytes:
    """`replaced`: other pickles, by their number; storages are of float32."""
    facts = dictionary({"little_endian": b"\x88", "protocol_version": number(1001)})
    keys = b"](" + b"".join(text(key) for key, _ in storages) + b"e"
    pickles = dict(enumerate([MAGIC_NUMBER, number(1001), facts, tree, keys])) | (replaced or {})
    head = b"".join(b"\x80\x02" + pickle + b"." for pickle in pickles.values())
    return head + b"".join(struct.pack("<q", len(values) // 4) + values for _, values in storages)


PIECES = [
    *(b"}", b"]", b")", b"(", b"N", b"t", b"e", b"u", b"a", b"s", b"b", b"R", b"Q", b"\x85", b"\x86", b"\x87", b"\x93"),
    *(b"q\x01", b"h\x01", b"\x94", b"\x88", number(3), number(-1), number(2**50), text("w"), bytes_text("storage")),
    *(FLOAT, storage(6), tensor((2, 3), (3, 1)), tensor((2,), (0,)), b"ccollections\nOrderedDict\n)R"),
    *(b"cos\nsystem\n", b"ctorch\nSize\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch._utils\n_rebuild_tensor\n"),
]
