"""The heads and losses that a Darknet cfg asks for, in the words of configs/, with Darknet's gradient."""

from collections.abc import Callable

import pydantic

from configs.yolo.heads import DetectionHead, GaussianYoloHead, GaussianYoloLevel, Head, RegionHead, YoloHead, YoloLevel
from configs.yolo.losses import DetectionLoss, GaussianYoloLoss, Loss, RegionLoss, YoloLoss
from modeling.darknet.cfg import Network
from modeling.darknet.grammar import CfgError
from modeling.darknet.head_sections import Detection, GaussianYolo, Region, Yolo
from modeling.darknet.options import FLT_MAX, Layer
from official.core.config import Config

PRIOR_EXAMPLES = 12800  # region_layer.c: as long as fewer were seen


def head_and_loss(network: Network) -> tuple[Head, Loss]:
    """What a cfg's outputs mean and what they are trained with. The loss is the first head's; others have their own.

    Raises:
        CfgError: no head, heads of several kinds or of several numbers of classes, an option that is no loss here.
    """
    return head_of(network), loss_of(network)


def head_of(network: Network) -> Head:
    """What a cfg's outputs mean. Errors as in `head_and_loss`."""
    return _HEADS[type(_first(network))](network)


def loss_of(network: Network) -> Loss:
    """What a cfg's first head is trained with. Errors as in `head_and_loss`."""
    return _loss(network, _first(network))


def _first(network: Network) -> Layer:
    heads = network.heads
    if not heads:
        expected = "[yolo], [Gaussian_yolo], [region] or [detection]"
        raise CfgError(f"{network.source}: has no section that detects; expected {expected}")
    first = heads[0]
    for layer in heads[1:]:
        if type(layer) is not type(first):
            raise CfgError(
                f"{network.where(layer)}: heads of several kinds; layer {first.index} is a [{first.section}]"
            )
        if isinstance(layer, Region | Detection):
            raise CfgError(f"{network.where(layer)}: a second [{layer.section}]; expected one")
        if layer.classes != first.classes:
            raise CfgError(
                f"{network.where(layer)}: classes={layer.classes}; expected layer {first.index}'s {first.classes}"
            )
    return first


def _anchor_head(head: type, level: type, options: Callable[[Layer], dict]) -> Callable[[Network], Head]:
    """Makes a [yolo] or a [Gaussian_yolo] head. `options`: of a level, what only one of the two has."""

    def make(network: Network) -> Head:
        first = network.heads[0]
        common = _loss(network, first)
        levels = []
        for layer in network.heads:
            own = {
                "anchors": None if layer.anchors == first.anchors else layer.anchors,
                "loss": None if _loss(network, layer) == common else _loss(network, layer),
            }
            values = {"mask": layer.mask, "scale_x_y": layer.scale_x_y, **own, **options(layer)}
            levels.append(_checked(network, layer, level, values))
        return _checked(network, first, head, {"anchors": first.anchors, "levels": tuple(levels)})

    return make


def _region_head(network: Network) -> RegionHead:
    layer = network.heads[0]
    _needs_four_coords(network, layer)
    if layer.tree:
        raise CfgError(
            f"{network.where(layer)}: tree={layer.tree}: a hierarchy of classes (YOLO9000) is not supported, neither "
            "its loss nor its scores; without tree= the classes are a flat softmax"
        )
    return _checked(network, layer, RegionHead, {"anchors": layer.anchors, "softmax": bool(layer.softmax)})


def _detection_head(network: Network) -> DetectionHead:
    layer = network.heads[0]
    _needs_four_coords(network, layer)
    flags = {"sqrt": bool(layer.sqrt), "softmax": bool(layer.softmax)}
    return _checked(network, layer, DetectionHead, {"side": layer.side, "num": layer.num, **flags})


def _needs_four_coords(network: Network, layer: Region | Detection) -> None:
    if layer.coords != 4:
        raise CfgError(f"{network.where(layer)}: coords={layer.coords}; expected 4: x, y, width and height")


_HEADS: dict[type, Callable[[Network], Head]] = {
    Yolo: _anchor_head(YoloHead, YoloLevel, lambda layer: {"new_coords": bool(layer.new_coords)}),
    GaussianYolo: _anchor_head(GaussianYoloHead, GaussianYoloLevel, lambda layer: {}),
    Region: _region_head,
    Detection: _detection_head,
}


def _loss(network: Network, layer: Layer) -> Loss:
    kind, options = _LOSSES[type(layer)]
    return _checked(network, layer, kind, options(network, layer))


def _anchor_loss(layer: Yolo | GaussianYolo) -> dict:
    counters = layer.counters_per_class
    return {
        **{name: getattr(layer, name) for name in ("iou_loss", "iou_normalizer", "obj_normalizer", "cls_normalizer")},
        # An IoU is never above 1.
        **{name: min(getattr(layer, name), 1.0) for name in ("ignore_thresh", "truth_thresh", "iou_thresh")},
        "iou_thresh_kind": layer.iou_thresh_kind,
        "max_delta": None if layer.max_delta == FLT_MAX else layer.max_delta,
        "counters_per_class": counters and tuple(max(1, count) for count in counters),
        "label_smoothing": layer.label_smooth_eps,
    }


def _yolo_loss(network: Network, layer: Yolo) -> dict:
    flags = {name: bool(getattr(layer, name)) for name in ("objectness_smooth", "focal_loss", "show_details")}
    return {"gradient": "darknet", **_anchor_loss(layer), **flags}


def _gaussian_loss(network: Network, layer: GaussianYolo) -> dict:
    return {**_anchor_loss(layer), "uc_normalizer": layer.uc_normalizer}


def _scales(network: Network, layer: Region | Detection) -> dict:
    names = ("coord_scale", "object_scale", "noobject_scale", "class_scale")
    return {**{name: getattr(layer, name) for name in names}, "rescore": bool(layer.rescore)}


def _region_loss(network: Network, layer: Region) -> dict:
    batch = network.net.mini_batch * network.net.subdivisions
    own = {"thresh": min(layer.thresh, 1.0), "bias_match": bool(layer.bias_match)}
    # Darknet counts a batch as seen before it computes the loss: seen < 12800 at step n where n * batch < 12800.
    return {**_scales(network, layer), **own, "prior_steps": (PRIOR_EXAMPLES - 1) // batch}


_LOSSES: dict[type, tuple[type, Callable[[Network, Layer], dict]]] = {
    Yolo: (YoloLoss, _yolo_loss),
    GaussianYolo: (GaussianYoloLoss, _gaussian_loss),
    Region: (RegionLoss, _region_loss),
    Detection: (DetectionLoss, _scales),
}


def _checked(network: Network, layer: Layer, kind: type[Config], values: dict) -> Config:
    """A configuration; what it does not take is the cfg's error."""
    try:
        return kind(**values)
    except pydantic.ValidationError as error:
        (problem, *_) = error.errors()
        where = ".".join(map(str, problem["loc"])) or kind.__name__
        raise CfgError(f"{network.where(layer)}: {where}: {problem['msg']}; got {problem['input']}") from None
