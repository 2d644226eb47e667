"""The folder of an export: it appears whole or not at all, and a description in it says what it is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from official.core.errors import UserError
from serving.formats.graph import SIGNATURES, DetectionGraph

METADATA_FILE = "detector.json"
VERSION = 1  # of the description


def write_folder(graph: DetectionGraph, name: str, directory: str | os.PathLike, write: Callable) -> Path:
    """Has `write(graph, folder)` fill a folder, describes it (detector.json, README.md), and puts it in its place.

    It replaces an earlier export. Its parents are made.

    Args:
        name: of the format.

    Raises:
        UserError: `directory` is remote, or holds something that is not an export.
    """
    directory = local_path(directory, "export to a local folder, then copy that")
    _refuse_foreign(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.new-{os.getpid()}")
    try:
        write(graph, fresh)
        _describe(graph, name, fresh)
        _replace(directory, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


def read_description(directory: Path) -> dict[str, Any]:
    """What detector.json says.

    Raises:
        FileNotFoundError: no such folder. UserError: it is no export, or of another version.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such folder; expected an export, which export.py writes")
    path = directory / METADATA_FILE
    if not path.is_file():
        raise UserError(f"{directory}: not an export (no {METADATA_FILE} in it); export.py writes one")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != VERSION:
            raise UserError(f"format {found['format']}, this version reads {VERSION}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the description of an export ({error!r}); export again") from error
    return found


def local_path(path: str | os.PathLike, remedy: str) -> Path:
    """The path, if it is one of this machine; `remedy` says what to do instead (gs://b/x would become gs:/b/x)."""
    if "://" in os.fspath(path):
        raise UserError(f"{path}: expected a local path; {remedy}")
    return Path(path)


def _refuse_foreign(directory: Path) -> None:
    is_ours = (directory / METADATA_FILE).is_file()
    if directory.exists() and not is_ours and (directory.is_file() or any(directory.iterdir())):
        raise UserError(f"{directory}: is in use and not an earlier export; choose another folder, or remove it")


def _describe(graph: DetectionGraph, name: str, directory: Path) -> None:
    height, width = graph.input_size
    metadata = {
        "format": VERSION,
        "written_as": name,
        "classes": graph.classes,
        "category_ids": graph.category_ids,
        "input_size": graph.input_size,
        "protocol": graph.protocol.model_dump(mode="json"),
        "signatures": SIGNATURES,
        "tensorflow": tf.__version__,
    }
    (directory / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"# A detector of {len(graph.classes)} classes ({name})",
        "",
        f"Network input {height} x {width} (height x width). Resizing, decoding and NMS are inside, by the protocol",
        f"that evaluation used. {METADATA_FILE} holds it, the class names, and what is written here.",
        "",
    ]
    for signature, sides in SIGNATURES.items():
        lines += [f"## Signature `{signature}`", ""]
        for side, entries in sides.items():
            lines += [f"{side.capitalize()}:", "", *(f"- `{key}`: {text}" for key, text in entries.items()), ""]
    (directory / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _replace(directory: Path, fresh: Path) -> None:
    """Puts `fresh` in the place of `directory`: two renames, so there is never half an export under the name."""
    old = directory.with_name(f".{directory.name}.old-{os.getpid()}")
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
