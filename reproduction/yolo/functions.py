"""Boxes, their suppression, and operations on images, beside what Darknet recorded of each function alone (`misc/`)."""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from configs.data import DarknetAugmentation
from dataloaders.augment.colour import apply_colour
from dataloaders.augment.hsv import distort
from dataloaders.batch import ColourDraws, TrainBatch
from dataloaders.compose.darknet import crop_image
from losses.yolo.darknet import iou
from losses.yolo.darknet.iou import KINDS as IOUS
from modeling.layers.activations import ACTIVATIONS, Activation
from official.vision.boxes import cxcywh_to_yxyx
from official.vision.nms import per_class_nms
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import normalise, resize_image
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.images import image_alternatives
from reproduction.traces.causes.overlaps import suppression_alternatives
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.traces.compare import Absolute, AbsoluteAndRelative, OfAbsmax, SameSet
from reproduction.traces.trace import TraceError, relayout
from reproduction.yolo.mistakes.convolutions import activation_alternatives
from reproduction.yolo.mistakes.overlaps import derivative_alternatives, family_alternatives

PIXELS = Absolute(bound=1e-5)
IOU = Absolute(bound=1e-5)
IOU_GRADIENT = AbsoluteAndRelative(absolute=1e-5, relative=1e-5)  # of boxes nearly without area they reach 1e4
SAME_BOXES = SameSet(bound=0)
ACTIVATION = OfAbsmax(bound=1e-5)

NMS_KINDS = {"default": "per_class_iou", "greedynms": "greedynms", "diounms": "diounms"}


def iou_family(case: Case) -> Iterator[Row]:
    """Values, and Darknet's hand-written derivatives, of pairs of boxes (cxcywh, [n, 4] each)."""
    predicted, true = (
        tf.constant(case.trace.array(name, ("pairs", 4), np.floating), tf.float32) for name in ("pred", "truth")
    )
    values = tf.stack([function(predicted, true) for function in IOUS.values()], axis=-1)
    pairs = predicted.numpy(), true.numpy()
    clue = Clue("loss", "", family_alternatives(*pairs))
    yield case.compare("iou_giou_diou_ciou", values, IOU, clue=clue)
    for kind in IOUS:
        name = f"dx_dy_dw_dh_{kind}"
        recorded = case.trace.array(name, tuple(values.shape), np.floating)
        clue = Clue("gradient", "", derivative_alternatives(*pairs, kind, recorded))
        ours = iou.iou_gradient(predicted, true, kind)
        yield case.compare(name, ours, IOU_GRADIENT, recorded, clue)


def nms_cases(case: Case) -> list[str]:
    """Each set of boxes that something was recorded for."""
    return sorted({name.split("/")[0] for name in case.trace if "/" in name})


def nms(case: Case) -> Iterator[Row]:
    """What is left after each kind of suppression. Rows are cx, cy, w, h, objectness, a probability for each class."""
    given = case.trace.array(f"{case.part}/in", ("boxes", "numbers"), np.floating)
    boxes, scores = cxcywh_to_yxyx(tf.constant(given[:, :4], tf.float32)), tf.constant(given[:, 5:], tf.float32)
    of_case = [name.partition("/")[2] for name in case.trace if name.startswith(f"{case.part}/")]
    recorded = {tuple(name.rsplit("_", 1)) for name in of_case if "_" in name}
    for threshold in sorted({threshold for _, threshold in recorded}):
        for kind in NMS_KINDS:
            name = f"{case.part}/{kind}_{threshold}"
            protocol = nms_protocol(kind, float(threshold), 0.0, scores)
            ours = _kept(boxes, scores, protocol)
            # Recorded are all boxes, with probability 0 where one was suppressed.
            after = case.trace.array(name, (len(given), 1 + scores.shape[1]), np.floating)[:, 1:]
            rows, columns = np.nonzero(after)
            recorded_rows = np.column_stack([boxes.numpy()[rows], columns, after[rows, columns]])
            others = suppression_alternatives(boxes.numpy(), scores.numpy(), protocol)
            clue = Clue("detections", "yxyx class score", others)
            yield case.compare(name, ours, SAME_BOXES, recorded_rows, clue)
    for kind, threshold in sorted(recorded):
        if kind not in NMS_KINDS:
            yield case.skip(f"{case.part}/{kind}_{threshold}", f"detectors use {', '.join(NMS_KINDS)} alone")


def nms_protocol(kind: str, threshold: float, floor: float, scores: Float[tf.Tensor, "..."]) -> EvaluationProtocol:
    """One of Darknet's kinds of NMS, over all that is above the floor."""
    count = max(1, int(tf.math.count_nonzero(scores > floor)))
    return EvaluationProtocol(
        nms=NMS_KINDS[kind], nms_threshold=threshold, beta_nms=0.6, score_floor=floor,
        candidates=count, detections_per_image=count,
    )  # fmt: skip


def _kept(boxes: tf.Tensor, scores: tf.Tensor, protocol: EvaluationProtocol) -> np.ndarray:
    """Rows of a box yxyx, its class and its score, [kept, 6]."""
    found = per_class_nms(boxes[tf.newaxis], scores[tf.newaxis], protocol)
    return np.column_stack([found.boxes[0], found.classes[0], found.scores[0]])[found.valid[0].numpy()]


def image_cases(case: Case) -> list[str]:
    """Each recorded operation, but not the image itself."""
    return [name for name in case.trace if name != "image_u8_chw"]


def image_operation(case: Case) -> Iterator[Row]:
    """One operation on the image: OPERATION_NUMBERS, the numbers by `_` or `x`. `tall`: on the image transposed."""
    image = relayout(case.trace.array("image_u8_chw", (3, "rows", "columns"), np.uint8), "CHW", "HWC")
    operation, _, settings = case.part.partition("_")
    if settings.startswith("tall_"):
        image, settings = image.swapaxes(0, 1), settings.removeprefix("tall_")
    if operation not in _OPERATIONS:
        raise TraceError(f"{case.path}: no operation {operation!r} on images; there are {', '.join(_OPERATIONS)}")
    numbers = [float(number) for number in re.findall(r"-?[0-9]*\.?[0-9]+", settings)]
    try:
        ours = _OPERATIONS[operation](tf.constant(image), *numbers)
    except TypeError:
        raise TraceError(f"{case.path}: {case.part!r} has {len(numbers)} numbers, not those of {operation}") from None
    clue = Clue("image", "CHW", _suspected(operation, image, numbers))
    yield case.compare(case.part, relayout(ours.numpy(), "HWC", "CHW"), PIXELS, clue=clue)


def _suspected(operation: str, image: Array, numbers: Sequence[float]) -> Alternatives:
    """What a resized image would be with a known mistake."""
    ways = {"resize": "stretch", "letterbox": "letterbox"}
    if operation not in ways:
        return {}
    width, height = map(int, numbers)
    others = image_alternatives(image / 255, (height, width), ways[operation], "align_corners")
    return {cause: lambda made=made: relayout(made(), "HWC", "CHW") for cause, made in others.items()}


def _resized(rule: str) -> Callable[[tf.Tensor, float, float], tf.Tensor]:
    def operation(image: tf.Tensor, width: float, height: float) -> tf.Tensor:
        protocol = EvaluationProtocol(resize=rule, interpolation="align_corners")
        return normalise(resize_image(image, (int(height), int(width)), protocol))

    return operation


def _crop(image: tf.Tensor, left: float, top: float, width: float, height: float) -> tf.Tensor:
    return normalise(crop_image(image, tf.constant([int(top), int(left), int(height), int(width)])))


def _distort(image: tf.Tensor, hue: float, saturation: float, exposure: float) -> tf.Tensor:
    return distort(image[tf.newaxis], _draws(False, hue, saturation, exposure))[0]


def _flip(image: tf.Tensor) -> tf.Tensor:
    none = tf.zeros([1, 0])
    batch = TrainBatch(
        image=image[tf.newaxis],
        boxes=tf.zeros([1, 0, 4]),
        classes=tf.cast(none, tf.int32),
        valid=tf.cast(none, tf.bool),
        example_id=tf.zeros([1], tf.int64),
        draws=_draws(True, 0.0, 1.0, 1.0),
    )
    return apply_colour(batch, DarknetAugmentation())[0][0]


def _draws(flip: bool, hue: float, saturation: float, exposure: float) -> ColourDraws:
    return ColourDraws(tf.constant([flip]), *(tf.constant([number]) for number in (hue, saturation, exposure)))


_OPERATIONS: dict[str, Callable[..., tf.Tensor]] = {
    "resize": _resized("stretch"),
    "letterbox": _resized("letterbox"),
    "crop": _crop,
    "distort": _distort,
    "flip": _flip,
}


def activation_cases(case: Case) -> list[str]:
    """Each recorded function."""
    return [name for name in case.trace if name != "x" and not name.startswith("grad_of_output_")]


def activation(case: Case) -> Iterator[Row]:
    """f(x)."""
    if case.part not in ACTIVATIONS:
        raise TraceError(f"{case.path}: no activation {case.part!r}; there are {', '.join(ACTIVATIONS)}")
    x = tf.constant(case.trace.array("x", ("numbers",), np.floating), tf.float32)
    clue = Clue("layer", "", activation_alternatives(case.part, x.numpy()))
    yield case.compare(case.part, Activation(case.part)(x), ACTIVATION, clue=clue)
    if f"grad_of_output_{case.part}" in case.trace:
        reason = "Darknet's derivative of any output, even one that no input has; layers_train compares gradients"
        yield case.skip(f"grad_of_output_{case.part}", reason)
