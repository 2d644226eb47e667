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

from official.core.errors import one_line_errors
from reproduction import report
from reproduction.gates import GATES
from reproduction.prove import prove
from reproduction.report.model import read_report

flags.DEFINE_string("config", None, "Experiment file (YAML).")
flags.DEFINE_string("darknet", None, "Darknet cfg, instead of --config.")
flags.DEFINE_string("weights", None, "The original's weights, instead of reproduces.weights.")
flags.DEFINE_multi_string("traces", [], "Folder of traces, instead of reproduces.traces (repeatable).")
flags.DEFINE_string("assets", None, "Folder with the original's weights, cfg and images, in any depth.")
flags.DEFINE_string("run", None, "Folder of a training run, for gates 11 and 12.")
flags.DEFINE_string("gates", "1-9", f"Such as 1-9 or 2,4,10-12; there are {len(GATES)}.")
flags.DEFINE_list("cases", [], "Only cases whose name matches one of these patterns.")
flags.DEFINE_string("compare", None, "A Keras model (.keras), to be compared with --trace.")
flags.DEFINE_string("trace", None, "The trace (.npz) that --compare is compared with.")
flags.DEFINE_string("map", None, "Names for --compare, {ours: theirs} (YAML or JSON), where they differ.")
OUTPUT = flags.DEFINE_string("output", "runs/proof", "Receives report.html, .json, .md and model_card.md.")
RENDER = flags.DEFINE_string("render", None, "A report.json: its pages are written again, and no gate is asked.")
flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.loss.ignore_thresh=0.6 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet", "render", "compare"])


@one_line_errors
def main(_: list[str]) -> None:
    proof = read_report(Path(RENDER.value)) if RENDER.value else prove(flags.FLAGS)
    report.write(proof, Path(OUTPUT.value))
    report.show(proof)
    print(f"written: {OUTPUT.value}/report.html")
    sys.exit(proof.exit_code)


if __name__ == "__main__":
    app.run(main)
