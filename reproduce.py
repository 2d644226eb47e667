"""Prove a reproduction before training it: python reproduce.py --config X.yaml [--traces DIR] [--assets DIR]

Or of Darknet's files: reproduce.py --darknet x.cfg --weights x.weights. --traces alone compares every recording in it;
--compare model.keras --trace x.npz [--map map.yaml] compares a Keras model with any trace. Exit code 0: all gates that
were asked passed, and a check ran every part of the experiment; 1: a gate failed, or the input cannot be used; 3: none
failed, but one lacked inputs; 4: all passed, but no check ran some part. --render report.json writes its pages again.
"""

import preflight

preflight.check()

import sys
from pathlib import Path

from absl import app, flags

from configs.experiment import Experiment
from official.core.errors import UserError, one_line_errors
from reproduction import foreign, recordings, report
from reproduction.gates import GATES, numbers_in, run
from reproduction.report.model import read_report
from reproduction.subject import claimed_experiment, darknet_experiment, subject_of

CONFIG = flags.DEFINE_string("config", None, "Experiment file (YAML).")
DARKNET = flags.DEFINE_string("darknet", None, "Darknet cfg, instead of --config.")
WEIGHTS = flags.DEFINE_string("weights", None, "The original's weights, instead of reproduces.weights.")
TRACES = flags.DEFINE_multi_string("traces", [], "Folder of traces, instead of reproduces.traces (repeatable).")
ASSETS = flags.DEFINE_string("assets", None, "Folder with the original's weights, cfg and images, in any depth.")
RUN = flags.DEFINE_string("run", None, "Folder of a training run, for gates 11 and 12.")
ASKED = flags.DEFINE_string("gates", "1-9", f"Such as 1-9 or 2,4,10-12; there are {len(GATES)}.")
CASES = flags.DEFINE_list("cases", [], "Only cases whose name matches one of these patterns.")
COMPARE = flags.DEFINE_string("compare", None, "A Keras model (.keras), to be compared with --trace.")
TRACE = flags.DEFINE_string("trace", None, "The trace (.npz) that --compare is compared with.")
MAP = flags.DEFINE_string("map", None, "Names for --compare, {ours: theirs} (YAML or JSON), where they differ.")
OUTPUT = flags.DEFINE_string("output", "runs/proof", "Receives report.html, .json, .md and model_card.md.")
RENDER = flags.DEFINE_string("render", None, "A report.json: its pages are written again, and no gate is asked.")
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.loss.ignore_thresh=0.6 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet", "render", "compare"])


@one_line_errors
def main(_: list[str]) -> None:
    proof = read_report(Path(RENDER.value)) if RENDER.value else _prove()
    report.write(proof, Path(OUTPUT.value))
    report.show(proof)
    print(f"written: {OUTPUT.value}/report.html")
    sys.exit(proof.exit_code)


def _prove() -> report.Report:
    if bool(COMPARE.value) != bool(TRACE.value):
        raise UserError("--compare model.keras and --trace x.npz go together")
    if COMPARE.value:
        return foreign.compare(COMPARE.value, TRACE.value, MAP.value)
    numbers, experiment = numbers_in(ASKED.value), _experiment()
    subject = subject_of(experiment, TRACES.value, ASSETS.value, RUN.value, CASES.value)
    if experiment is None:
        return recordings.compare(subject, numbers)
    return report.report_of(subject, Path(CONFIG.value or DARKNET.value).stem, run(subject, numbers))


def _experiment() -> Experiment | None:
    """The experiment that is named; none where there are traces alone."""
    if CONFIG.value:
        return claimed_experiment(CONFIG.value, WEIGHTS.value, SET.value)
    if DARKNET.value:
        return darknet_experiment(DARKNET.value, WEIGHTS.value, SET.value)
    if not TRACES.value:
        raise UserError("nothing to prove: give --config X.yaml or --darknet x.cfg, --traces DIR alone, or --compare")
    return None


if __name__ == "__main__":
    app.run(main)
