"""Images that cannot be decoded, though what is checked before a run, header and end mark, is there."""

from pathlib import Path


def break_jpeg(path: Path) -> None:
    """Overwrites the first Huffman table of a JPEG file."""
    content = bytearray(path.read_bytes())
    table = content.index(b"\xff\xc4")
    content[table + 4 : table + 40] = b"\xff" * 36
    path.write_bytes(content)
