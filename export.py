"""Export a detector as SavedModel: python export.py --config RUN/config.yaml --checkpoint RUN --output FOLDER"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from serving.jobs import export_checkpoint

CONFIG = flags.DEFINE_string("config", None, "Experiment file; a run's own is RUN/config.yaml.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Checkpoint folder, or a run folder (its best one).", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.evaluation.score_floor=0.05 (repeatable).")


@one_line_errors
def main(_: list[str]) -> None:
    export_checkpoint(load_config(CONFIG.value, Experiment, SET.value), CHECKPOINT.value, OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
