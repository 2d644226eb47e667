"""What the doors make of Darknet's own files: an experiment from a cfg, data and weights, and no YAML."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import yaml

from configs.experiment import Experiment
from dataloaders.reading.annotations import DataError, read_bytes
from dataloaders.reading.coco import categories_of
from dataloaders.reading.darknet import DataFile, class_names, read_data_file, read_names
from modeling.darknet.cfg import Network, read_cfg
from modeling.darknet.grammar import Note
from official.core.checkpoint import write_text
from official.core.config_io import ConfigError, check_config, load_config, override
from official.core.progress import say
from tasks.yolo.recipe import Sources, recipe

EXPERIMENT_FILE = "experiment.yaml"
_CHECKSUM = "# unedited as long as this is the SHA-256 of the lines below: "
_HONOURED_DATA = ("classes", "train", "valid", "names")
_DATA_REASONS = {
    "backup": "checkpoints go into --model_dir",
    "saveweights": "trainer.checkpoint.every says how often",
    "savelast": "trainer.checkpoint.every says how often",
    "results": "detections go into --model_dir",
    "difficult": "its objects are ignored in AP, as they should be, but are objects to find in darknet_mAP50",
    "eval": "detections are written in COCO's format",
}


def training_experiment(
    cfg: str, data_path: str, weights: str | None, clear: bool, overrides: list[str], directory: str
) -> Experiment:
    """What `darknet detector train x.data x.cfg [x.weights] [-clear]` runs; written as `directory`/experiment.yaml.

    Prints everything of the cfg and the `.data` that is not honoured. The file can be edited and run by --config.

    Raises:
        CfgError, DataError, ConfigError, FileNotFoundError: of a file or an override that cannot be used; or
            `directory` has an experiment that was edited.
    """
    network, data = read_cfg(cfg), read_data_file(data_path)
    classes = class_names(data)
    data["train"]  # which no training can do without
    train, valid = ({"type": "darknet", "data": data_path, "split": split} for split in ("train", "valid"))
    initialise = {"checkpoint": weights, "start_step": _start(weights, clear)} if weights else None
    made = recipe(network, Sources(classes, train, valid if "valid" in data.options else dict(train)), initialise)
    check_config(made.experiment, Experiment, cfg, overrides)  # before anything is written
    notes = listing([*made.not_honoured, *_data_notes(data)])
    origin = f"{cfg}, {data_path}" + (f", {weights}{' --clear' if clear else ''}" if weights else "")
    path = _write(directory, _as_yaml(override(made.experiment, overrides), origin, notes))
    say("\n".join([f"{cfg}: the experiment is {path}", *_titled(notes)]))
    return load_config(path, Experiment)


def evaluation_experiment(
    cfg: str, coco_json: str | None, images: str | None, data_path: str | None, names: str | None, overrides: list[str]
) -> Experiment:
    """A cfg's evaluation on a COCO file and its folder of images, or on the `valid` list of a `.data`.

    Raises:
        CfgError, DataError, ConfigError, FileNotFoundError: of a file or an override that cannot be used; or the
            classes of cfg and data cannot be told to be the same.
    """
    network = read_cfg(cfg)
    if data_path:
        data = read_data_file(data_path)
        classes = _checked_names(class_names(data), data.file("names"), network)
        source = {"type": "darknet", "data": data_path, "split": "valid"}
    elif coco_json and images:
        classes = coco_classes(network, coco_json, read_names(names) if names else None, names)
        source = {"type": "coco", "annotations": coco_json, "images": images}
    else:
        raise ConfigError("what to evaluate on: give --coco_json and --images, or --data")
    return _without_training(network, classes, source, overrides)


def export_experiment(cfg: str, data_path: str | None, names: str | None, overrides: list[str]) -> Experiment:
    """A cfg's network for export; its classes are named by a `.names` file or a `.data`, or else by their numbers.

    Raises:
        CfgError, DataError, ConfigError, FileNotFoundError: of a file or an override that cannot be used.
    """
    network = read_cfg(cfg)
    if data_path:
        data = read_data_file(data_path)
        classes = _checked_names(class_names(data), data.file("names"), network)
    elif names:
        classes = _checked_names(read_names(names), names, network)
    else:
        classes = tuple(f"class {number}" for number in range(_class_count(network)))
    # Which data it would be trained on does not matter here, and nothing opens them.
    return _without_training(
        network, classes, {"type": "darknet", "data": data_path or "none", "split": "valid"}, overrides
    )


def coco_classes(
    network: Network, coco_json: str, names: tuple[str, ...] | None, names_path: str | None
) -> tuple[str, ...]:
    """The COCO category (by its name) that each class of a cfg is.

    Without names: as many categories as classes, in the order of their ids. With names: the categories of these names;
    where only some are named alike, as many categories as names, and all that are alike in the order of the ids:
    Darknet's coco.names has aeroplane for COCO's airplane.

    Raises:
        DataError: neither holds.
    """
    categories = [name for _, name in sorted(categories_of(coco_json).items())]
    count = _class_count(network)
    if names is None:
        if len(categories) != count:
            raise DataError(
                f"{network.source} has {count} classes, {coco_json} has {len(categories)} categories: which is which? "
                "Give --names FILE with a name of the categories for each class"
            )
        return tuple(categories)
    _checked_names(names, str(names_path), network)
    alike = [name in categories for name in names]
    if all(alike):
        return names
    in_order = len(names) == len(categories) and any(alike)
    if in_order and all(categories.index(name) == number for number, name in enumerate(names) if alike[number]):
        pairs = ((name, categories[number]) for number, name in enumerate(names) if not alike[number])
        say(f"{names_path}: by their order, {', '.join(f'{one} is {other}' for one, other in pairs)}")
        return tuple(categories)
    unknown = ", ".join(name for name, known in zip(names, alike, strict=True) if not known)
    raise DataError(f"{names_path}: {coco_json} has no category named {unknown}; it has: {', '.join(categories)}")


def listing(notes: Iterable[Note]) -> list[str]:
    """One line for each thing to tell, with all the lines of the file where it stands."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for note in notes:
        lines.setdefault((note.source, note.section, note.message), []).append(note.line)
    return [
        f"{source}:{','.join(map(str, sorted(set(where))))}: [{section}] {message}"
        for (source, section, message), where in lines.items()
    ]


def _without_training(network: Network, classes: tuple[str, ...], source: dict, overrides: list[str]) -> Experiment:
    """The experiment with its evaluation as the cfg has it, and a trainer that nobody asks; prints the cfg's notes."""
    if network.notes:
        say("\n".join(listing(network.notes)))
    net = dataclasses.replace(
        network.net, max_batches=1, learning_rate=0.001, policy="constant", burn_in=0, ema_alpha=0.0
    )
    made = recipe(dataclasses.replace(network, net=net), Sources(classes, source, dict(source)))
    return check_config(made.experiment, Experiment, network.source, overrides)


def _start(weights: str, clear: bool) -> int | str:
    """The step that counts as done: Darknet's files say how much they have seen, Keras's do not."""
    return 0 if clear or weights.endswith((".keras", ".h5")) else "from_file"


def _class_count(network: Network) -> int:
    return network.heads[-1].classes if network.heads else 0


def _checked_names(names: tuple[str, ...], path: str, network: Network) -> tuple[str, ...]:
    count = _class_count(network)
    if len(names) != count:
        raise DataError(
            f"{path} has {len(names)} names, {network.source} has {count} classes; expected one for each class"
        )
    return names


def _data_notes(data: DataFile) -> list[Note]:
    notes = [
        Note(
            data.path,
            data.lines[key],
            "data",
            key,
            f"{key}={value}: {_DATA_REASONS.get(key, 'it has no counterpart here')}",
        )
        for key, value in data.options.items()
        if key not in _HONOURED_DATA
    ]
    if "valid" not in data.options:
        notes.append(
            Note(data.path, 1, "data", "valid", "no valid=: the training images are evaluated on, as in Darknet")
        )
    return notes


def _titled(notes: list[str]) -> list[str]:
    return ["not, or not wholly, honoured:", *(f"  {note}" for note in notes)] if notes else ["everything is honoured"]


def _as_yaml(experiment: dict[str, Any], origin: str, notes: list[str]) -> str:
    body = yaml.safe_dump(experiment, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True)
    head = [f"Made by train.py --darknet from {origin}.", "To be edited and run by train.py --config.", *_titled(notes)]
    return "\n".join([*(f"# {line}" for line in head), f"{_CHECKSUM}{_checksum(body)}", body])


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _write(directory: str, text: str) -> str:
    """The experiment's file, which replaces an earlier one unless that was edited."""
    path = f"{directory}/{EXPERIMENT_FILE}"
    if tf.io.gfile.exists(path):
        _, _, there = read_bytes(path, "the experiment").decode(errors="replace").partition(_CHECKSUM)
        checksum, _, body = there.partition("\n")
        if checksum != _checksum(body):
            raise ConfigError(
                f"{path}: is there already and was edited. Run it by --config {path}, or choose another --model_dir"
            )
    tf.io.gfile.makedirs(directory)
    write_text(path, text)
    return path
