"""Evaluate one checkpoint, or each new one of a training job: python evaluate.py --config C.yaml --watch runs/demo"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from tasks import jobs

CONFIG = flags.DEFINE_string("config", None, "Experiment file; a run's own is RUN/config.yaml.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or a run folder (its best checkpoint).")
WATCH = flags.DEFINE_string("watch", None, "Run folder of a training job: evaluate each new checkpoint.")
TIMEOUT = flags.DEFINE_float("timeout", 3600, "With --watch: stop when no checkpoint came for so many seconds.")
OUTPUT = flags.DEFINE_string("output", None, "Receives metrics.json and detections.json.", required=True)
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.evaluation.nms_threshold=0.5 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["checkpoint", "watch"], required=True)


@one_line_errors
def main(_: list[str]) -> None:
    experiment = load_config(CONFIG.value, Experiment, SET.value)
    if WATCH.value:
        jobs.watch(experiment, WATCH.value.rstrip("/"), OUTPUT.value, TIMEOUT.value)
    else:
        jobs.evaluate(experiment, CHECKPOINT.value, OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
