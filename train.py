"""Train a detector: python train.py --config configs/experiments/demo.yaml --model_dir runs/demo"""

import preflight

preflight.check()

from absl import app, flags

from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from serving.jobs import export_checkpoint
from tasks import jobs

CONFIG = flags.DEFINE_string("config", None, "Experiment file (YAML).", required=True)
MODE = flags.DEFINE_enum("mode", "train_and_eval", ["train", "eval", "train_and_eval", "export"], "What to do.")
MODEL_DIR = flags.DEFINE_string("model_dir", None, "Run folder; an unfinished run in it is resumed.", required=True)
SET = flags.DEFINE_multi_string("set", [], "Overrides a key: --set trainer.optimizer.momentum=0.95 (repeatable).")


@one_line_errors
def main(_: list[str]) -> None:
    experiment = load_config(CONFIG.value, Experiment, SET.value)
    directory = MODEL_DIR.value.rstrip("/")
    match MODE.value:
        case "train":
            jobs.train(experiment, directory, evaluate=False)
        case "train_and_eval":
            jobs.train(experiment, directory, evaluate=True)
        case "eval":
            jobs.evaluate(experiment, directory, directory)
        case "export":
            export_checkpoint(experiment, directory, f"{directory}/saved_model")


if __name__ == "__main__":
    app.run(main)
