"""Prove a reproduction before training it: python reproduce.py --config X.yaml [--traces DIR] [--assets DIR]

Or of Darknet's files: reproduce.py --darknet x.cfg --weights x.weights. Exit code 0: all gates that were asked passed;
1: one failed; 3: none failed, but one lacked inputs. --render report.json writes its pages anew.
"""

import preflight

preflight.check()

import sys
from pathlib import Path

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import ConfigError, load_config
from official.core.errors import one_line_errors
from reproduction import report
from reproduction.gates import BEFORE_TRAINING, GATES, run
from reproduction.gates.subject import Subject, darknet_subject
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
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.loss.gradient=true (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet", "render"], required=True)


@one_line_errors
def main(_: list[str]) -> None:
    if RENDER.value:
        proof = read_report(Path(RENDER.value))
    else:
        subject = _subject()
        results = run(subject, _numbers(ASKED.value))
        proof = report.report_of(subject, Path(CONFIG.value or DARKNET.value).stem, results)
    report.write(proof, Path(OUTPUT.value))
    report.show(proof)
    print(f"written: {OUTPUT.value}/report.html")
    sys.exit(proof.exit_code)


def _subject() -> Subject:
    if DARKNET.value:
        experiment = darknet_subject(DARKNET.value, WEIGHTS.value, SET.value)
    else:
        named = [f"reproduces.weights={WEIGHTS.value}"] if WEIGHTS.value else []
        experiment = load_config(CONFIG.value, Experiment, [*SET.value, *named])
    claimed = experiment.reproduces.traces if experiment.reproduces else ()
    traces = tuple(Path(folder) for folder in TRACES.value or claimed)
    for folder in (*traces, *(Path(one) for one in (ASSETS.value, RUN.value) if one)):
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; --traces, --assets and --run (or reproduces.traces) name one")
    assets, training = (Path(one) if one else None for one in (ASSETS.value, RUN.value))
    return Subject(experiment, traces, assets, training, tuple(CASES.value))


def _numbers(text: str) -> list[int]:
    """`1-3,7` -> [1, 2, 3, 7]."""
    numbers: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            raise ConfigError(f"--gates {text}: expected numbers, such as 1-9 or 2,4,10-12")
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or not set(numbers) <= set(GATES):
        raise ConfigError(f"--gates {text}: expected numbers from 1 to {max(GATES)}; before training {BEFORE_TRAINING}")
    return sorted(set(numbers))


if __name__ == "__main__":
    app.run(main)
