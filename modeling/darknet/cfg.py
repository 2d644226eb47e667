"""Reads a Darknet cfg: `read_cfg(path)` gives its sections as typed values and what in it does not mean what it seems.

A cfg that Darknet accepts is accepted, with the values Darknet goes on with. What Darknet ignores or replaces without
an error is listed in `Network.notes`; where Darknet would crash, or read memory that is not its own, is an error.
"""

import dataclasses
import difflib
import functools
import types
import typing
from typing import Any

import tensorflow as tf

from modeling.darknet.checks import Place, check_layer, check_net
from modeling.darknet.grammar import CfgError, Entry, Note, atof, atoi, read_sections, short
from modeling.darknet.options import Option
from modeling.darknet.sections import HEAD_SECTIONS, SECTIONS, UNSUPPORTED, Layer, Net
from official.core.errors import first_line

LARGEST_FILE = 1 << 18  # bytes; the largest published cfg has 31 thousand


@dataclasses.dataclass(frozen=True)
class Network:
    """A cfg. `layers` are the sections after [net], counted from 0 as Darknet does; `source` names it in messages."""

    source: str
    net: Net
    layers: tuple[Layer, ...]
    notes: tuple[Note, ...]

    @property
    def heads(self) -> tuple[Layer, ...]:
        """The sections that detect, in the cfg's order. Where one value holds for all, Darknet takes the last one's."""
        return tuple(layer for layer in self.layers if isinstance(layer, HEAD_SECTIONS))

    def where(self, layer: Layer) -> str:
        """A layer's place, for messages: file, line, section and index."""
        return f"{self.source}:{layer.line}: [{layer.section}] (layer {layer.index})"


def read_cfg(path: str) -> Network:
    """Reads a cfg file, local or remote.

    Raises:
        CfgError: it cannot be read, is no cfg, or asks for what cannot be.
    """
    try:
        size = tf.io.gfile.stat(path).length
        if size > LARGEST_FILE:
            raise CfgError(f"{path}: {size:,} bytes is no Darknet cfg (a text file of at most {LARGEST_FILE:,} bytes)")
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise CfgError(f"{path}: cannot read the cfg: {first_line(error)}") from None
    return parse_cfg(content.decode("utf-8", errors="replace"), path)


def parse_cfg(text: str, source: str) -> Network:
    """The network that a cfg's text describes. `source` names it in errors and notes.

    Raises:
        CfgError: with file, line, section, what was expected, and what to do.
    """
    sections, notes = read_sections(text, source)
    if not sections or sections[0].name not in ("net", "network"):
        found = f"[{short(sections[0].name)}] in line {sections[0].line}" if sections else "no section"
        raise CfgError(f"{source}: the first section must be [net] or [network]; found {found}")
    if len(sections) == 1:
        raise CfgError(f"{source}:{sections[0].line}: [net] is not followed by any layer")
    first = Place(source, "net", sections[0], notes)
    net = Net(**_values(Net, first, {"line": sections[0].line}))
    check_net(net, first)
    layers: list[Layer] = []
    for index, section in enumerate(sections[1:]):
        place = Place(source, section.name, section, notes)
        kind = _kind_of(section.name, place)
        layer = kind(**_values(kind, place, {"index": index, "line": section.line}))
        check_layer(layer, layers, place)
        layers.append(layer)
    return Network(source, net, _with_train_only_bn(layers), tuple(sorted(notes, key=lambda note: note.line)))


def _kind_of(name: str, place: Place) -> type[Layer]:
    if name in SECTIONS:
        return SECTIONS[name]
    if name in ("net", "network"):
        raise place.error(None, "may only be the first section")
    if name in UNSUPPORTED:
        raise place.error(None, "is not supported; no detector of Darknet's uses it")
    nearest = difflib.get_close_matches(name[:60], SECTIONS, 1)
    known = f"did you mean [{nearest[0]}]?" if nearest else f"there are {', '.join(sorted(SECTIONS))}"
    raise place.error(None, f"is no section of Darknet's; {known}")


def _values(kind: type, place: Place, values: dict[str, Any]) -> dict[str, Any]:
    """The values of all options of a section, in the order of its class, and notes on what else it says."""
    for name, (how, is_list, scalar) in _options(kind).items():
        key = how.key or name
        entry = place.options.get(key)
        if how.required and (entry is None or entry.text is None):
            raise place.error(None, f"must say {key}=, {how.required}")
        value = how.default if entry is None or entry.text is None else _read(entry, key, how, is_list, scalar, place)
        value = how.then(value, values) if how.then else value
        if how.at_least is not None and not how.at_least <= value <= how.at_most:
            raise place.error(key, f"is {value}; expected {how.at_least} to {how.at_most}")
        values[name] = value
    known = [how.key or name for name, (how, _, _) in _options(kind).items()]
    unknown = [key for key in place.options if key not in known]
    for key in unknown:
        # Not in a damaged file, where the search would take minutes.
        nearest = difflib.get_close_matches(key[:60], known, 1) if len(unknown) <= 20 else []
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        place.note(key, f"Darknet does not know {short(key)} here and ignores it{hint}")
    return values


@functools.cache
def _options(kind: type) -> dict[str, tuple[Option, bool, type]]:
    """A section's options: how each is read, whether it is a list, and of what."""
    options = {}
    for field in dataclasses.fields(kind):
        if "option" in field.metadata:
            leaves = _leaves(field.type)
            options[field.name] = field.metadata["option"], leaves[0] is tuple, leaves[-1]
    return options


def _leaves(annotation: Any) -> list[type]:
    """The types an annotation is made of, outermost first, without None: tuple, float of `tuple[float, ...] | None`."""
    parts = [part for part in typing.get_args(annotation) if part not in (type(None), Ellipsis)]
    origin = typing.get_origin(annotation)
    outer = [] if origin is types.UnionType else [origin or annotation]
    return outer + [leaf for part in parts for leaf in _leaves(part)]


def _read(entry: Entry, key: str, how: Option, is_list: bool, scalar: type, place: Place) -> Any:
    if is_list:
        text = entry.text.partition("#")[0] if how.until_hash else entry.text
        return tuple(_number(part, key, scalar, place) for part in text.split(","))
    return _choice(entry.text, key, how, place) if scalar is str else _number(entry.text, key, scalar, place)


def _number(text: str, key: str, scalar: type, place: Place) -> int | float:
    try:
        value, rest = (atoi if scalar is int else atof)(text)
    except OverflowError:
        fits = "a 32-bit integer" if scalar is int else "a finite float32"
        raise place.error(key, f"has {short(text)!r}; expected {fits}") from None
    # A comment after a number changes nothing, nor does 1.0 where 1 is meant.
    if rest == text or (rest and rest[0] not in "#;" and rest.strip(".0")):
        place.note(key, f"Darknet reads {short(text)!r} in {key} as {value}")
    return value


def _choice(text: str, key: str, how: Option, place: Place) -> str:
    if how.choices is None or text in how.choices:
        return text
    if text in how.alias:
        return how.alias[text]
    known = ", ".join([*how.choices, *how.alias])
    if how.otherwise is None:
        raise place.error(key, f"is {short(text)!r}; expected one of {known}")
    place.note(key, f"{key}={short(text)} is unknown to Darknet, which takes {how.otherwise}; it knows {known}")
    return how.otherwise


def _with_train_only_bn(layers: list[Layer]) -> tuple[Layer, ...]:
    """A layer that trains its batch-norm only makes all layers before it do so (parser.c set_train_only_bn)."""
    resolved, value = [], 0
    for layer in reversed(layers):
        value = layer.train_only_bn or value
        resolved.append(layer if layer.train_only_bn == value else dataclasses.replace(layer, train_only_bn=value))
    return tuple(reversed(resolved))
