"""Stored comparisons judged again, by other tolerances. Nothing is computed: a row keeps what any tolerance needs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import yaml

from official.core.errors import UserError
from official.core.tolerance import Tolerances
from reproduction.traces.case import Row
from reproduction.traces.compare import judge


class JudgeError(UserError):
    """A file that holds no comparisons, or no tolerances."""


def judge_again(row: Row, tolerances: Tolerances) -> Row:
    """The row by the tolerance for its kind and precision; as it is where there is none, or nothing was measured."""
    tolerance = tolerances.get(row.kind, {}).get(row.precision)
    if tolerance is None or row.metrics is None:
        return row
    verdict = judge(row.metrics, tolerance)
    changed = {"error": verdict.error, "bound": verdict.bound, "note": verdict.note, "tolerance": tolerance}
    changed |= {"noise": None}  # it was measured as the former bound is
    return row.model_copy(update={**changed, "outcome": "pass" if verdict.passed else "fail"})


def read_rows(path: str | Path) -> list[Row]:
    """All rows in a JSON file of results.

    Raises:
        JudgeError: it is none, or a row is not one.
    """
    try:
        document = json.loads(Path(path).read_text())
        return [Row.model_validate(row) for row in _rows_in(document)]
    except json.JSONDecodeError as error:
        raise JudgeError(f"{path}: not JSON: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise JudgeError(f"{path}: not a row: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_tolerances(path: str | Path) -> Tolerances:
    """Tolerances in a YAML file.

    Raises:
        JudgeError: it is no such file, or a kind or precision is unknown.
    """
    try:
        return pydantic.TypeAdapter(Tolerances).validate_python(yaml.safe_load(Path(path).read_text()))
    except yaml.YAMLError as error:
        raise JudgeError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise JudgeError(f"{path}: {where or 'the file'}: {first['msg']}; expected KIND: {{PRECISION: ...}}") from None


def _rows_in(document: Any) -> Iterator[Any]:
    """Lists called `rows`, anywhere in the document, of objects that have an outcome."""
    if isinstance(document, list):
        document = dict(enumerate(document))
    for name, part in document.items() if isinstance(document, dict) else ():
        if name == "rows" and isinstance(part, list) and all("outcome" in row for row in part):
            yield from part
        else:
            yield from _rows_in(part)
