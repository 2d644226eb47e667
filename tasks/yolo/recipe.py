"""From a Darknet cfg to the experiment it stands for, and to the list of what in it is not honoured.

`recipe` is a pure function: the cfg's [net], its heads' options and its layers' training options become the words of
`configs/`. What Darknet takes from one head for all (jitter, resize, random, max, classes, nms_kind, beta_nms) is the
last head's, as in detector.c train_detector. tasks/yolo/recipe_options.py says of every option what becomes of it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from configs.yolo.heads import Head
from configs.yolo.losses import Loss
from losses.yolo.from_cfg import head_of, loss_of
from modeling.darknet.cfg import Network
from modeling.darknet.classes import with_classes
from modeling.darknet.grammar import CfgError, Note
from modeling.darknet.head_sections import Detection
from modeling.darknet.net import Net
from modeling.darknet.options import Layer
from modeling.darknet.shapes import layer_shapes
from tasks.yolo.recipe_options import not_honoured

Data = dict[str, Any]
LARGEST_EVALUATION_BATCH = 16
LAST_WITHOUT_AVERAGE = 1000  # updates, whatever their number; before them ema_alpha's average replaces the weights


class Recipe(NamedTuple):
    """An experiment as plain data, for `official.core.config_io`, and what of the cfg is not in it, and why."""

    experiment: dict[str, Any]
    not_honoured: tuple[Note, ...]


class Sources(NamedTuple):
    """What to train and score on, in the words of configs/data.py."""

    classes: tuple[str, ...]
    train: Data
    validation: Data


def recipe(network: Network, sources: Sources, initialise: Data | None = None) -> Recipe:
    """The experiment that Darknet would run with this cfg on these data, which may have another number of classes.

    initialise: `trainer.initialise`, where weights are given.

    Raises:
        CfgError: there is no head, heads of several kinds, another number of channels than 3, or no duration.
    """
    head_of(network)  # raises where there is none, or several kinds
    _check(network)
    of_these = (*_of_short_trainings(network), *_of_other_classes(network, len(sources.classes)))
    notes = (*network.notes, *not_honoured(network), *of_these)
    network = with_classes(network, len(sources.classes))
    net, last = network.net, network.heads[-1]
    head, loss = head_of(network), loss_of(network)
    trainer = {
        "duration": {"steps": net.max_batches},
        "micro_batches": net.subdivisions,
        "steps_per_loop": 100,
        "optimizer": _optimizer(net),
        "schedule": schedule(net),
        "moving_average": _moving_average(net),
        "layers": [*_layer_rules(network)],
        "initialise": initialise,
        "checkpoint": {"every": {"steps": 1000}, "best_metric": "darknet_mAP50"},
    }
    experiment = {
        "task": {
            "type": "yolo",
            "model": {
                "type": "darknet",
                "cfg": network.source,
                "input_size": [net.height, net.width],
                "head": _plain(head),
            },
            "loss": _plain(loss),
            "data": _data(net, last, sources),
            "evaluation": _protocol(net, last),
        },
        "trainer": {key: value for key, value in trainer.items() if value},
    }
    return Recipe(experiment, notes)


def _check(network: Network) -> None:
    net = network.net
    where = f"{network.source}:{net.line}: [net]"
    if net.channels != 3:
        raise CfgError(f"{where} channels={net.channels}: images are read as RGB; expected 3")
    if net.max_batches < 1:
        raise CfgError(f"{where} max_batches={net.max_batches}: no training at all; expected the number of updates")
    if net.learning_rate <= 0:
        raise CfgError(f"{where} learning_rate={net.learning_rate}: expected a number above 0")


def _of_short_trainings(network: Network) -> list[Note]:
    """Where Darknet itself makes nothing of an average."""
    net = network.net
    if not net.ema_alpha or not _is_too_short_for_average(net):
        return []
    message = (
        f"ema_alpha={net.ema_alpha}: has no effect with max_batches={net.max_batches}: Darknet averages from "
        f"max_batches / 2 to max_batches - {LAST_WITHOUT_AVERAGE}"
    )
    return [Note(network.source, net.line, "net", "ema_alpha", message)]


def _of_other_classes(network: Network, classes: int) -> list[Note]:
    """Where the data have another number of classes than the cfg."""
    notes = []
    for head in network.heads:
        if head.classes != classes:
            message = f"classes={head.classes}: the data have {classes}, and the layer before the head as many filters"
            lost = [key for key in ("counters_per_class", "map") if getattr(head, key, None)]
            message += f" as they take; {', '.join(lost)} of other classes left out" if lost else " as they take"
            notes.append(Note(network.source, head.line, head.section, "classes", message))
    return notes


def _plain(config: Head | Loss) -> Data:
    """What a configuration states beyond its defaults, and its type."""
    return {"type": config.type, **config.model_dump(mode="json", exclude_defaults=True)}


def _optimizer(net: Net) -> Data:
    if not net.adam:
        return {"type": "sgd", "momentum": net.momentum, "weight_decay": net.decay}
    epsilon = net.eps / (net.mini_batch * net.subdivisions)  # Darknet's is beside the gradient's sum over the batch
    return {"type": "adam", "beta1": net.B1, "beta2": net.B2, "epsilon": epsilon, "weight_decay": net.decay}


def schedule(net: Net) -> Data:
    """`trainer.schedule`: the policy, and the burn-in."""
    policy = {"type": net.policy, "learning_rate": net.learning_rate, **_POLICIES[net.policy](net)}
    if net.burn_in > 0:
        policy["burn_in"] = {"length": {"steps": net.burn_in}, "power": net.power}
    return policy


def _drops(net: Net) -> list[Data]:
    """A step below 1 has been reached from the start."""
    return [{"at": {"steps": max(1, at)}, "scale": scale} for at, scale in zip(net.steps, net.scales, strict=False)]


_POLICIES = {
    "constant": lambda net: {},
    "steps": lambda net: {"drops": _drops(net)},
    "step": lambda net: {"every": {"steps": net.step}, "scale": net.scale},
    "exp": lambda net: {"gamma": net.gamma},
    "poly": lambda net: {"power": net.power},
    "random": lambda net: {"power": net.power},
    "sigmoid": lambda net: {"gamma": net.gamma, "middle": {"steps": net.step}},
    "sgdr": lambda net: {
        "cycle": {"steps": net.sgdr_cycle},
        "multiplier": net.sgdr_mult,
        "minimum": net.learning_rate_min,
    },
}


def _moving_average(net: Net) -> Data | None:
    """From the middle of the training to LAST_WITHOUT_AVERAGE before its end (network.c train_network_waitkey)."""
    if not net.ema_alpha or _is_too_short_for_average(net):
        return None
    return {
        "decay": net.ema_alpha,
        "warm_up": False,
        "start": {"steps": net.max_batches // 2},
        "statistics": False,
        "replaces_weights_at": {"steps": net.max_batches - LAST_WITHOUT_AVERAGE},
    }


def _is_too_short_for_average(net: Net) -> bool:
    """Whether the average would end before it begins, or where it does."""
    return net.max_batches - LAST_WITHOUT_AVERAGE <= net.max_batches // 2


def _layer_rules(network: Network) -> list[Data]:
    """Rates of single layers, layers that do not learn (train_only_bn), and those that wait (stopbackward above 1).

    `stopbackward=1` needs no rule: what it freezes is not trainable in the network itself.
    """
    waits: dict[int, list[int]] = {}
    rates: dict[float, list[int]] = {}
    wait = 0
    for layer, shape in zip(reversed(network.layers), reversed(layer_shapes(network)), strict=True):
        wait = max(wait, layer.stopbackward if layer.stopbackward > 1 else 0)
        if shape.parameters:
            waits.setdefault(wait, []).append(layer.index)
            rates.setdefault(0.0 if layer.train_only_bn else layer.learning_rate, []).append(layer.index)
    waiting = [
        {"name": name, "no_gradient": {"steps": steps}} for steps in waits if steps for name in patterns(waits[steps])
    ]
    slower = [{"name": name, "learning_rate": rate} for rate in rates if rate != 1 for name in patterns(rates[rate])]
    return waiting + slower


def patterns(indices: Iterable[int]) -> list[str]:
    """Patterns of the names of these cfg layers' Keras layers: one for neighbours of the same ten, as `L01[3-7]_*`."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1 and index % 10:
            runs[-1] = runs[-1][0], index
        else:
            runs.append((index, index))
    units = {run: f"{run[0] % 10}" if run[0] == run[1] else f"[{run[0] % 10}-{run[1] % 10}]" for run in runs}
    return [f"L{run[0] // 10:02d}{unit}_*" for run, unit in units.items()]


def _data(net: Net, last: Layer, sources: Sources) -> Data:
    batch_size = net.mini_batch * net.subdivisions
    train = {
        "source": sources.train,
        "batch_size": batch_size,
        "max_boxes": last.max,
        "augmentation": _augmentation(net, last),
    }
    if last.random and not isinstance(last, Detection):
        train["multi_scale"] = {"coefficient": 1.4 if last.random == 1 else last.random}
        if net.max_batches > 100:
            train["multi_scale"]["largest_from"] = {"steps": net.max_batches - 99}
    return {
        "classes": list(sources.classes),
        "train": train,
        "validation": {"source": sources.validation, "batch_size": min(net.mini_batch, LARGEST_EVALUATION_BATCH)},
    }


def _augmentation(net: Net, last: Layer) -> Data:
    """[net]'s colours, blur, noise and flip, the last head's jitter and resize.

    Darknet takes 1 for a factor of 0 (data.c load_thread), and is taken for its build with OpenCV, which trained the
    published weights and alone has mosaics: it fills with the image's mean. [detection] is trained by yolo.c
    train_yolo, which always flips, knows no resize, and changes colours in float in every build. Half of the examples
    are composed, and mosaic comes before mixup (parser.c parse_net_options).
    """
    of_v1 = isinstance(last, Detection)
    opencv = {"type": "darknet_opencv", "blur": net.blur, "gaussian_noise": max(0, min(net.gaussian_noise, 127))}
    compositions = {}
    if net.mosaic and not of_v1:
        compositions = {"mosaic": 0.5, "mosaic_bound": bool(net.mosaic_bound)}
    elif net.mixup == 1 and not of_v1:
        compositions = {"mixup": 0.5}
    return {
        "flip": of_v1 or bool(net.flip),
        "jitter": last.jitter,
        "resize": 1.0 if of_v1 else last.resize,
        "hue": net.hue,
        "saturation": net.saturation or 1.0,
        "exposure": net.exposure or 1.0,
        "colour": {"type": "darknet_float"} if of_v1 else opencv,
        "fill": "mean",
        **compositions,
    }


def _protocol(net: Net, last: Layer) -> Data:
    """As `detector map` detects, but with a lower floor, as COCO's evaluation wants it.

    Images are resized as OpenCV does: so were those that the published weights were trained on. Darknet's evaluation
    aligns the corners instead: interpolation: align_corners.
    """
    kind = getattr(last, "nms_kind", "default")
    protocol = {"resize": "letterbox" if net.letter_box else "stretch", "interpolation": "opencv"}
    if kind in ("greedynms", "diounms"):
        protocol |= {"nms": kind, "beta_nms": last.beta_nms}
    return protocol
