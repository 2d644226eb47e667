"""Train a detector: python train.py --config configs/experiments/demo.yaml --model_dir runs/demo

Or what Darknet trains: python train.py --darknet x.cfg --data x.data [--weights x.weights] [--clear] --model_dir runs/x
"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import ConfigError, load_config
from official.core.errors import one_line_errors
from serving.jobs import export_checkpoint
from tasks import darknet_files, jobs

CONFIG = flags.DEFINE_string("config", None, "Experiment file (YAML).")
DARKNET = flags.DEFINE_string(
    "darknet", None, "Darknet cfg: the experiment is derived, and written into the run folder."
)
DATA = flags.DEFINE_string("data", None, "With --darknet: the .data file.")
WEIGHTS = flags.DEFINE_string(
    "weights", None, "With --darknet: .weights, .conv.N, .weights.h5 or .keras to start from."
)
CLEAR = flags.DEFINE_bool("clear", False, "With --weights: count steps from 0, not from what the weights have seen.")
MODE = flags.DEFINE_enum("mode", "train_and_eval", ["train", "eval", "train_and_eval", "export"], "What to do.")
MODEL_DIR = flags.DEFINE_string("model_dir", None, "Run folder; an unfinished run in it is resumed.", required=True)
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set trainer.optimizer.momentum=0.95 (repeatable).")
flags.mark_flags_as_mutual_exclusive(["config", "darknet"], required=True)


@one_line_errors
def main(_: list[str]) -> None:
    directory = MODEL_DIR.value.rstrip("/")
    experiment = _experiment(directory)
    match MODE.value:
        case "train":
            jobs.train(experiment, directory, evaluate=False)
        case "train_and_eval":
            jobs.train(experiment, directory, evaluate=True)
        case "eval":
            jobs.evaluate(experiment, directory, directory)
        case "export":
            export_checkpoint(experiment, directory, f"{directory}/saved_model")


def _experiment(directory: str) -> Experiment:
    if DARKNET.value and DATA.value:
        return darknet_files.training_experiment(
            DARKNET.value, DATA.value, WEIGHTS.value, CLEAR.value, SET.value, directory
        )
    if DARKNET.value or DATA.value or WEIGHTS.value or CLEAR.value:
        raise ConfigError("--darknet and --data go together; --weights and --clear go with them, not with --config")
    return load_config(CONFIG.value, Experiment, SET.value)


if __name__ == "__main__":
    app.run(main)
