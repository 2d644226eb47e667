"""What a docstring or comment states of a tensor: box format, shape, dtype. Only what is unambiguous is compared."""

import re

FORMATS = ("yxyx", "xyxy", "cxcywh", "xywh")
_WORDS = {
    r"\bltrb\b|\bleft,? top,? right,? bottom\b|\bx1, ?y1, ?x2, ?y2\b|\bx_?min, ?y_?min, ?x_?max, ?y_?max\b": {"xyxy"},
    r"\btlbr\b|\btop,? left,? bottom,? right\b|\by1, ?x1, ?y2, ?x2\b|\by_?min, ?x_?min, ?y_?max, ?x_?max\b": {"yxyx"},
    r"\bltwh\b|\bleft,? top,? width,? height\b": {"xywh"},
    r"\bcent(?:re|er)[ _]x, ?cent(?:re|er)[ _]y, ?width, ?height\b|\bcx, ?cy, ?w(?:idth)?, ?h(?:eight)?\b": {"cxcywh"},
    r"(?<!centre )(?<!center )\bx, ?y, ?w(?:idth)?, ?h(?:eight)?\b": {"xywh", "cxcywh"},  # either
}
_HEADERS = ("Args", "Arguments", "Parameters", "Attributes", "Returns?", "Yields", "Raises", "Examples?", "Notes?")
# A shape at the beginning of a text, after a box format or dtype at most: what stands later may be another tensor's.
_SHAPE = re.compile(
    rf"(?:{'|'.join(FORMATS)}|boxes|[,;:]|\s)*(?:(\w+) )?(?:of )?(?:\[([^\[\]]*,[^\[\]]*)\]|shape \(([^()]*,[^()]*)\))"
)
_COORDINATES = re.compile(r"^(c?[xy](c|\d|_?(min|max))?|top|left|bottom|right)$", re.IGNORECASE)
_SIZE = re.compile(r"^(\.\.\.|\*?[A-Za-z_]\w*|[1-9]\d*)$")
_DTYPE = re.compile(r"^(?:b?float(?:16|32|64)|u?int(?:8|16|32|64)|bool|complex(?:64|128))$")
_KINDS = {"Float": "b?float", "Int": "int", "UInt": "uint", "Integer": "u?int", "Complex": "complex"}
_ANY_DTYPE = {"Shaped", "Num", "Real", "Inexact", "Key", "PRNGKeyArray"}


def formats_of(text: str) -> set[str]:
    """The box formats that a text names."""
    found = {name for name in FORMATS if re.search(rf"\b{name}\b", text, re.IGNORECASE)}
    for pattern, meant in _WORDS.items():
        if re.search(pattern, text, re.IGNORECASE):
            found |= meant
    return found


def formats_in_name(name: str) -> set[str]:
    """The same of an identifier: BoxesYXYX, boxes_xyxy."""
    return {form for form in FORMATS if form in name.lower()}


def split(doc: str, names: list[str]) -> tuple[str, dict[str, str]]:
    """A docstring's general part, and what it says of each name ("return": of the result). Google, NumPy, Sphinx."""
    doc = re.sub(r"^([ \t]*\w+)[ \t]*\n[ \t]*-{3,}[ \t]*$", r"\1:", doc, flags=re.MULTILINE)
    known = "|".join([*map(re.escape, names), *_HEADERS])
    start = re.compile(
        rf"(?:^[ \t]*|(?<=[;.])\s+):?(?:param \s*)?[*`]*({known})`?[ \t]*(?:\([^)\n]*\))?[ \t]*:(?=\s|$)", re.MULTILINE
    )
    matches = list(start.finditer(doc))
    general, own = [doc[: matches[0].start()] if matches else doc], {}
    ends = [*(match.start() for match in matches[1:]), len(doc)]
    for match, end in zip(matches, ends, strict=False):
        text, *rest = re.split(r"\n[ \t]*\n", doc[match.end() : end], maxsplit=1)
        name = "return" if re.fullmatch("returns?", match[1], re.IGNORECASE) else match[1]
        own[name] = f"{own.get(name, '')} {' '.join(text.split())}".strip()
        general += rest
    return "\n".join(general), own


def shape_of(text: str) -> tuple[str, list[str]] | None:
    """(dtype or an empty string, sizes) if a text begins with them: "float32 [batch, n, 4]"."""
    if (match := _SHAPE.match(text)) is None:
        return None
    sizes = [size.strip() for size in (match[2] or match[3]).split(",")]
    if all(map(str.isdigit, sizes)) or any(map(_COORDINATES.match, sizes)) or not all(map(_SIZE.match, sizes)):
        return None  # a range of values, or what the numbers of a box are
    return match[1] if match[1] and _DTYPE.match(match[1]) else "", sizes


def shapes_differ(stated: list[str], annotated: list[str]) -> bool:
    """Whether rank, a fixed size, or the order of the same names differ; "..." and "*name" may be anything."""
    for one, other in zip(reversed(stated), reversed(annotated), strict=False):
        if _is_any(one) or _is_any(other):
            return False
        if one.isdigit() and other.isdigit() and one != other:
            return True
    if any(map(_is_any, [*stated, *annotated])):
        return False
    return len(stated) != len(annotated) or (sorted(stated) == sorted(annotated) and stated != annotated)


def dtypes_differ(stated: str, annotated: str) -> bool:
    """Whether jaxtyping's dtype does not include the one that a text states."""
    if not stated or annotated in _ANY_DTYPE:
        return False
    return not re.fullmatch(_KINDS[annotated] + r"\d+" if annotated in _KINDS else annotated.lower(), stated)


def _is_any(size: str) -> bool:
    return size == "..." or size.startswith("*")
