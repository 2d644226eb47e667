"""Converts weights between an original's file and Keras's, both ways.

    python -m tools.convert --config x.yaml --from x.pth --to x.keras        # of an experiment's network
    python -m tools.convert --cfg x.cfg --from x.keras --to x.weights        # of a Darknet cfg's
    python -m tools.convert --cfg x.cfg --from x.weights --to x.conv.15 --partial 15

The ends of the names say what is read and written. A `.keras` file holds network and weights
(`keras.models.load_model`, after `import tasks`); a `.weights.h5` file the weights alone. Of a backbone's file
(`*.conv.N`, ImageNet's) the layers it lacks get initial weights. `--partial` cuts out the first layers of a file, as a
start for another class count. No program of the original is needed, and nothing in its file is run.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import keras

from configs.experiment import Experiment
from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import load_weights, save_weights
from modeling.darknet.weights import SUFFIX, cut_weights, network_records, read_weights
from modeling.weights.keras_file import SUFFIXES, save_keras_file
from official.core.config_io import load_config
from official.core.errors import UserError, one_line_errors
from official.core.task import Loaded
from tasks import TASKS, build_task


class Network(NamedTuple):
    """A network between its original's files and Keras's."""

    suffixes: tuple[str, ...]  # of the original's files; the first is the usual one
    load: Callable[[str], tuple[keras.Model, Loaded]]  # builds it, filled from the original's file or Keras's
    save: Callable[[keras.Model, str, int], None]  # writes the original's file; the number: images seen


def of_experiment(path: str) -> Network:
    """The network of the experiment in file `path`."""
    task = build_task(load_config(path, Experiment))

    def load(source: str) -> tuple[keras.Model, Loaded]:
        model = task.build_model()
        return model, task.load_weights(model, source)

    return Network(task.weights_suffixes, load, task.save_weights)


def of_cfg(path: str) -> Network:
    """The network of the Darknet cfg in file `path`."""
    network = read_cfg(path)
    records = network_records(network)

    def load(source: str) -> tuple[keras.Model, Loaded]:
        if not source.endswith(SUFFIXES):
            read_weights(source, records)  # before the network takes memory, see that the file fits it
        model = build_network(network, seed=0).model
        return model, load_weights(model, source, records)

    return Network((SUFFIX,), load, lambda model, target, seen: save_weights(model, target, records, seen))


def convert(network: Network, source: str, target: str, seen: int | None = None) -> str:
    """Writes the weights in file `source` as `target`; the ends of their names say what they are. Returns a report.

    seen: images behind the weights, for a .weights file; by default what `source` says, 0 where it does not.

    Raises:
        UserError: a file cannot be used; says where and what was expected.
    """
    expected = ", ".join(f"*{suffix}" for suffix in (*network.suffixes[:1], *SUFFIXES[:-1])) + f" or *{SUFFIXES[-1]}"
    if not target.endswith((*SUFFIXES, *network.suffixes)):
        raise UserError(f"{target}: cannot tell what to write; expected {expected}")
    others = {suffix for task in TASKS.values() for suffix in task.weights_suffixes}.difference(network.suffixes)
    if source.endswith(tuple(others)):
        raise UserError(f"{source}: is of another original than this network; expected {expected}")
    if seen is not None and not target.endswith(SUFFIX):
        raise UserError(f"--seen {seen}: {target} has no place for it; only *{SUFFIX} has")
    model, loaded = network.load(source)
    if target.endswith(SUFFIXES):
        save_keras_file(model, target)
    else:
        network.save(model, target, (loaded.examples_seen or 0) if seen is None else seen)
    return f"{loaded.report}\nwrote {target}"


def cut(cfg: str | None, source: str, target: str, layers: int, seen: int | None) -> str:
    """Writes the first `layers` layers of a cfg's file of weights as `target`. Returns a report.

    Raises:
        UserError: a file cannot be used, or something else was given that does not go with it.
    """
    if cfg is None:
        raise UserError(f"--partial {layers}: its layers are those of a cfg; give --cfg instead of --config")
    if source.endswith(SUFFIXES):
        raise UserError(f"{source}: --partial cuts Darknet's own files; expected *{SUFFIX} or *.conv.N")
    if seen is not None:
        raise UserError(f"--seen {seen}: a part of a network counts from 0; leave it out with --partial")
    return cut_weights(cfg, source, target, layers)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--config", metavar="EXPERIMENT.yaml", help="the experiment whose network it is")
    network.add_argument("--cfg", metavar="FILE.cfg", help="the Darknet cfg whose network it is")
    parser.add_argument("--from", required=True, dest="source", metavar="FILE", help="the original's, or Keras's")
    parser.add_argument("--to", required=True, dest="target", metavar="FILE", help="the original's, or Keras's")
    parser.add_argument("--seen", type=int, metavar="N", help="images seen in training, for the header of x.weights")
    parser.add_argument("--partial", type=int, metavar="N", help="only the cfg's first N layers, to a file *.conv.N")
    asked = parser.parse_args()
    if asked.partial is not None:
        print(cut(asked.cfg, asked.source, asked.target, asked.partial, asked.seen))
        return
    network = of_cfg(asked.cfg) if asked.cfg else of_experiment(asked.config)
    print(convert(network, asked.source, asked.target, asked.seen))


if __name__ == "__main__":
    main()
