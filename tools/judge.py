"""Stored comparisons judged again, by other tolerances: python -m tools.judge FILE.json --tolerances T.yaml

FILE.json is a report.json that reproduce.py wrote. T.yaml has bounds by the kind of a quantity and its precision, as
`reproduces.tolerances` of an experiment does, which --config takes instead:

    layer: {float32: {type: of_absmax, bound: 1.0e-4}, bfloat16: {type: of_absmax, bound: 0.02}}

Nothing is computed anew: each row keeps what any tolerance needs. The exit code is 1 where a row fails.
"""

import argparse
import sys

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from reproduction.traces.judge import JudgeError, judge_again, read_rows, read_tolerances


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.judge", description=__doc__.partition("\n")[0])
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
