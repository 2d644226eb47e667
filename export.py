"""Export a detector: python export.py --config RUN/config.yaml --checkpoint RUN --output FOLDER [--format saved_model]

Or Darknet's files: python export.py --darknet x.cfg --weights x.weights [--names x.names] --output FOLDER
"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from serving.formats import FORMATS
from serving.jobs import export_checkpoint
from tasks import darknet_files

CONFIG = flags.DEFINE_string("config", None, "Experiment file; a run's own is RUN/config.yaml.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint or run folder (its best one), or file of weights.")
DARKNET = flags.DEFINE_string("darknet", None, "Darknet cfg, instead of --config.")
WEIGHTS = flags.DEFINE_string("weights", None, "With --darknet: .weights, .weights.h5 or .keras; as --checkpoint.")
NAMES = flags.DEFINE_string("names", None, "With --darknet: names of its classes, one a line; else their numbers.")
DATA = flags.DEFINE_string("data", None, "With --darknet, instead of --names: a .data file that names them.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
FORMAT = flags.DEFINE_enum("format", "saved_model", list(FORMATS), "What to write.")
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.evaluation.score_floor=0.05 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet"], required=True)
flags.mark_flags_as_mutual_exclusive(["checkpoint", "weights"], required=True)


@one_line_errors
def main(_: list[str]) -> None:
    if DARKNET.value:
        experiment = darknet_files.export_experiment(DARKNET.value, DATA.value, NAMES.value, SET.value)
    else:
        experiment = load_config(CONFIG.value, Experiment, SET.value)
    export_checkpoint(experiment, CHECKPOINT.value or WEIGHTS.value, OUTPUT.value, FORMAT.value)


if __name__ == "__main__":
    app.run(main)
