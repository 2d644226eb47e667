"""Evaluate one checkpoint, or each new one of a training job: python evaluate.py --config C.yaml --watch runs/demo

Or Darknet's files: evaluate.py --darknet x.cfg --weights x.weights --coco_json A.json --images DIR --json FILE
"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import ConfigError, load_config
from official.core.errors import one_line_errors
from tasks import darknet_files, jobs

CONFIG = flags.DEFINE_string("config", None, "Experiment file; a run's own is RUN/config.yaml.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint or run folder (its best one), or file of weights.")
WATCH = flags.DEFINE_string("watch", None, "Run folder of a training job: evaluate each new checkpoint.")
TIMEOUT = flags.DEFINE_float("timeout", 3600, "With --watch: stop when no checkpoint came for so many seconds.")
OUTPUT = flags.DEFINE_string("output", None, "Receives metrics.json and detections.json.")
DARKNET = flags.DEFINE_string("darknet", None, "Darknet cfg, instead of --config.")
WEIGHTS = flags.DEFINE_string("weights", None, "With --darknet: .weights, .weights.h5 or .keras.")
COCO_JSON = flags.DEFINE_string("coco_json", None, "With --darknet: annotations in COCO's format.")
IMAGES = flags.DEFINE_string("images", None, "With --coco_json: the folder of its images.")
NAMES = flags.DEFINE_string("names", None, "With --coco_json: names of the cfg's classes; else by category ids' order.")
DATA = flags.DEFINE_string("data", None, "With --darknet, instead of --coco_json: a .data file; its valid list.")
JSON = flags.DEFINE_string("json", None, "With --darknet: receives metrics, protocol; FILE.detections.json beside it.")
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set task.evaluation.nms_threshold=0.5 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet"], required=True)
flags.mark_flags_as_mutual_exclusive(["coco_json", "data"])
flags.mark_flags_as_mutual_exclusive(["names", "data"])


@one_line_errors
def main(_: list[str]) -> None:
    foreign = (CHECKPOINT, WATCH, OUTPUT) if DARKNET.value else (WEIGHTS, COCO_JSON, IMAGES, NAMES, DATA, JSON)
    given = [f"--{flag.name}" for flag in foreign if flag.value]
    if given:
        raise ConfigError(
            f"{', '.join(given)} {'does' if len(given) == 1 else 'do'} not go with "
            f"--{'darknet' if DARKNET.value else 'config'}; see --help"
        )
    if DARKNET.value and WEIGHTS.value and JSON.value:
        data = (COCO_JSON.value, IMAGES.value, DATA.value, NAMES.value)
        jobs.evaluate_to_file(
            darknet_files.evaluation_experiment(DARKNET.value, *data, SET.value), WEIGHTS.value, JSON.value
        )
    elif DARKNET.value or not OUTPUT.value or bool(CHECKPOINT.value) == bool(WATCH.value):
        raise ConfigError("--darknet needs --weights and --json; --config needs --output, and --checkpoint or --watch")
    elif WATCH.value:
        experiment = load_config(CONFIG.value, Experiment, SET.value)
        jobs.watch(experiment, WATCH.value.rstrip("/"), OUTPUT.value, TIMEOUT.value)
    else:
        jobs.evaluate(load_config(CONFIG.value, Experiment, SET.value), CHECKPOINT.value, OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
