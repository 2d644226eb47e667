"""Converts the weights of a CenterNet between PyTorch's file and Keras's, both ways:

    python -m tools.convert --config x.yaml --from x.pth --to x.keras
    python -m tools.convert --config x.yaml --from x.keras --to x.pth

Of the experiment x.yaml, `task.model` and `task.data.classes` are read. A `.keras` file holds network and weights
(`keras.models.load_model`, after `import modeling.centernet.network`); a `.weights.h5` file the weights alone. PyTorch
is not needed, and nothing in its file is run (modeling/weights/torch_file.py).
"""

import argparse

from configs.centernet.task import CenterNetModel
from modeling.centernet.network import build_centernet
from modeling.centernet.weights import load_centernet_weights, save_centernet_weights
from modeling.weights.keras_file import SUFFIXES, save_keras_file
from modeling.weights.torch_file import TorchFileError
from official.core.config import Config
from official.core.config_io import load_config
from official.core.errors import one_line_errors

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar")


class _Data(Config, extra="ignore"):
    classes: tuple[str, ...]


class _Task(Config, extra="ignore"):
    model: CenterNetModel
    data: _Data


class _Network(Config, extra="ignore"):
    """What an experiment says of its network."""

    task: _Task


def convert(model: CenterNetModel, num_classes: int, source: str, target: str) -> str:
    """Writes the weights in file `source` as `target`; the ends of their names say what they are. Returns a report.

    Raises:
        UserError: a file cannot be used; says where and what was expected.
    """
    if not target.endswith((*SUFFIXES, *TORCH_SUFFIXES)):
        raise TorchFileError(f"{target}: cannot tell what to write; expected *.pth, *.keras or *.weights.h5")
    network = build_centernet(model, num_classes, seed=0)
    loaded = load_centernet_weights(network, source)
    save = save_keras_file if target.endswith(SUFFIXES) else save_centernet_weights
    save(network, target)
    return f"{loaded.report}\nwrote {target}"


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("--config", required=True, help="the experiment whose network it is")
    parser.add_argument("--from", required=True, dest="source", help="x.pth, x.keras or x.weights.h5")
    parser.add_argument("--to", required=True, dest="target", help="x.pth, x.keras or x.weights.h5")
    arguments = parser.parse_args()
    task = load_config(arguments.config, _Network).task
    print(convert(task.model, len(task.data.classes), arguments.source, arguments.target))


if __name__ == "__main__":
    main()
