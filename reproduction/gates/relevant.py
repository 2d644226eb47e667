"""Which recorded cases say something about an experiment: those made of what its model and training are made of."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from configs.centernet import CenterNetModel
from configs.yolo_heads import Head
from configs.yolo_losses import Loss
from losses.from_cfg import head_and_loss
from modeling.darknet.cfg import Network, parse_cfg
from reproduction.gates.subject import Subject
from reproduction.golden.case import Case
from reproduction.golden.centernet_model import Parameters, architecture

Features = frozenset[tuple[str, str]]


def is_relevant(kind: str, subject: Subject, case: Case) -> bool:
    """Whether a case of this golden kind is about the subject; without an experiment, all are."""
    return subject.experiment is None or _RULES.get(kind, _always)(subject, case)


def _always(subject: Subject, case: Case) -> bool:
    return True


def _same_layers(subject: Subject, case: Case) -> bool:
    """All its sections and activations are in the model; of a model without a cfg that is not known, and not asked."""
    return subject.network is None or features(case.network) <= features(subject.network) | _EVERYWHERE


_EVERYWHERE: Features = frozenset({("activation", "linear"), ("section", "net")})


def features(network: Network) -> Features:
    """Sections and activations of a network."""
    sections = {("section", layer.section) for layer in network.layers}
    return frozenset(sections | {("activation", getattr(layer, "activation", "linear")) for layer in network.layers})


def _same_head(subject: Subject, case: Case) -> bool:
    """The head is of the same kind, and so are its box loss and its coordinates."""
    task = subject.experiment.task
    return not subject.is_centernet and _traits(task.model.head, task.loss) == _traits(*head_and_loss(case.network))


def _traits(head: Head, loss: Loss) -> tuple:
    new_coords = any(getattr(level, "new_coords", False) for level in getattr(head, "levels", ()))
    return head.type, getattr(loss, "iou_loss", ""), new_coords


def _same_optimizer(subject: Subject, case: Case) -> bool:
    if subject.is_centernet:
        return False
    is_adam = subject.experiment.trainer.optimizer.type == "adam"
    return is_adam == bool(case.network.net.adam) and subject.experiment.task.model.head.type == _head_type(case)


def _head_type(case: Case) -> str:
    return head_and_loss(case.network)[0].type


def _same_policy(subject: Subject, case: Case) -> bool:
    network = parse_cfg(case.trace.text(f"cfg/{case.part}"), f"{case.path}:cfg/{case.part}")
    return network.net.policy == subject.experiment.trainer.schedule.type


def _same_network(subject: Subject, case: Case) -> bool:
    """Recorded with the subject's weights; where those are not at hand, from a cfg with the same layers."""
    if subject.weights is not None:
        return case.trace.text("meta/weights_sha256") == sha256(subject.weights)
    if subject.network is None:
        return False
    ours, theirs = subject.network.layers, case.network.layers
    return [layer.section for layer in ours] == [layer.section for layer in theirs]


def _same_name(subject: Subject, case: Case) -> bool:
    """Detections of the subject's weights, by the file's name."""
    name = subject.claims.weights.rpartition("/")[2].removesuffix(".weights")
    return bool(name) and case.path.stem.removesuffix("_opencv") == name


def _same_centernet(subject: Subject, case: Case) -> bool:
    """The recorded parameters are those of the experiment's backbone, decoder and head, for any number of classes."""
    model = subject.experiment.task.model
    if not subject.is_centernet:
        return False
    *_, height, width = case.trace["input"].shape
    parts, _ = architecture(Parameters.of(case).shapes())
    recorded = CenterNetModel(input_size=(height, width), **parts)
    here, there = (_parts(one) for one in (model, recorded))
    return here == there


def _parts(model: CenterNetModel) -> tuple:
    head = model.head
    return model.backbone, model.decoder, head.head_conv, head.cat_spec_wh, head.reg_offset


def _same_centernet_options(subject: Subject, case: Case) -> bool:
    """The loss's options, by the name that the file has: each case has one of them."""
    if not subject.is_centernet:
        return False
    loss, head = subject.experiment.task.loss, subject.experiment.task.model.head
    of_case = {name for name in ("reg_sl1", "cat_spec_wh", "dense_wh") if name in case.path.stem}
    chosen = {"reg_sl1": loss.reg_loss == "sl1", "cat_spec_wh": head.cat_spec_wh, "dense_wh": loss.dense_wh}
    return of_case == {name for name, is_chosen in chosen.items() if is_chosen}


def _is_centernet(subject: Subject, case: Case) -> bool:
    return subject.is_centernet


def _is_darknet(subject: Subject, case: Case) -> bool:
    return not subject.is_centernet


def _deformable(subject: Subject, case: Case) -> bool:
    decoder = subject.experiment.task.model.decoder if subject.is_centernet else None
    return decoder is not None and (decoder.type == "dla_up" or decoder.deformable)


_RULES: Mapping[str, Callable[[Subject, Case], bool]] = {
    "layers_eval": _same_layers,
    "layers_train": _same_layers,
    "boxes": _same_head,
    "assignment": _same_head,
    "loss": _same_head,
    "gradients": _same_head,
    "optimiser": _same_optimizer,
    "updates": _same_optimizer,
    "learning_rate": _same_policy,
    "activations": _is_darknet,
    "iou": _is_darknet,
    "nms": _is_darknet,
    "images": _is_darknet,
    "infer": _same_network,
    "decode": _same_network,
    "coco_val": _same_name,
    "centernet_gaussian": _is_centernet,
    "centernet_targets": _is_centernet,
    "centernet_train_targets": _is_centernet,
    "centernet_train_inputs": _is_centernet,
    "centernet_augment": _is_centernet,
    "centernet_loss": _same_centernet_options,
    "centernet_decode": _is_centernet,
    "centernet_dcn": _deformable,
    "centernet_network": _same_centernet,
    "centernet_updates": _same_centernet,
    "centernet_adam": _same_centernet,
}


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
