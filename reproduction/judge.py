"""Stored comparisons judged again, by other tolerances: python -m reproduction.judge FILE.json --tolerances T.yaml

FILE.json is a report.json that reproduce.py wrote. T.yaml has bounds by the kind of a quantity and its precision, as
`reproduces.tolerances` of an experiment does, which --config takes instead:

    layer: {float32: {type: of_absmax, bound: 1.0e-4}, bfloat16: {type: of_absmax, bound: 0.02}}

Nothing is computed anew: each row keeps what any tolerance needs. The exit code is 1 where a row fails.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import yaml

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import UserError, one_line_errors
from official.core.tolerance import Tolerances
from reproduction.compare import judge
from reproduction.golden.case import Row


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


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="reproduction.judge", description=__doc__.partition("\n")[0])
    parser.add_argument("results", metavar="FILE.json")
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument("--tolerances", metavar="FILE.yaml")
    by.add_argument("--config", metavar="FILE.yaml", help="an experiment with reproduces.tolerances")
    arguments = parser.parse_args()
    if arguments.tolerances:
        tolerances = read_tolerances(arguments.tolerances)
    else:
        claims = load_config(arguments.config, Experiment, []).reproduces
        tolerances = claims.tolerances if claims else {}
    before = read_rows(arguments.results)
    if not before:
        raise JudgeError(f"{arguments.results}: has no rows of results")
    after = [judge_again(row, tolerances) for row in before]
    for old, new in zip(before, after, strict=True):
        if old.outcome != new.outcome:
            what = f"{new.error:.3g}, bound {new.bound:.3g}"
            print(f"{new.case} {new.quantity}: {old.outcome} -> {new.outcome} ({new.kind}, {new.precision}: {what})")
    again = sum(new is not old for old, new in zip(before, after, strict=True))
    outcomes = [row.outcome for row in after]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in ("pass", "fail", "skip"))
    print(f"{again} of {len(after)} rows judged again: {counts}")
    sys.exit("fail" in outcomes)


if __name__ == "__main__":
    main()
