"""Darknet as an original: its checks, and which recorded cases say something about an experiment."""

from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.cfg import Network, parse_cfg
from reproduction.experiment.original import Original
from reproduction.experiment.subject import Subject, sha256
from reproduction.traces.case import Case
from reproduction.traces.check import Check, of_trace
from reproduction.yolo import (
    boxes,
    functions,
    inference,
    layers,
    loss,
    own_network,
    score,
    training,
)
from reproduction.yolo.case import network_of
from reproduction.yolo.draws import DRAWS
from reproduction.yolo.loss import same_kind
from reproduction.yolo.recipe import RULES, cfg_of, darknet_experiment, is_cfg
from reproduction.yolo.seeded import Yolo
from reproduction.yolo.sizes import coarsest_stride, fixes_size

Features = frozenset[tuple[str, str]]
_EVERYWHERE: Features = frozenset({("activation", "linear"), ("section", "net")})


def same_layers(subject: Subject, case: Case) -> bool:
    """Whether all sections and activations are in the model; of a model without a cfg that is not known, and true."""
    return cfg_of(subject) is None or features(network_of(case)) <= features(cfg_of(subject)) | _EVERYWHERE


def features(network: Network) -> Features:
    """Sections and activations of a network."""
    sections = {("section", layer.section) for layer in network.layers}
    return frozenset(sections | {("activation", getattr(layer, "activation", "linear")) for layer in network.layers})


def same_optimizer(subject: Subject, case: Case) -> bool:
    is_adam = subject.experiment.trainer.optimizer.type == "adam"
    head, _ = head_and_loss(network_of(case))
    return is_adam == bool(network_of(case).net.adam) and subject.experiment.task.model.head.type == head.type


def same_policy(subject: Subject, case: Case) -> bool:
    network = parse_cfg(case.trace.text(f"cfg/{case.part}"), f"{case.path}:cfg/{case.part}")
    return network.net.policy == subject.experiment.trainer.schedule.type


def same_network(subject: Subject, case: Case) -> bool:
    """Whether it was recorded with the subject's weights; where those are missing, from a cfg with the same layers."""
    if subject.weights is not None:
        return case.trace.text("meta/weights_sha256") == sha256(subject.weights)
    if cfg_of(subject) is None:
        return False
    ours, theirs = cfg_of(subject).layers, network_of(case).layers
    return [layer.section for layer in ours] == [layer.section for layer in theirs]


def same_name(subject: Subject, case: Case) -> bool:
    """Whether these are detections of the subject's weights, by the file's name."""
    name = subject.claims.weights.rpartition("/")[2].removesuffix(".weights")
    return bool(name) and case.path.stem.removesuffix("_opencv") == name


CHECKS = (
    Check(
        "activations", "activation functions", 2, of_trace(functions.activation),
        "misc/activations.npz", parts=functions.activation_cases,
    ),
    Check(
        "layers_eval", "networks of one layer, evaluation mode", 2, of_trace(layers.evaluation),
        "layers/*.npz", same_layers,
    ),
    Check(
        "infer", "real detectors: layers, heads, boxes, NMS", 2, of_trace(inference.inference),
        "infer/*.npz", same_network, needed=True, needs_assets=True,
    ),
    Check(
        "own_network", "the experiment's own network on recorded inputs", 2, own_network.outputs,
        "infer/*.npz", own_network.has_weights,
    ),
    Check("cfg_network", "the experiment's own network beside the cfg's", 2, own_network.beside_cfg),
    Check(
        "iou", "IoU, GIoU, DIoU, CIoU and Darknet's derivatives", 3, of_trace(functions.iou_family), "misc/iou.npz",
    ),
    Check("nms", "what each kind of NMS keeps", 3, of_trace(functions.nms), "misc/nms.npz", parts=functions.nms_cases),
    Check(
        "boxes", "boxes of grids that are not square, beside the formula", 3, of_trace(boxes.decoding),
        "loss/*.npz", same_kind,
    ),
    Check(
        "decode", "boxes and NMS alone, from recorded outputs", 3, of_trace(inference.decoding),
        "infer/*.npz", same_network, needed=True,
    ),
    Check(
        "coco_val", "COCO AP beside that of recorded detections", 4, score.check,
        "coco_val/*.json", same_name, needed=True, needs_assets=True,
    ),
    Check(
        "assignment", "which slots answer for an object", 5, loss.assignment,
        "loss/*.npz", same_kind, needed=True,
    ),
    Check("loss", "delta and cost of the heads", 6, loss.deltas, "loss/*.npz", same_kind, needed=True),
    Check(
        "gradients", "parameter gradients of whole networks", 6, training.gradients,
        "loss_cudnn_emulated/*.npz", same_kind,
    ),
    Check(
        "learning_rate", "learning rates of all policies", 7, of_trace(training.learning_rates),
        "misc/learning_rate.npz", same_policy, parts=training.rate_cases,
    ),
    Check(
        "updates", "the optimiser alone, on recorded gradients", 7, of_trace(training.updates),
        "optim/*_cudnn_emulated.npz", same_optimizer, needed=True,
    ),
    Check(
        "images", "resize, letterbox, crop, HSV, flip", 8, of_trace(functions.image_operation),
        "misc/image_ops.npz", parts=functions.image_cases, needed=True,
    ),
    Check(
        "optimiser", "steps of the trainer", 9, of_trace(training.steps),
        "optim/*_cudnn_emulated.npz", same_optimizer, needed=True,
    ),
    Check(
        "layers_train", "networks of one layer, training mode and gradients", 9, of_trace(layers.training),
        "layers*/*.npz", same_layers, parts=layers.training_cases,
    ),
)  # fmt: skip

DARKNET = Original(
    name="darknet",
    family="yolo",
    recognises=is_cfg,
    checks=CHECKS,
    recipe=RULES,
    draws=DRAWS,
    seeded=Yolo,
    network=("backbone", "decoder", "cfg"),
    coarsest_stride=coarsest_stride,
    fixes_size=fixes_size,
    experiment_of=darknet_experiment,
)
