"""Prove a reproduction before training it: python reproduce.py --config X.yaml [--traces DIR] [--assets DIR]

Or of Darknet's files: reproduce.py --darknet x.cfg --weights x.weights. Exit code 0: all gates that were asked passed;
1: one failed; 3: none failed, but one lacked inputs. --render report.json writes its pages anew.
"""

import preflight

preflight.check()

import sys
from pathlib import Path

from absl import app, flags

from official.core.errors import one_line_errors
from reproduction import report
from reproduction.gates import GATES, numbers_in, run
from reproduction.gates.subject import claimed_experiment, darknet_experiment, subject_of
from reproduction.report.model import read_report

CONFIG = flags.DEFINE_string("config", None, "Experiment file (YAML).")
DARKNET = flags.DEFINE_string("darknet", None, "Darknet cfg, instead of --config.")
WEIGHTS = flags.DEFINE_string("weights", None, "The original's weights, instead of reproduces.weights.")
TRACES = flags.DEFINE_multi_string("traces", [], "Folder of traces, instead of reproduces.traces (repeatable).")
ASSETS = flags.DEFINE_string("assets", None, "Folder with the original's weights, cfg and images, in any depth.")
RUN = flags.DEFINE_string("run", None, "Folder of a training run, for gates 11 and 12.")
ASKED = flags.DEFINE_string("gates", "1-9", f"Such as 1-9 or 2,4,10-12; there are {len(GATES)}.")
CASES = flags.DEFINE_list("cases", [], "Only recorded cases whose name matches one of these patterns.")
OUTPUT = flags.DEFINE_string("output", "runs/proof", "Receives report.html, .json, .md and model_card.md.")
RENDER = flags.DEFINE_string("render", None, "A report.json: its pages are written anew, and no gate is asked.")
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.loss.ignore_thresh=0.6 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet", "render"], required=True)


@one_line_errors
def main(_: list[str]) -> None:
    if RENDER.value:
        proof = read_report(Path(RENDER.value))
    else:
        numbers = numbers_in(ASKED.value)
        experiment = (
            darknet_experiment(DARKNET.value, WEIGHTS.value, SET.value)
            if DARKNET.value
            else claimed_experiment(CONFIG.value, WEIGHTS.value, SET.value)
        )
        subject = subject_of(experiment, TRACES.value, ASSETS.value, RUN.value, CASES.value)
        proof = report.report_of(subject, Path(CONFIG.value or DARKNET.value).stem, run(subject, numbers))
    report.write(proof, Path(OUTPUT.value))
    report.show(proof)
    print(f"written: {OUTPUT.value}/report.html")
    sys.exit(proof.exit_code)


if __name__ == "__main__":
    app.run(main)
