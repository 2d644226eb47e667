"""CenterNet as an original: its checks, and which recorded cases say something about an experiment."""

from collections.abc import Iterator

from configs.centernet.task import CenterNetModel
from reproduction.centernet import (
    augment,
    decode,
    deformable,
    losses,
    targets,
    training,
)
from reproduction.centernet import (
    network as centernet_network,
)
from reproduction.centernet.draws import DRAWS
from reproduction.centernet.model import Parameters, architecture
from reproduction.centernet.recipe import RULES, are_options
from reproduction.centernet.seeded import CenterNet
from reproduction.experiment.original import Original
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.check import Check, of_trace
from reproduction.traces.result import NoInputsError


def same_network(subject: Subject, case: Case) -> bool:
    """Whether the recorded parameters are those of its backbone, decoder and head, for any number of classes."""
    *_, height, width = case.trace["input"].shape
    parts, _ = architecture(Parameters.of(case).shapes())
    recorded = CenterNetModel(input_size=(height, width), **parts)
    here, there = (_parts(one) for one in (subject.experiment.task.model, recorded))
    return here == there


def _parts(model: CenterNetModel) -> tuple:
    head = model.head
    return model.backbone, model.decoder, head.head_conv, head.cat_spec_wh, head.reg_offset


def same_options(subject: Subject, case: Case) -> bool:
    """Whether the loss's options agree, by the name that the file has: each case has one of them."""
    loss, head = subject.experiment.task.loss, subject.experiment.task.model.head
    of_case = {name for name in ("reg_sl1", "cat_spec_wh", "dense_wh") if name in case.path.stem}
    chosen = {"reg_sl1": loss.reg_loss == "sl1", "cat_spec_wh": head.cat_spec_wh, "dense_wh": loss.dense_wh}
    return of_case == {name for name, is_chosen in chosen.items() if is_chosen}


def is_deformable(subject: Subject, case: Case) -> bool:
    decoder = subject.experiment.task.model.decoder
    return decoder is not None and (decoder.type == "dla_up" or decoder.deformable)


def network(case: Case, subject: Subject) -> Iterator[Row]:
    """The network of the experiment's own parts, with the recorded parameters."""
    yield from centernet_network.network(case)
    subject.own.note_network()


def no_weights(case: Case, subject: Subject) -> Iterator[Row]:
    raise NoInputsError("no detections of an original CenterNet are recorded, and its published weights not at hand")


CHECKS = (
    Check(
        "centernet_dcn", "deformable convolution and its gradients", 2, of_trace(deformable.operator),
        "dcnv2_*.npz", is_deformable, about="layer",
    ),
    Check(
        "centernet_network", "networks: stages, heads, moving statistics", 2, network,
        "*_trace.npz", same_network, needed=True, beside=("*_state_dict.npz",),
    ),
    Check(
        "centernet_decode", "peaks, boxes, flip test, soft-NMS", 3, of_trace(decode.decoding),
        "decode_*.npz", needed=True, about="boxes",
    ),
    Check("centernet_score", "AP of the original's weights", 4, no_weights),
    Check(
        "centernet_gaussian", "radii and heatmaps", 5, of_trace(targets.gaussian),
        "gaussian*.npz", parts=targets.folders, needed=True, about="targets",
    ),
    Check(
        "centernet_targets", "targets of images", 5, of_trace(targets.targets),
        "targets_*.npz", parts=targets.folders, needed=True, about="targets",
    ),
    Check(
        "centernet_train_targets", "targets of augmented images", 5, of_trace(targets.targets),
        "augment_train_*.npz", parts=targets.folders, about="targets",
    ),
    Check(
        "centernet_loss", "loss terms and their gradients", 6, of_trace(losses.losses),
        "loss_*.npz", same_options, needed=True, about="gradient",
    ),
    Check(
        "centernet_updates", "Adam alone, on recorded gradients", 7, of_trace(training.updates),
        "*_trace.npz", same_network, needed=True, about="parameters",
    ),
    Check(
        "centernet_augment", "maps, warps, colours, test images", 8, of_trace(augment.units),
        "augment_units*.npz", parts=augment.unit_parts, needed=True, about="image",
    ),
    Check(
        "centernet_train_inputs", "pixels of augmented images", 8, of_trace(augment.train_inputs),
        "augment_train_*.npz", parts=targets.folders, needed=True, about="image",
    ),
    Check(
        "centernet_adam", "steps of the trainer with Adam", 9, of_trace(training.steps),
        "*_trace.npz", same_network, needed=True, about="steps",
    ),
)  # fmt: skip

CENTERNET = Original(
    name="centernet",
    family="centernet",
    recognises=are_options,
    checks=CHECKS,
    recipe=RULES,
    draws=DRAWS,
    seeded=CenterNet,
    network=("backbone", "decoder"),
    coarsest_stride=lambda model: model.coarsest_stride,
    fixes_size=lambda model: False,
)
