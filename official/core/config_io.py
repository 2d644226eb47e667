"""Reading and writing experiment files: YAML with `include`, `--set`, and errors that say where and what to do."""

import copy
import difflib
import json
import logging
import os
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import pydantic
import tensorflow as tf
import yaml

from official.core.config import Config, Duration
from official.core.errors import UserError, first_line

ConfigType = TypeVar("ConfigType", bound=Config)
KeyPath = tuple[str | int, ...]
Origins = dict[KeyPath, str]
_LOG = logging.getLogger(__name__)
DURATION_UNITS = frozenset(Duration.model_fields)


class ConfigError(UserError):
    """A configuration that cannot be used; the message names file, path, what was expected and what to do."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number (YAML 1.1 reads text) and a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config(path: str, model: type[ConfigType], overrides: Sequence[str] = ()) -> ConfigType:
    """Reads an experiment file, merges what it includes, applies `a.b.c=value` overrides, and checks it all.

    Raises:
        ConfigError: one message that lists every problem with file, line, path, expectation and nearest known key.
    """
    data, origins = _read(_normal(path), model, including=())
    for text in overrides:
        _apply_override(data, origins, text)
    return _check(data, origins, model, path)


def check_config(
    data: dict[str, Any], model: type[ConfigType], source: str, overrides: Sequence[str] = ()
) -> ConfigType:
    """The same of a configuration that is no file: plain data, made from `source`, which errors name.

    Raises:
        ConfigError: as `load_config`.
    """
    changed, origins = copy.deepcopy(data), {}
    for text in overrides:
        _apply_override(changed, origins, text)
    return _check(changed, origins, model, source)


def override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with `a.b.c=value` overrides applied; `data` itself stays as it is.

    Raises:
        ConfigError: an override is not of this form, or goes through a value that has no keys.
    """
    changed = copy.deepcopy(data)
    for text in overrides:
        _apply_override(changed, {}, text)
    return changed


def _check(data: dict[str, Any], origins: Origins, model: type[ConfigType], source: str) -> ConfigType:
    try:
        # JSON mode is strict about types, yet reads a YAML list as a tuple.
        return model.model_validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        problems = [_explain(problem, data, origins, model, source) for problem in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def dump_config(config: Config) -> str:
    """The fully resolved configuration as YAML; an absent optional part is left out."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120)


def _read(path: str, model: type[Config], including: tuple[str, ...]) -> tuple[dict[str, Any], Origins]:
    """One file and all that it includes, as plain data, with the origin (file:line) of every key path.

    Each is brought into today's words by itself, since one that someone types may include one that a run saved.
    """
    if path in including:
        raise ConfigError(f"{path}: includes itself through {' -> '.join((*including, path))}; remove one include")
    own, own_origins = _parse(_read_text(path, including), path)
    if not isinstance(own, dict):
        raise ConfigError(
            f"{path}: an experiment is a mapping of keys (runtime, task, trainer); got {type(own).__name__}"
        )
    own, renamed = model.from_saved(own)
    if renamed:
        _LOG.warning(f"{path}: was saved by an older version: {renamed}")
    includes = own.pop("include", [])
    includes = [includes] if isinstance(includes, str) else includes
    if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
        raise ConfigError(f"{path}: include: expected a file name or a list of file names; got {includes!r}")
    data, origins = {}, {}
    folder = path.rpartition("/")[0]
    for include in includes:
        absolute = include.startswith("/") or "://" in include or not folder
        target = _normal(include if absolute else f"{folder}/{include}")
        _merge(data, origins, *_read(target, model, (*including, path)))
    _merge(data, origins, own, own_origins)
    return data, origins


def _normal(path: str) -> str:
    """One spelling of each path, so that a cycle of includes is seen."""
    return path if "://" in path else os.path.normpath(path)


def _parse(text: str, where: str) -> tuple[Any, Origins]:
    """YAML text as plain data with the origin of every key path; `where` is the file or option it stands in."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        return ({}, {}) if node is None else _to_data(node, where, ())
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{where}{line}: not valid YAML: {reason}") from None


def _read_text(path: str, including: tuple[str, ...]) -> str:
    if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
        with tf.io.gfile.GFile(path, "rb") as file:
            try:
                return file.read().decode()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    folder, _, name = path.rpartition("/")
    siblings = tf.io.gfile.listdir(folder or ".") if tf.io.gfile.isdir(folder or ".") else []
    hint = _did_you_mean(name, siblings)
    source = f" (included by {including[-1]})" if including else ""
    raise ConfigError(f"{path}: no such configuration file{source}{hint}")


def _to_data(node: yaml.Node, path: str, where: KeyPath) -> tuple[Any, Origins]:
    origins = {where: f"{path}:{node.start_mark.line + 1}"}
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise ConfigError(f"{path}:{key_node.start_mark.line + 1}: a key is a word, not a list or mapping")
            if key in mapping:
                raise ConfigError(
                    f"{path}:{key_node.start_mark.line + 1}: {_dotted((*where, key))}: given twice; keep one"
                )
            mapping[key], inner = _to_data(value_node, path, (*where, key))
            origins |= inner
            origins[(*where, key)] = f"{path}:{key_node.start_mark.line + 1}"
        return mapping, origins
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item_node in enumerate(node.value):
            item, inner = _to_data(item_node, path, (*where, index))
            items.append(item)
            origins |= inner
        return items, origins
    value = _Loader("").construct_object(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ConfigError(f"{origins[where]}: {_dotted(where)}: {type(value).__name__} values are not used here")
    return value, origins


def _merge(into: dict[str, Any], origins: Origins, data: dict[str, Any], data_origins: Origins) -> None:
    """`data` wins. Mappings merge key by key; one with another `type`, and a duration, replaces the whole mapping."""
    for key, value in data.items():
        old = into.get(key)
        mappings = isinstance(old, dict) and isinstance(value, dict)
        is_duration = mappings and bool(value) and value.keys() <= DURATION_UNITS
        if mappings and value.get("type", old.get("type")) == old.get("type") and not is_duration:
            _merge(old, origins, value, {})
        else:
            into[key] = value
    origins |= data_origins


def _apply_override(data: dict[str, Any], origins: Origins, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override}: expected key.path=value, for example --set trainer.duration.steps=100")
    where: list[str | int] = []
    target: Any = data
    *parents, last = dotted.strip().split(".")
    for key in parents:
        target = _child(target, key, override, where)
    if isinstance(target, list):
        last = _index(target, last, override)
    target[last], _ = _parse(text, f"--set {override}") if text.strip() else (None, {})
    origins[(*where, last)] = f"--set {override}"


def _child(target: Any, key: str, override: str, where: list[str | int]) -> Any:
    if isinstance(target, list):
        index = _index(target, key, override)
        where.append(index)
        return target[index]
    where.append(key)
    child = target.setdefault(key, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {override}: {_dotted(where)} is the value {child!r}, it has no keys below it")
    return child


def _index(target: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise ConfigError(f"--set {override}: {key!r} is not an index into a list of {len(target)} items")
    return int(key)


def _explain(problem: Any, data: Any, origins: Origins, model: type[Config], path: str) -> str:
    """One pydantic problem in the user's terms: file:line: key path: what is wrong, what was expected."""
    where = _without_union_tags(problem["loc"], data, problem["type"] == "missing")
    origin = next((origins[where[:n]] for n in range(len(where), -1, -1) if where[:n] in origins), path)
    known = _known_keys(model, problem["loc"][:-1])
    match problem["type"]:
        case "extra_forbidden":
            message = f"unknown key{_did_you_mean(str(where[-1]), known)} Known here: {', '.join(known)}."
        case "missing":
            message = "required, but not given"
        case "union_tag_invalid":
            context = problem["ctx"]
            expected = re.findall(r"'([^']*)'", context["expected_tags"])
            hint = _did_you_mean(context["tag"], expected)
            message = f"unknown type {context['tag']!r}{hint} Known: {', '.join(expected)}."
        case "union_tag_not_found":
            message = "`type` is required here, to choose the part"
        case "value_error":
            message = str(problem["ctx"]["error"])
        case _:
            got = (
                ""
                if isinstance(problem["input"], dict)
                else f"; got {problem['input']!r} ({type(problem['input']).__name__})"
            )
            message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}{got}"
    return f"{origin}: {_dotted(where) or 'experiment'}: {message}"


def _without_union_tags(loc: KeyPath, data: Any, last_is_missing: bool) -> KeyPath:
    """pydantic puts the chosen member of a union into the location; the user's file has no such key."""
    where: list[str | int] = []
    for number, key in enumerate(loc, start=1):
        if not isinstance(data, dict | list):  # a number or a text has no keys
            break
        absent = isinstance(data, dict) and key not in data and not (last_is_missing and number == len(loc))
        if absent and data.get("type", key) == key:
            continue
        where.append(key)
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
    return tuple(where)


def _known_keys(model: type[Config], loc: KeyPath) -> list[str]:
    candidates = [model]
    for key in loc:
        fields = [m.model_fields[key] for m in candidates if key in m.model_fields]
        if fields:
            candidates = [config for field in fields for config in _configs_in(field.annotation)]
        elif isinstance(key, str):  # the tag of a union
            candidates = [m for m in candidates if "type" in m.model_fields and m.model_fields["type"].default == key]
    return sorted({name for m in candidates for name in m.model_fields})


def _configs_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for argument in typing.get_args(annotation) for config in _configs_in(argument)]


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else "."


def _dotted(where: Sequence[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in where).lstrip(".")
