"""How the text of a cfg's option becomes a value, and the options every section after [net] has."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

FLT_MAX = 3.4028234663852886e38
LARGEST = 1 << 24  # count or size in a cfg: what is larger is a slip, and would only ask for memory


class Option(NamedTuple):
    """How the text of one option becomes its value."""

    default: Any = None
    key: str | None = None  # in the cfg, where it is no Python name
    choices: tuple[str, ...] | None = None  # of a str; any other is an error, or `otherwise`
    otherwise: str | None = None  # what Darknet silently takes for any other str
    alias: Mapping[str, str] = {}  # further choices, and which they mean
    at_least: int | None = None  # smaller numbers are an error
    at_most: int = LARGEST  # of a number with `at_least`; larger ones are an error
    required: str | None = None  # what the option says; its absence is an error
    until_hash: bool = False  # a list ends at '#' (otherwise only each number does)
    then: Callable[[Any, dict[str, Any]], Any] | None = None  # (value, options before this one and index) -> value


def option(default: Any = None, **how: Any) -> Any:
    """A dataclass field read from the cfg. `default` None means absent; see `Option` for the rest."""
    return dataclasses.field(default=default, metadata={"option": Option(default, **how)})


def absolute(index: int, options: dict[str, Any]) -> int:
    """Darknet counts a negative layer index back from the layer that says it."""
    return index + options["index"] if index < 0 else index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """What every section after [net] has. `index` counts from 0 after [net], `line` from 1."""

    section: ClassVar[str]

    index: int
    line: int
    learning_rate: float = option(1.0)  # multiplies the network's
    stopbackward: int = option(0)  # 1: the layers before this one are frozen; n > 1: until iteration n
    onlyforward: int = option(0)
    dont_update: int = option(0)
    burnin_update: int = option(0)
    train_only_bn: int = option(0)  # resolved: a layer has what any later layer asks for
    clip: float = option(0.0)
    dontload: int = option(0)
    dontloadscales: int = option(0)
