"""What becomes of each option of a Darknet cfg in an experiment: honoured, or listed with the reason.

An option that is in neither table is listed all the same, so that nothing is ignored in silence.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from modeling.darknet.cfg import Network
from modeling.darknet.grammar import Note
from modeling.darknet.net import Net
from modeling.darknet.options import Layer, Option

_OF_ONE_HEAD = ("classes", "max", "jitter", "resize", "random", "nms_kind", "beta_nms")  # detector.c: of the last head
_ANCHOR_HEAD = (
    *("classes", "num", "mask", "anchors", "max", "max_delta", "counters_per_class", "label_smooth_eps", "scale_x_y"),
    *("iou_normalizer", "obj_normalizer", "cls_normalizer", "iou_loss", "iou_thresh_kind", "beta_nms", "nms_kind"),
    *("jitter", "resize", "ignore_thresh", "truth_thresh", "iou_thresh", "random"),
)
_POOL = ("stride", "stride_x", "stride_y", "size", "padding")

# Section -> options that the network, the loss, the data or the trainer takes over. modeling/darknet refuses, with an
# error of its own, what would change the network's outputs and is not built.
HONOURED: dict[str, tuple[str, ...]] = {
    "*": ("learning_rate", "stopbackward", "onlyforward", "train_only_bn", "dontload", "dontloadscales"),
    "net": (
        *("batch", "subdivisions", "width", "height", "channels", "inputs", "max_batches", "momentum", "decay"),
        *("adam", "B1", "B2", "eps", "learning_rate", "learning_rate_min", "policy", "burn_in", "power"),
        *("step", "scale", "gamma", "steps", "scales", "sgdr_cycle", "sgdr_mult"),
        *("flip", "saturation", "exposure", "hue", "blur", "gaussian_noise"),
        *("letter_box", "mosaic", "mosaic_bound", "mixup", "ema_alpha"),
    ),
    "convolutional": (
        *("filters", "groups", "size", "stride", "stride_x", "stride_y", "dilation", "pad", "padding", "activation"),
        *("batch_normalize", "share_index", "flipped", "binary", "xnor", "cbn", "antialiasing", "assisted_excitation"),
        *("sway", "rotate", "stretch", "stretch_sway", "grad_centr", "coordconv"),
    ),
    "local": ("filters", "size", "stride", "pad", "activation"),
    "connected": ("output", "activation", "batch_normalize"),
    "maxpool": (*_POOL, "maxpool_depth", "out_channels", "antialiasing", "maxpool_zero_nonmax"),
    "local_avgpool": _POOL,
    "upsample": ("stride", "scale"),
    "reorg": ("stride", "reverse"),
    "reorg3d": ("stride", "reverse"),
    "crop": ("crop_height", "crop_width", "flip", "noadjust"),
    "route": ("layers", "groups", "group_id"),
    "shortcut": ("from_", "activation", "weights_type", "weights_normalization"),
    "sam": ("from_", "activation"),
    "scale_channels": ("from_", "activation", "scale_wh"),
    "dropout": ("probability", "dropblock"),
    "activation": ("activation",),
    "normalization": ("alpha", "beta", "kappa", "size"),
    "softmax": ("groups", "temperature", "tree"),
    "yolo": (*_ANCHOR_HEAD, "new_coords", "objectness_smooth", "focal_loss", "show_details"),
    "Gaussian_yolo": (*_ANCHOR_HEAD, "uc_normalizer"),
    "region": (
        *("classes", "coords", "num", "anchors", "max", "softmax", "jitter", "resize", "rescore", "thresh", "random"),
        *("coord_scale", "object_scale", "noobject_scale", "class_scale", "bias_match"),
    ),
    "detection": (
        *("classes", "coords", "num", "side", "rescore", "softmax", "sqrt", "max", "jitter"),
        *("coord_scale", "object_scale", "noobject_scale", "class_scale"),
    ),
}

REFUSED = ("crnn", "contrastive", "cost")  # sections that modeling/darknet/build.py does not build

_SEQUENCES = "sequences of video frames are not trained here: every image is drawn by itself"
_CLASSIFIER = "has no effect: Darknet uses it for classifiers only"
_MACHINE = "has no effect on what is computed"
_LATE_REJECTION = "nothing is rejected in late training here"
_CONTRASTIVE = "contrastive training is not here"
_TRACKING = "tracking is not here"
_RANDOM = "of the sizes that Darknet may draw, 5 are compiled; task.data.train.multi_scale.sizes=all takes all of them"
_UNUSED = "has no effect: Darknet reads it and does not use it"

REASONS: dict[str, dict[str, str]] = {
    "*": {
        "dont_update": "the layer is updated from the first step on",
        "burnin_update": "the layer is updated from the first step on",
        "clip": "weights are not clipped; trainer.clip_global_norm clips gradients",
    },
    "net": {
        "cutmix": "not here; Darknet does not support it for detectors either",
        "resize_step": "sizes are multiples of 32",
        "dynamic_minibatch": "the batch keeps its size at every input size",
        "try_fix_nan": "a NaN stops the run and names its examples",
        "time_steps": _SEQUENCES,
        "track": _SEQUENCES,
        "augment_speed": _SEQUENCES,
        "sequential_subdivisions": _SEQUENCES,
        "seq_scales": _SEQUENCES,
        "angle": _CLASSIFIER,
        "aspect": _CLASSIFIER,
        "max_crop": _CLASSIFIER,
        "min_crop": _CLASSIFIER,
        "label_smooth_eps": _CLASSIFIER,
        "weights_reject_freq": _LATE_REJECTION,
        "equidistant_point": _LATE_REJECTION,
        "badlabels_rejection_percentage": _LATE_REJECTION,
        "num_sigmas_reject_badlabels": _LATE_REJECTION,
        "contrastive": _CONTRASTIVE,
        "contrastive_jit_flip": _CONTRASTIVE,
        "contrastive_color": _CONTRASTIVE,
        "unsupervised": _CONTRASTIVE,
        "attention": "it draws what a classifier looks at",
        "adversarial_lr": "adversarial training is not here",
        "loss_scale": "gradients are float32 and need no scale",
        "max_chart_loss": _MACHINE,
        "use_cuda_graph": _MACHINE,
        "optimized_memory": _MACHINE,
        "workspace_size_limit_mb": _MACHINE,
        "show_receptive_field": _MACHINE,
    },
    "convolutional": {
        "bin_output": _MACHINE,
        "angle": "has no effect without rotate, sway or stretch, whose training is not supported",
        "dot": _UNUSED,
        "reverse": "the gradient through the inverse of the weights is not here",
        "stream": _MACHINE,
        "wait_stream": _MACHINE,
    },
    "route": {"stream": _MACHINE, "wait_stream": _MACHINE},
    "crop": dict.fromkeys(("angle", "saturation", "exposure", "shift"), "crops are not distorted here"),
    "dropout": dict.fromkeys(("dropblock_size_rel", "dropblock_size_abs"), "without dropblock it has no effect"),
    "softmax": {"spatial": "over all numbers of a group", "noloss": _MACHINE},
    "yolo": {
        "random": _RANDOM,
        "delta_normalizer": "has no effect in Darknet's CPU build; its GPU build multiplies the gradient by it",
        "map": "classes are the cfg's own",
        "track_history_size": _TRACKING,
        "sim_thresh": _TRACKING,
        "dets_for_track": _TRACKING,
        "dets_for_show": _TRACKING,
        "track_ciou_norm": _TRACKING,
        "embedding_layer": _TRACKING,
    },
    "Gaussian_yolo": {
        "random": _RANDOM,
        "delta_normalizer": "has no effect in Darknet's CPU build; its GPU build multiplies the gradient by it",
        "map": "classes are the cfg's own",
        "objectness_smooth": "not in this head's loss",
        "yolo_point": "boxes are told by their centre",
    },
    "region": {
        "random": _RANDOM,
        "tree": "a hierarchy of classes is not here",
        "map": "classes are the cfg's own",
        "mask_scale": "masks are not predicted",
        "classfix": "not in this head's loss",
        "focal_loss": "not in this head's loss",
        "log": _UNUSED,
        "sqrt": _UNUSED,
        "absolute": _UNUSED,
    },
    "detection": {
        "forced": "not in this head's loss",
        "reorg": _UNUSED,
        "resize": "has no effect: Darknet trains [detection] with a jitter only",
        "random": "Darknet asks a random box of a cell, for the first 64000 examples; here always the best",
    },
}


def not_honoured(network: Network) -> Iterator[Note]:
    """A note on each option that says something else than its default and is not, or not wholly, in the experiment."""
    yield from _of_section(network, network.net)
    for layer in network.layers:
        yield from _of_section(network, layer)
    yield from _of_other_heads(network)


def reason(section: str, option: str) -> str | None:
    """Why an option of a section is not honoured; none if it is."""
    reasons = {**REASONS["*"], **REASONS.get(section, {})}
    honoured = (*HONOURED.get(section, ()), *(HONOURED["*"] if section != "net" else ()))
    return None if option in honoured and option not in reasons else reasons.get(option, "it has no counterpart here")


def _of_section(network: Network, section: Net | Layer) -> Iterator[Note]:
    if section.section in REFUSED:
        return
    values = {field.name: getattr(section, field.name) for field in dataclasses.fields(section)}
    for field in dataclasses.fields(section):
        why = reason(section.section, field.name) if "option" in field.metadata else None
        how: Option = field.metadata.get("option", Option())
        if why is not None and values[field.name] != _neutral(how, values):
            key = how.key or field.name
            message = f"{key}={_text(values[field.name])}: {why}"
            yield Note(network.source, section.line, section.section, key, message)


def _neutral(how: Option, values: dict[str, Any]) -> Any:
    """What an option is where the cfg does not state it."""
    return how.then(how.default, values) if how.then else how.default


def _of_other_heads(network: Network) -> Iterator[Note]:
    last = network.heads[-1] if network.heads else None
    for head in network.heads[:-1]:
        for option in _OF_ONE_HEAD:
            here, there = (getattr(layer, option, None) for layer in (head, last))
            if here != there:
                message = f"{option}={_text(here)}: Darknet takes the last head's, {_text(there)}"
                yield Note(network.source, head.line, head.section, option, message)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
