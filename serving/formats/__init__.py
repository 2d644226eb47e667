"""The formats that a detector is exported in. A format is a module with `write(graph, folder)` and `read(folder)`.

`read` gives a function from uint8 images [b, h, w, 3] to arrays by name, the outputs of `serving_default` (graph.py).
A new format is a module of its own and a line of `FORMATS`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from official.core.errors import UserError
from official.vision.protocol import EvaluationProtocol
from serving.formats import saved_model
from serving.formats.folder import METADATA_FILE, local_path, read_description, write_folder
from serving.formats.graph import DetectionGraph

Run = Callable[[UInt8[np.ndarray, "b h w 3"]], Mapping[str, Shaped[np.ndarray, "b ..."]]]
FORMATS: Mapping[str, ModuleType] = {"saved_model": saved_model}


class ExportedProtocol(EvaluationProtocol, extra="allow"):
    """The protocol of an export, whose family may have words of its own: they are kept as they are."""


class Detector(NamedTuple):
    """A loaded export."""

    run: Run
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    input_size: tuple[int, int]
    protocol: ExportedProtocol


def write_export(graph: DetectionGraph, name: str, directory: str | os.PathLike) -> Path:
    """Writes the graph in the format of this name into a folder, which appears whole or not at all.

    Raises:
        UserError: there is no such format, or the folder cannot be used.
    """
    return write_folder(graph, name, directory, _format(name, "--format").write)


def load_detector(directory: str | os.PathLike) -> Detector:
    """Loads an export of any format; its description says which.

    Raises:
        FileNotFoundError: no such folder. UserError: not an export, damaged, or remote.
    """
    directory = local_path(directory, "copy the export to a local folder first")
    found = read_description(directory)
    path = directory / METADATA_FILE
    try:
        described = {key: tuple(found[key]) for key in ("classes", "category_ids", "input_size")}
        protocol = ExportedProtocol.model_validate(found["protocol"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the description of an export ({error!r}); export again") from error
    # Exports had one format before they said which.
    run = _format(found.get("written_as", "saved_model"), str(path)).read(directory)
    return Detector(run, protocol=protocol, **described)


def _format(name: str, where: str) -> ModuleType:
    if name not in FORMATS:
        raise UserError(f"{where}: no format {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
