"""The former name of `reproduce.py --traces DIR`."""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts

from official.core.errors import one_line_errors
from reproduction import recordings, report
from reproduction.experiment.subject import subject_of


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproduction.golden", description=__doc__)
    parser.add_argument("--root", required=True, help="folder of recorded traces")
    parser.add_argument("--assets", metavar="DIR", help="weights and images, for the checks that need them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report, with all rows, here")
    asked = parser.parse_args()
    print("python -m reproduction.golden is called `python reproduce.py --traces DIR` now", file=sys.stderr)
    proof = recordings.compare(subject_of(None, [asked.root], asked.assets, None, []))
    if asked.json:
        asked.json.write_text(proof.model_dump_json(indent=1, exclude_none=True))
    report.show(proof)
    sys.exit(proof.exit_code)


if __name__ == "__main__":
    main()
