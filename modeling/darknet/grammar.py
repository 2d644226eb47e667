"""The text of a Darknet cfg as sections of options, and C's reading of numbers (Darknet parser.c, option_list.c).

Blanks disappear anywhere in a line, also inside names and values; a line is a section if it begins with `[`, a comment
if with `#` or `;`, else `key=value` up to its first `=`. There are no other comments: `stride=2#x` is 2 only because
numbers end where they stop being numbers.
"""

import dataclasses
import re
from typing import NamedTuple

from official.core.errors import UserError

INT_LIMIT = 1 << 31
_BLANKS = str.maketrans("", "", " \t\r")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:inf|nan)", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?", re.IGNORECASE)


class CfgError(UserError):
    """A cfg that cannot be used; the message names file, line, section, what was expected and what to do."""


class Note(NamedTuple):
    """Something in a cfg that does not mean what it seems to; Darknet reads on, silently or with a line in its log."""

    source: str
    line: int
    section: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: [{self.section}] {self.message}"


class Entry(NamedTuple):
    """One `key=value`. text is None where the line has no `=`: Darknet then takes the key's default."""

    line: int
    text: str | None


@dataclasses.dataclass
class SectionText:
    """A section's name as written, without brackets, and its options; of a repeated key the first, as Darknet."""

    name: str
    line: int
    options: dict[str, Entry] = dataclasses.field(default_factory=dict)


def read_sections(text: str, source: str) -> tuple[list[SectionText], list[Note]]:
    """Splits a cfg into its sections. `source` names it in errors and notes.

    Raises:
        CfgError: an option before any section, or text that is no cfg at all.
    """
    if "\0" in text:
        raise CfgError(f"{source}: holds zero bytes, so it is no text file; expected a Darknet cfg")
    sections: list[SectionText] = []
    notes: list[Note] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.translate(_BLANKS)
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            sections.append(SectionText(line[1:-1] if line[-1] == "]" else line, number))
        elif not sections:
            raise CfgError(
                f"{source}:{number}: '{short(line)}' comes before any section; a Darknet cfg begins with [net]"
                + (" (delete the byte order mark at the file's beginning)" if line[0] == "\ufeff" else "")
            )
        else:
            note = _read_option(line, number, sections[-1])
            if note:
                key, message = note
                notes.append(Note(source, number, sections[-1].name, key, message))
    return sections, notes


def short(text: str) -> str:
    """Text of a cfg for a message: a line of it may be as long as the file."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_option(line: str, number: int, section: SectionText) -> tuple[str, str] | None:
    """Adds the line's option to the section; its key and what there is to say about it."""
    key, equals, value = line.partition("=")
    if equals and not value:
        return key, f"'{short(line)}' has no value; Darknet drops the line"
    first = section.options.setdefault(key, Entry(number, value if equals else None))
    if first.line != number:
        kept = key if first.text is None else f"{key}={first.text}"
        return key, f"'{short(line)}' repeats a key; Darknet keeps the first, '{short(kept)}' in line {first.line}"
    if not equals:
        return key, f"'{short(line)}' has no '='; Darknet takes the default of an option without a value"
    return None


def atoi(text: str) -> tuple[int, str]:
    """C's atoi: the integer that `text` begins with, 0 without one; and what of the text it leaves unread.

    Raises:
        OverflowError: it does not fit into 32 bits.
    """
    match = _INTEGER.match(text)
    if not match:
        return 0, text
    digits = match[0].lstrip("+-").lstrip("0")
    if len(digits) > 10:  # before int(), which refuses thousands of digits
        raise OverflowError(match[0])
    value = int(digits or "0") * (-1 if match[0][0] == "-" else 1)
    if not -INT_LIMIT <= value < INT_LIMIT:
        raise OverflowError(match[0])
    return value, text[match.end() :]


def atof(text: str) -> tuple[float, str]:
    """C's atof: the decimal or hexadecimal number that `text` begins with, 0 without one; and what it leaves unread.

    Raises:
        OverflowError: it is infinite, NaN or beyond float32.
    """
    if _NOT_FINITE.match(text):
        raise OverflowError(text)
    hexadecimal = _HEXADECIMAL.match(text)
    match = hexadecimal or _REAL.match(text)
    if not match:
        return 0.0, text
    value = float.fromhex(match[0]) if hexadecimal else float(match[0])
    if not abs(value) <= 3.4028235e38:
        raise OverflowError(match[0])
    return value, text[match.end() :]
