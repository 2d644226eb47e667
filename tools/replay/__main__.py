"""Rebuilds one example of a run: python -m tools.replay --config runs/X/config.yaml --step S --index I

From the configuration and its seed alone. Writes one picture with every stage side by side.
"""

import preflight

preflight.check()

import argparse

from configs.experiment import Experiment
from official.core.checkpoint import write_json
from official.core.config_io import load_config
from official.core.errors import one_line_errors
from official.vision.draw import save_figure
from tools.replay.picture import figure_of
from tools.replay.rebuild import rebuild


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="EXPERIMENT.yaml", help="such as a run's own config.yaml")
    parser.add_argument("--step", required=True, type=int, metavar="S", help="of training, 0-based")
    parser.add_argument("--index", required=True, type=int, metavar="I", help="in the global batch, 0-based")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="overrides a key (repeatable)")
    parser.add_argument("--output", metavar="FILE.png", help="the picture; replay_S_I.png")
    parser.add_argument("--json", metavar="FILE", help="receives the parameters, for another implementation to apply")
    asked = parser.parse_args()
    experiment = load_config(asked.config, Experiment, asked.set)
    replay = rebuild(experiment, asked.step, asked.index)
    if asked.json:
        write_json(asked.json, replay.parameters)
    output = asked.output or f"replay_{asked.step}_{asked.index}.png"
    save_figure(figure_of(replay, experiment.task.data.classes), output)
    for message in replay.parameters["unreadable"]:
        print(message)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
