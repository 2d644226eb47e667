"""The network of a YOLO task: made of parts, or read from a Darknet cfg. Both load the same files of weights."""

import hashlib

import keras

from configs.yolo.darknet_model import DarknetModel
from configs.yolo.heads import DetectionHead, Head, RegionHead
from configs.yolo.task import YoloModel
from dataloaders.reading.annotations import read_bytes
from modeling.darknet.build import build_network
from modeling.darknet.cfg import Network, read_cfg
from modeling.darknet.classes import with_classes
from modeling.darknet.head_sections import Detection, Region
from modeling.darknet.loading import load_weights, model_records, save_weights
from modeling.darknet.options import Layer
from modeling.darknet.weights import Record, network_records
from modeling.yolo.network import build_detector, build_folded
from official.core.config_io import ConfigError
from official.core.task import Loaded

Model = YoloModel | DarknetModel


def build(model: Model, classes: int, seed: int, input_size: tuple[int | None, int | None]) -> keras.Model:
    """The network with fresh weights from `seed`, to be trained; `input_size` (height, width), None where it varies.

    Raises:
        CfgError, ConfigError: the cfg cannot be built, or its heads are not those of the configuration.
    """
    if isinstance(model, YoloModel):
        return build_detector(model, classes, seed, input_size)
    network = _network(model, classes)
    return build_network(
        network,
        seed=seed,
        norm=model.norm,
        norm_momentum=model.norm_momentum,
        norm_epsilon=model.norm_epsilon,
        input_size=input_size,
    ).model


def build_for_inference(model: Model, classes: int) -> keras.Model:
    """The network with batch-norm folded into its convolutions; its weights come by `fold_into`."""
    if isinstance(model, YoloModel):
        return build_folded(model, classes)
    network = _network(model, classes)
    return build_network(
        network, seed=0, norm="folded", norm_epsilon=model.norm_epsilon, input_size=model.input_size
    ).model


def load(model: Model, classes: int, network: keras.Model, path: str) -> Loaded:
    """Fills a network of `build` from Darknet's .weights or .conv.N, or Keras's .weights.h5 or .keras.

    Raises:
        WeightsError: the file cannot be read, or is another network's.
    """
    return load_weights(network, path, _records(model, classes, network))


def save(model: Model, classes: int, network: keras.Model, path: str, seen: int) -> None:
    """Writes a network of `build` as Darknet's .weights; `seen` is the images it was trained with.

    Raises:
        WeightsError: Darknet's format has no place for a layer of the network.
    """
    save_weights(network, path, _records(model, classes, network), seen)


def facts(model: Model) -> dict[str, str]:
    """What tells such a network from another beyond what its configuration says: the content of the cfg."""
    if isinstance(model, YoloModel):
        return {}
    return {"cfg": hashlib.sha256(read_bytes(model.cfg, "the cfg")).hexdigest()}


def _records(model: Model, classes: int, network: keras.Model) -> list[Record]:
    """The layers of a network of `build` in the order of Darknet's files."""
    return model_records(network) if isinstance(model, YoloModel) else network_records(_network(model, classes))


def _network(model: DarknetModel, classes: int) -> Network:
    """The cfg for as many classes, its heads checked against the configured ones."""
    network = read_cfg(model.cfg)
    here, there = _shape(model.head), [(head.section.lower(), *_numbers(head)) for head in network.heads]
    if here != there:
        raise ConfigError(
            f"task.model.head: its levels, as (type, anchors) or (type, side, boxes), are {here}, but those of "
            f"{model.cfg} are {there or 'none'}; expected the same (anchors themselves may be others)"
        )
    return with_classes(network, classes)


def _shape(head: Head) -> list[tuple]:
    """Of each level of a configured head: its type and how many anchors it predicts."""
    if isinstance(head, RegionHead | DetectionHead):
        return [(head.type, *((len(head.anchors),) if isinstance(head, RegionHead) else (head.side, head.num)))]
    return [(head.type, len(level.mask)) for level in head.levels]


def _numbers(head: Layer) -> tuple[int, ...]:
    """The same of a cfg's head, without the type."""
    if isinstance(head, Detection):
        return head.side, head.num
    return (head.num,) if isinstance(head, Region) else (len(head.mask),)
