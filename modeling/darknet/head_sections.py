"""The sections of a Darknet cfg that detect: [yolo], [Gaussian_yolo], [region] (YOLOv2) and [detection] (YOLOv1)."""

import dataclasses
from typing import Any, ClassVar

from modeling.darknet.options import FLT_MAX, Layer, absolute, option

IOU_KINDS = ("mse", "iou", "giou", "diou", "ciou")


def _pairs(values: tuple[float, ...] | None, options: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    """The first `num` (width, height) pairs listed; Darknet takes 0.5 for what is missing."""
    given = (values or ())[: 2 * options["num"]]
    if len(given) % 2:
        given += (0.5,)
    pairs = tuple(zip(given[0::2], given[1::2], strict=True))
    return pairs + ((0.5, 0.5),) * (options["num"] - len(pairs))


def _mask(mask: tuple[int, ...] | None, options: dict[str, Any]) -> tuple[int, ...]:
    return tuple(range(options["num"])) if mask is None else mask


def _masked_pairs(values: tuple[float, ...] | None, options: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    """As `_pairs`, and further listed pairs as far as the mask names them (cspx-p7-mish.cfg)."""
    listed = len(values or ()) // 2
    named = 1 + max((index for index in options["mask"] if index < listed), default=0)
    return _pairs(values, {"num": max(options["num"], named)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _YoloFamily(Layer):
    """What [yolo] and [Gaussian_yolo] have in common."""

    classes: int = option(20, at_least=1)
    num: int = option(1, at_least=1, at_most=100)
    mask: tuple[int, ...] = option(None, until_hash=True, then=_mask)
    # (width, height) in pixels of the network input; a truth's best anchor is searched among the first `num`
    anchors: tuple[tuple[float, float], ...] = option(None, until_hash=True, then=_masked_pairs)
    max: int = option(200, at_least=1)
    max_delta: float = option(FLT_MAX)
    counters_per_class: tuple[int, ...] | None = option(None, until_hash=True)
    label_smooth_eps: float = option(0.0)
    scale_x_y: float = option(1.0)
    objectness_smooth: int = option(0)
    iou_normalizer: float = option(0.75)
    obj_normalizer: float = option(1.0)
    cls_normalizer: float = option(1.0)
    delta_normalizer: float = option(1.0)
    iou_loss: str = option("mse", choices=IOU_KINDS, otherwise="iou")
    iou_thresh_kind: str = option("iou", choices=IOU_KINDS[1:], otherwise="iou")
    beta_nms: float = option(0.6)
    jitter: float = option(0.2)
    resize: float = option(1.0)
    ignore_thresh: float = option(0.5)
    truth_thresh: float = option(1.0)
    iou_thresh: float = option(1.0)
    random: float = option(0.0)
    map: str | None = option(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yolo(_YoloFamily):
    section: ClassVar[str] = "yolo"

    show_details: int = option(1)
    new_coords: int = option(0)
    focal_loss: int = option(0)
    nms_kind: str = option("default", choices=("default", "greedynms", "diounms"), otherwise="default")
    track_history_size: int = option(5)
    sim_thresh: float = option(0.8)
    dets_for_track: int = option(1)
    dets_for_show: int = option(1)
    track_ciou_norm: float = option(0.01)
    embedding_layer: int | None = option(None, then=lambda n, o: None if n is None else absolute(n, o))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianYolo(_YoloFamily):
    section: ClassVar[str] = "Gaussian_yolo"

    anchors: tuple[tuple[float, float], ...] = option(
        None, then=_masked_pairs
    )  # unlike in [yolo], '#' does not end the list
    uc_normalizer: float = option(1.0)
    nms_kind: str = option("default", choices=("default", "greedynms", "diounms", "cornersnms"), otherwise="default")
    yolo_point: str = option("center", choices=("center", "left_top", "right_bottom"), otherwise="center")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region(Layer):
    section: ClassVar[str] = "region"

    coords: int = option(4, at_least=4)
    classes: int = option(20, at_least=1)
    num: int = option(1, at_least=1, at_most=100)
    anchors: tuple[tuple[float, float], ...] = option(None, then=_pairs)  # cells of this layer's grid
    max: int = option(200, at_least=1)
    log: int = option(0)
    sqrt: int = option(0)
    softmax: int = option(0)
    focal_loss: int = option(0)
    jitter: float = option(0.2)
    resize: float = option(1.0)
    rescore: int = option(0)
    thresh: float = option(0.5)
    classfix: int = option(0)
    absolute: int = option(0)
    random: float = option(0.0)
    coord_scale: float = option(1.0)
    object_scale: float = option(1.0)
    noobject_scale: float = option(1.0)
    mask_scale: float = option(1.0)
    class_scale: float = option(1.0)
    bias_match: int = option(0)
    tree: str | None = option(None)
    map: str | None = option(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(Layer):
    section: ClassVar[str] = "detection"

    coords: int = option(1, at_least=1)
    classes: int = option(1, at_least=1)
    num: int = option(1, at_least=1, at_most=100)
    side: int = option(7, at_least=1)
    rescore: int = option(0)
    softmax: int = option(0)
    sqrt: int = option(0)
    max: int = option(200, at_least=1)
    coord_scale: float = option(1.0)
    forced: int = option(0)
    object_scale: float = option(1.0)
    noobject_scale: float = option(1.0)
    class_scale: float = option(1.0)
    jitter: float = option(0.2)
    resize: float = option(1.0)
    random: float = option(0.0)
    reorg: int = option(0)
