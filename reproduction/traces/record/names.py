"""Names and layouts of what a network computed: legal in a trace, and each once."""

from collections.abc import Iterable, Mapping

from reproduction.traces.causes.residual import Array
from reproduction.traces.trace import Layout

AXES = {"N": "image", "C": "channel", "H": "row", "W": "column"}


def legal(name: str) -> str:
    """A name as traces allow it: words separated by `/`."""
    words = [word for word in name.replace("\\", "/").split("/") if word and word != ".."]
    return "/".join(words) or "unnamed"


def fresh(name: str, taken: Iterable[str]) -> str:
    """The name, or the next free one after it: conv1, conv1/call2, ..."""
    taken, number, found = set(taken), 1, name
    while found in taken:
        number += 1
        found = f"{name}/call{number}"
    return found


def maps_in(layout: str, arrays: Mapping[str, Array]) -> dict[str, Layout]:
    """This layout for each array that has four axes."""
    declared = Layout(layout=layout, axes=tuple(AXES[letter] for letter in layout))
    return {name: declared for name, array in arrays.items() if getattr(array, "ndim", 0) == 4}
