"""Converts the weights of a Darknet cfg between Darknet's file and Keras's, both ways:

    python -m modeling.darknet.convert --cfg x.cfg --from x.weights --to x.keras
    python -m modeling.darknet.convert --cfg x.cfg --from x.keras --to x.weights

A `.keras` file holds network and weights (`keras.models.load_model`, after `import modeling.darknet.build`); a
`.weights.h5` file the weights alone. Backbones (`*.conv.N`) are converted like whole files; the layers they lack get
initial weights.
"""

import argparse

from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import load_weights, save_weights
from modeling.darknet.weights import WeightsError, network_records, read_weights
from modeling.weights.keras_file import SUFFIXES, save_keras_file
from official.core.errors import one_line_errors


def convert(cfg: str, source: str, target: str, seen: int | None = None) -> str:
    """Writes the weights in file `source` as `target`; the ends of their names say what they are. Returns a report.

    seen: images behind the weights, for a .weights file; by default what `source` says, 0 where it does not.

    Raises:
        UserError: a file cannot be used; says where and what was expected.
    """
    if not target.endswith((*SUFFIXES, ".weights")):
        raise WeightsError(f"{target}: cannot tell what to write; expected *.weights, *.keras or *.weights.h5")
    network = read_cfg(cfg)
    records = network_records(network)
    if not source.endswith(SUFFIXES):
        read_weights(source, records)  # before the network takes memory, see that the file fits it
    model = build_network(network, seed=0).model
    loaded = load_weights(model, source, records)
    if target.endswith(SUFFIXES):
        save_keras_file(model, target)
    else:
        save_weights(model, target, records, (loaded.examples_seen or 0) if seen is None else seen)
    return f"{loaded.report}\nwrote {target}"


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modeling.darknet.convert", description=__doc__.partition("\n")[0])
    parser.add_argument("--cfg", required=True)
    parser.add_argument("--from", required=True, dest="source", help="x.weights, x.conv.N, x.keras or x.weights.h5")
    parser.add_argument("--to", required=True, dest="target", help="x.weights, x.keras or x.weights.h5")
    parser.add_argument("--seen", type=int, help="images the network was trained with, for the header of x.weights")
    arguments = parser.parse_args()
    print(convert(arguments.cfg, arguments.source, arguments.target, arguments.seen))


if __name__ == "__main__":
    main()
