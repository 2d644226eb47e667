"""Examines an experiment's data before it trains: python -m tools.doctor --config EXPERIMENT.yaml

Exit code 1 where there is a fault. --output DIR receives a page with pictures, and report.json.
"""

import preflight

preflight.check()

import argparse
import sys

from configs.experiment import Experiment
from official.core.checkpoint import write_json
from official.core.config_io import load_config
from official.core.errors import UserError, one_line_errors
from tools.doctor.diagnosis import diagnose
from tools.doctor.report import as_text, write_report


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="EXPERIMENT.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key (repeatable)")
    parser.add_argument("--output", metavar="DIR", help="receives index.md, report.json and pictures")
    parser.add_argument("--json", metavar="FILE", help="receives all findings, with every file, and the numbers")
    parser.add_argument("--anchors", type=int, metavar="N", help="of k-means; as many as the head has")
    asked = parser.parse_args()
    if asked.anchors is not None and asked.anchors < 1:
        raise UserError(f"--anchors {asked.anchors}: expected at least 1")
    experiment = load_config(asked.config, Experiment, asked.set)
    diagnosis = diagnose(experiment, asked.anchors)
    if asked.json:
        write_json(asked.json, diagnosis.as_dict())
    if asked.output:
        write_report(diagnosis, experiment, asked.output.rstrip("/"))
    print(as_text(diagnosis))
    sys.exit(1 if diagnosis.has_faults else 0)


if __name__ == "__main__":
    main()
