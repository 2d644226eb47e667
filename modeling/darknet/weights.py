"""Darknet's .weights files: a header, then the parameters of layer after layer as float32, without names or sizes.

What a file holds therefore follows from the network, as a list of `Record`s: `network_records` makes it of a cfg,
loading.py of a Keras model. Layout: Darknet parser.c load_weights_upto and save_weights_upto.
"""

import importlib
import itertools
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from modeling.darknet.build import layer_name
from modeling.darknet.cfg import Network, read_cfg
from modeling.darknet.sections import Connected, Convolutional, Layer, Region
from modeling.darknet.shapes import Parameters, count, layer_shapes
from official.core.errors import UserError, first_line

Values = Mapping[str, Mapping[str, Float[np.ndarray, "..."]]]  # by record, then by Darknet's name
SUFFIX = ".weights"
NORM = ("scales", "rolling_mean", "rolling_variance")
_PARTIAL_NAME = re.compile(r"\.conv\.([0-9]{1,6})$")


class WeightsError(UserError):
    """A weights file that cannot be used with a network; the message says at which layer and by how many floats."""


class Header(NamedTuple):
    """A file's header. `seen`: the images the network was trained with."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def size(self) -> int:
        """Bytes: `seen` has 8 from version 0.2 on, 4 before."""
        return 20 if self.major * 10 + self.minor >= 2 else 16

    @property
    def transposed(self) -> bool:
        """Whether [connected] weights lie input by input."""
        return self.major > 1000 or self.minor > 1000

    def pack(self) -> bytes:
        return struct.pack("<iiiQ" if self.size == 20 else "<iiiI", *self)


class Head(NamedTuple):
    """Of the convolution before a head: filters = anchors * (entries + classes)."""

    anchors: int
    entries: int
    classes: int

    def filters(self, classes: int) -> int:
        return self.anchors * (self.entries + classes)


class Record(NamedTuple):
    """One layer's part of a file. `name` is the Keras layer's, `parameters` are in the file's order."""

    name: str
    parameters: Parameters
    index: int | None = None  # the layer's in the cfg, where there is one
    head: Head | None = None
    connected: bool = False
    flipped: bool = False  # weights lie input by input (Darknet option `flipped`)
    unread: tuple[str, ...] = ()  # parameters that a file for this network lacks (`dontload`, `dontloadscales`)

    @property
    def read(self) -> Parameters:
        return {name: shape for name, shape in self.parameters.items() if name not in self.unread}


class WeightsFile(NamedTuple):
    """What a file holds, by the records' names: those of all layers, or of the first ones."""

    header: Header
    values: Values


def network_records(network: Network) -> list[Record]:
    """The records of a cfg's layers that have weights of their own, in order.

    Raises:
        CfgError: its layers do not fit each other.
    """
    heads = {head.index - 1: _head(head) for head in network.heads if hasattr(head, "anchors")}
    records = []
    for layer, shape in zip(network.layers, layer_shapes(network), strict=True):
        if not shape.parameters:
            continue
        unread = tuple(shape.parameters) if layer.dontload else NORM if layer.dontloadscales else ()
        records.append(
            Record(
                layer_name(layer),
                shape.parameters,
                layer.index,
                heads.get(layer.index),
                isinstance(layer, Connected),
                isinstance(layer, Convolutional) and bool(layer.flipped),
                unread,
            )
        )
    return records


def _head(layer: Layer) -> Head:
    if isinstance(layer, Region):
        return Head(layer.num, 1 + layer.coords, layer.classes)
    return Head(len(layer.mask), 9 if layer.section == "Gaussian_yolo" else 5, layer.classes)


def read_weights(path: str, records: Sequence[Record], upto: int | None = None) -> WeightsFile:
    """Reads a file that fits `records` exactly; memory is the file's size, and nothing is copied.

    A file named `*.conv.N` holds only the first N layers. `upto` reads the first so many layers of any file and leaves
    the rest unread (Darknet's cutoff).

    Raises:
        WeightsError: it cannot be read or does not fit; says at which layer and by how many floats.
    """
    content = _read_file(path)
    header = _read_header(path, content)
    floats, stray = divmod(len(content) - header.size, 4)
    wanted = _wanted(path, records, upto, floats)
    needed = _floats(wanted)
    if floats < needed or (floats > needed and upto is None):
        raise WeightsError(f"{path}: {_misfit(path, wanted, records, floats)}")
    if stray and upto is None:
        raise WeightsError(f"{path}: {stray} bytes follow its last float; the file is damaged")
    numbers = np.frombuffer(content, "<f4", count=needed, offset=header.size)
    values: dict[str, dict[str, np.ndarray]] = {}
    position = 0
    for record in wanted:
        values[record.name] = {}
        for name, shape in record.read.items():
            part = numbers[position : position + count(shape)]
            position += part.size
            values[record.name][name] = _as_shape(part, shape, _is_transposed(record, name, header))
    return WeightsFile(header, values)


def write_weights(path: str, weights: WeightsFile, records: Sequence[Record]) -> None:
    """Writes a file; what was read is written byte by byte. Records without values are left out.

    Raises:
        WeightsError: values of another shape than their record's.
    """
    if not 0 <= weights.header.seen < 1 << 8 * (weights.header.size - 12):
        raise WeightsError(f"{path}: seen={weights.header.seen} does not fit into the header")
    temporary = f"{path}.tmp"
    with tf.io.gfile.GFile(temporary, "wb") as file:
        file.write(weights.header.pack())
        for record in records:
            for name, value in weights.values.get(record.name, {}).items():
                shape = record.parameters[name]
                if value.shape != shape:
                    raise WeightsError(f"{path}: {name} of {record.name} has shape {value.shape}; expected {shape}")
                if _is_transposed(record, name, weights.header):
                    value = value.reshape(shape[0], -1).T
                file.write(np.ascontiguousarray(value, "<f4").tobytes())
    tf.io.gfile.rename(temporary, path, overwrite=True)


def _read_file(path: str) -> bytes:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise WeightsError(f"{path}: cannot read the weights: {first_line(error)}") from None


def _read_header(path: str, content: bytes) -> Header:
    if len(content) < 16:
        raise WeightsError(f"{path}: has {len(content)} bytes; a .weights file begins with a header of 16 or 20")
    header = Header(*struct.unpack_from("<iiiI", content))
    if not (0 <= header.major < 1 << 16 and 0 <= header.minor < 1 << 16):
        raise WeightsError(
            f"{path}: is no .weights file of Darknet's: its first bytes are {content[:12]!r}; expected a version"
            " such as 0.2.5 in three integers"
        )
    if header.size > len(content):
        raise WeightsError(f"{path}: has {len(content)} bytes; its header alone has {header.size}")
    return Header(*struct.unpack_from("<iiiQ", content)) if header.size == 20 else header


def _wanted(path: str, records: Sequence[Record], upto: int | None, floats: int) -> list[Record]:
    """The records that the file is to hold: all of them, or those of the first layers."""
    named = _PARTIAL_NAME.search(path)
    if upto is None and not named:
        return list(records)
    if any(record.index is None for record in records):  # no numbers of layers: what fills the file exactly
        if upto is not None:
            raise WeightsError(f"{path}: the first {upto} layers are those of a cfg; give the cfg to cut them out")
        ends = itertools.accumulate(_floats([record]) for record in records)
        return list(records[: sum(end <= floats for end in ends)])
    limit = int(named[1]) if upto is None else upto
    return [record for record in records if record.index < limit]


def _floats(records: Sequence[Record]) -> int:
    return sum(count(shape) for record in records for shape in record.read.values())


def _is_transposed(record: Record, name: str, header: Header) -> bool:
    return name == "weights" and (record.flipped or (record.connected and header.transposed))


def _as_shape(numbers: np.ndarray, shape: tuple[int, ...], transposed: bool) -> np.ndarray:
    if transposed:
        return numbers.reshape(-1, shape[0]).T.reshape(shape)
    return numbers.reshape(shape)


def _misfit(path: str, wanted: Sequence[Record], records: Sequence[Record], floats: int) -> str:
    """Why a file with so many floats does not fit."""
    advice = _other_class_count(path, records, floats) or _other_cutoff(records, floats)
    advice = advice or "; it is of another network, or damaged: give the network it was trained with"
    surplus = floats - _floats(wanted)
    if surplus > 0:
        last = wanted[-1].name if wanted else "the header"
        return f"is too long: {surplus:,} floats follow {last}, the last that is expected{advice}"
    left = floats
    for record in wanted:
        for name, shape in record.read.items():
            missing = count(shape) - left
            if missing > 0:
                lack = f"it ends at {record.name}, whose {name} {shape} lack {missing:,} floats"
                return f"is too short: {lack} ({-surplus:,} are missing in all){advice}"
            left -= count(shape)
    raise AssertionError("called for a file that fits")


def _other_cutoff(records: Sequence[Record], floats: int) -> str:
    """What to do where the file ends between two layers; "" where it does not."""
    ends = itertools.accumulate(_floats([record]) for record in records)
    for record, end in zip(records, ends, strict=True):
        if end == floats and record.index is not None:
            layers = record.index + 1
            return f"; it has the size of the first {layers} layers: if that is what it holds, name it *.conv.{layers}"
    return ""


def _other_class_count(path: str, records: Sequence[Record], floats: int) -> str:
    """What to do where the file has the size of the same network with another class count; "" where it has not."""
    heads = [record for record in records if record.head and "weights" in record.read]
    if not heads:
        return ""
    each = {record.name: sum(count(shape[1:]) for shape in record.read.values()) for record in heads}  # per filter
    per_class = sum(each[record.name] * record.head.anchors for record in heads)
    more, rest = divmod(floats - _floats(records), per_class)
    first = heads[0]
    classes = first.head.classes + more
    if rest or not more or classes < 1:
        return ""
    theirs, ours = first.head.filters(classes), first.head.filters(first.head.classes)
    number = "N" if first.index is None else first.index
    return (
        f"; it fits a network of {classes} classes: {first.name} has {theirs} filters in the file, here {ours}. Start"
        f" from the layers before it: python -m tools.convert --cfg CFG --from {path} --to FILE.conv.{number}"
        f" --partial {number}"
    )


def cut_weights(cfg: str, weights: str, output: str, layers: int) -> str:
    """Writes the first `layers` layers of a file to `output`, which must be named *.conv.N. Returns a report.

    Source: Darknet darknet.c partial.

    Raises:
        CfgError, WeightsError: a file cannot be used, or there are not so many layers.
    """
    network = read_cfg(cfg)
    if not 0 < layers <= len(network.layers):
        raise WeightsError(f"{cfg}: has {len(network.layers)} layers; cannot cut out the first {layers}")
    if not output.endswith(f".conv.{layers}"):
        raise WeightsError(f"{output}: name it *.conv.{layers}, so that readers know that it holds {layers} layers")
    records = network_records(network)
    cut = read_weights(weights, records, upto=layers)
    # As Darknet does: training begins anew with these weights, so nothing has been seen.
    write_weights(output, cut._replace(header=cut.header._replace(seen=0)), records)
    return f"{output}: {len(cut.values)} layers with weights, of the first {layers}"


if __name__ == "__main__":  # a former command; what lies below tools imports nothing of it
    former = importlib.import_module("tools.former")
    former.run("modeling.darknet.weights", "tools.convert", former.partial(sys.argv[1:]))
