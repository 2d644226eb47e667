"""Whole detectors with their trained weights: every layer, the heads, boxes before and after NMS, and the score.

The weights are looked for below `--assets`: those of a trace by their SHA-256, those of a file of detections by name.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from losses.yolo.from_cfg import head_of
from modeling.darknet.cfg import Network
from modeling.darknet.loading import load_weights
from modeling.darknet.sections import Yolo
from modeling.yolo.heads import BOX_DECODERS
from modeling.yolo.heads.yolo import DecodedLevel, decode_level
from official.core.errors import UserError
from official.vision.boxes import yxyx_to_cxcywh
from official.vision.nms import per_class_nms
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_original, normalise, resize_image
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.images import placement_alternatives
from reproduction.traces.compare import Absolute, AbsoluteAndRelative, OfAbsmax, SameSet, Tolerance
from reproduction.traces.precision import precision
from reproduction.traces.trace import TraceError, read_trace, relayout
from reproduction.yolo.case import heads_of, network_of
from reproduction.yolo.functions import NMS_KINDS, PIXELS, nms_protocol
from reproduction.yolo.rebuilt import Rebuilt
from reproduction.yolo.walk import darknet_walk, without_heads

HEAD = Absolute(bound=1e-4)
BOXES = SameSet(bound=1e-4)
LAYER = OfAbsmax(bound=1e-5)
STATISTICS = AbsoluteAndRelative(absolute=1e-4, relative=1e-5)
AP = Absolute(bound=0.0015)  # of 1

NMS_THRESHOLD = 0.45
KEPT = Clue("detections", "cxcywh class score")
MODES = {"resize": "stretch", "letterbox": "letterbox"}
ANNOTATIONS = "instances_*.json"
# How the recorded detections of coco_val were made; not by the cfg's own rules.
COCO_PROTOCOL = {
    "resize": "stretch",
    "interpolation": "opencv",
    "nms": "per_class_iou",
    "nms_threshold": 0.45,
    "score_floor": 0.001,
    "detections_per_image": 100,
}


def inference(case: Case) -> Iterator[Row]:
    """An image through the network, stretched and letterboxed; or a recorded input (`X`) and all its layers.

    What follows the heads, boxes and NMS, is `decoding`'s.
    """
    rebuilt = _trained(case)
    exact = functools.cache(lambda: _trained(case, "float64"))
    if "X" in case.trace:
        walk = without_heads(darknet_walk(rebuilt, rebuilt.parameters(), exact=exact))
        yield from walk.whole()
        layers = _forward(rebuilt, rebuilt.image("X")).layers
        again = functools.cache(lambda: _forward(exact(), exact().image("X")).layers)
        for head in network_of(case).heads:
            name = f"L{head.index:03d}"
            if f"{name}_boxes" in case.trace and f"{name}_output" not in case.trace:
                yield case.skip(f"{name}_boxes", "the recording program gives out boxes; the layer before is compared")
            else:
                ours, clue = layers[head.index], Clue("head", "NCHW")
                yield case.compare(f"{name}_output", ours, LAYER, None, clue, lambda index=head.index: again()[index])
        yield from walk.alone()
        return
    for mode in MODES:
        if any(name.startswith(f"{mode}/") for name in case.trace):
            yield from _one_image(rebuilt, mode, exact)
        else:
            yield case.skip(mode, "not recorded")


def _trained(case: Case, name: Literal["float32", "float64"] = "float32") -> Rebuilt:
    """The network with the weights that the trace was recorded with."""
    with precision(name):
        rebuilt = Rebuilt.fresh(case)
    load_weights(rebuilt.graph.model, str(_weights(case)), rebuilt.records)
    return rebuilt


def _one_image(rebuilt: Rebuilt, mode: str, exact: Callable[[], Rebuilt]) -> Iterator[Row]:
    case, net = rebuilt.case, network_of(rebuilt.case).net
    image = _image(case)
    protocol = EvaluationProtocol(resize=MODES[mode], interpolation="align_corners")
    given = normalise(resize_image(tf.constant(image), (net.height, net.width), protocol))[tf.newaxis]
    yield from _whole_or_sample(
        case, f"{mode}/X", relayout(given[0].numpy(), "HWC", "CHW"), PIXELS, Clue("image", "CHW")
    )
    # The network gets the recorded input where there is one, so that it alone is compared.
    given = rebuilt.image(f"{mode}/X") if f"{mode}/X" in case.trace else given
    done, again = _forward(rebuilt, given), functools.cache(lambda: _forward(exact(), given))
    of_heads = {index for head in network_of(case).heads for index in (head.index - 1, head.index)}
    for index, array in enumerate(done.layers):
        name = f"{mode}/L{index:03d}"
        if any(index == head.index for head in network_of(case).heads) and f"{name}_output" not in case.trace:
            yield case.fail(f"{name}_output", "the output of a head is missing")
        else:
            is_head = index in of_heads
            clue = Clue("head" if is_head else "layer", "NCHW")
            tolerance = HEAD if is_head else LAYER
            yield from _whole_or_sample(case, name, array, tolerance, clue, lambda index=index: again().layers[index])
    yield from _statistics(case, f"{mode}/layer_stats", done.layers, lambda: again().layers)


def _image(case: Case) -> np.ndarray:
    """The image in its own size, [rows, columns, 3]; several traces of it may share one copy in their folder."""
    traces = [case.trace]
    if "image_u8_chw" not in case.trace:
        wanted = case.trace.text("meta/image_sha256")
        traces = [read_trace(path) for path in sorted(case.path.parent.glob("*.npz"))]
        traces = [one for one in traces if {"image_u8_chw", "meta/image_sha256"} <= set(one)]
        traces = [one for one in traces if one.text("meta/image_sha256") == wanted] or [case.trace]
    return relayout(traces[0].array("image_u8_chw", (3, "rows", "columns"), np.uint8), "CHW", "HWC")


class _Forward(NamedTuple):
    raw: list[tf.Tensor]  # output of each head
    decoded: list[DecodedLevel]  # of each [yolo]
    layers: list[np.ndarray]  # Darknet's output of every layer


def _forward(rebuilt: Rebuilt, image: tf.Tensor) -> _Forward:
    """The network's outputs. A [yolo] gives out what it decodes, but width and height raw.

    Decoding is float32: it gets the numbers of a network of float64 rounded.
    """
    network = network_of(rebuilt.case)
    outputs = rebuilt.all_outputs(image, training=False)
    raw = [outputs[head.index] for head in network.heads]
    layers = [rebuilt.in_darknets_form(output) for output in outputs]
    decoded = _decoded(network, raw)
    yolos = [(number, layer.index) for number, layer in enumerate(network.heads) if isinstance(layer, Yolo)]
    for level, (number, index) in zip(decoded, yolos, strict=True):
        sizes = tf.cast(raw[number][..., 2:4], tf.float32)
        parts = level.offsets, sizes, level.objectness[..., tf.newaxis], level.class_probabilities
        layers[index] = rebuilt.in_darknets_form(tf.concat(parts, axis=-1))
    return _Forward(raw, decoded, layers)


def _decoded(network: Network, raw: list[tf.Tensor]) -> list[DecodedLevel]:
    """What the numbers of each [yolo] mean."""
    head, size = head_of(network), (network.net.height, network.net.width)
    return [
        decode_level(tf.cast(raw[number], tf.float32), head.anchors_of(head.levels[number]), head.levels[number], size)
        for number, layer in enumerate(network.heads)
        if isinstance(layer, Yolo)
    ]


def decoding(case: Case) -> Iterator[Row]:
    """Boxes and NMS alone: from the recorded numbers before each head, so that nothing of the network is compared."""
    rebuilt = Rebuilt.fresh(case)
    has_image = not {"image_u8_chw", "meta/image_sha256"}.isdisjoint(case.trace)
    image_size = tf.constant([_image(case).shape[:2]]) if has_image else None
    for mode, resize in MODES.items():
        names = [f"{mode}/L{head.index - 1:03d}_output" for head in heads_of(case)]
        if image_size is None or not set(names) <= set(case.trace):
            yield case.skip(f"{mode}/thresh", "the outputs of the layers before the heads, or the image, not recorded")
            continue
        inputs = [case.trace.array(name, (1, "channels", "rows", "columns"), np.floating) for name in names]
        outputs = rebuilt.graph.outputs
        raw = [
            keras.Model(outputs[head.index - 1], outputs[head.index])(tf.constant(relayout(array, "NCHW", "NHWC")))
            for head, array in zip(heads_of(case), inputs, strict=True)
        ]
        done = _Forward(raw, _decoded(network_of(case), raw), [])
        protocol = EvaluationProtocol(resize=resize, interpolation="align_corners")
        yield from _boxes(case, mode, done, image_size, protocol)


def _whole_or_sample(
    case: Case,
    name: str,
    ours: np.ndarray,
    tolerance: Tolerance,
    clue: Clue,
    exact: Callable[[], np.ndarray] | None = None,
) -> Iterator[Row]:
    """Beside the whole recorded array, and beside numbers from some flat positions of it."""
    whole = name if name.endswith("/X") else f"{name}_output"
    if whole in case.trace:
        yield case.compare(whole, ours, tolerance, None, clue, exact)
    if f"{name}_sample" in case.trace:
        at = case.trace.array(f"{name}_sample_idx", ("positions",), np.integer)
        if at.size and not 0 <= at.min() <= at.max() < ours.size:
            raise TraceError(f"{case.path}: {name}_sample_idx points beyond the {ours.size} elements of the array")
        if isinstance(tolerance, OfAbsmax):  # of the whole layer, not of the sample
            tolerance = Absolute(bound=tolerance.bound * float(np.abs(ours).max()))
        sampled = None if exact is None else lambda: exact().ravel()[at]
        yield case.compare(f"{name}_sample", ours.ravel()[at], tolerance, exact=sampled)


def _statistics(
    case: Case, name: str, layers: list[np.ndarray], exact: Callable[[], list[np.ndarray]]
) -> Iterator[Row]:
    """Of every layer channels, rows, columns, mean, standard deviation, least and largest element."""
    if name not in case.trace:
        return
    recorded = case.trace.array(name, (len(layers), 8), np.floating)[:, 1:]

    def numbers(layers: list[np.ndarray]) -> list[list[float]]:
        return [[*array.shape[1:], array.mean(), array.std(), array.min(), array.max()] for array in layers]

    ours = numbers(layers)
    yield case.compare(name, ours, STATISTICS, recorded, Clue("statistics"), lambda: numbers(exact()))


def _boxes(
    case: Case,
    mode: str,
    done: _Forward,
    image_size: tf.Tensor,
    protocol: EvaluationProtocol,
    exact: Callable[[], _Forward] | None = None,
) -> Iterator[Row]:
    """Boxes above each recorded threshold, relative to the original image: all, and those each kind of NMS keeps."""
    ours = _found(case, mode, done, image_size, protocol)
    again = None if exact is None else functools.cache(lambda: _found(case, mode, exact(), image_size, protocol))
    if not ours:
        yield case.skip(f"{mode}/thresh", "no boxes recorded")
    net = network_of(case).net
    geometry = tuple(image_size[0].numpy().tolist()), (net.height, net.width), protocol.resize
    for name, rows in ours.items():
        if rows is None:
            yield case.skip(name, "only [yolo] has an objectness to choose boxes by")
            continue
        columns = slice(None)
        if name.endswith("/raw"):
            recorded = case.trace.array(name, ("boxes", "numbers"), np.floating)
            columns = slice(5) if recorded.shape[1] == 5 else columns  # recorded without probabilities
            clue = Clue("boxes", "cxcywh", placement_alternatives(recorded, *geometry))
        else:  # cx, cy, w, h, objectness, class, probability
            recorded, clue = case.trace.array(name, ("boxes", 7), np.floating)[:, [0, 1, 2, 3, 5, 6]], KEPT
        of_name = None if again is None else lambda name=name, columns=columns: again()[name][:, columns]
        yield case.compare(name, rows[:, columns], BOXES, recorded, clue, of_name)


def _found(
    case: Case, mode: str, done: _Forward, image_size: tf.Tensor, protocol: EvaluationProtocol
) -> dict[str, np.ndarray | None]:
    """Ours by the recorded names: boxes before NMS (of [yolo] alone, else None), and cx, cy, w, h, class, probability
    of those that it keeps."""
    net, head = network_of(case).net, head_of(network_of(case))
    size = (net.height, net.width)
    boxes, scores = BOX_DECODERS[head.type](done.raw, head, size)
    boxes = boxes_to_original(boxes, image_size, size, protocol)
    arrays: dict[str, np.ndarray | None] = {}
    for folder in sorted({name.rpartition("/")[0] for name in case.trace if name.startswith(f"{mode}/thresh")}):
        thresh = float(folder.removeprefix(f"{mode}/thresh"))
        arrays[f"{folder}/raw"] = _before_nms(done, boxes[0], thresh) if len(done.decoded) == len(done.raw) else None
        for kind in NMS_KINDS:
            found = per_class_nms(boxes, scores, nms_protocol(kind, NMS_THRESHOLD, thresh, scores))
            rows = np.column_stack([yxyx_to_cxcywh(found.boxes[0]), found.classes[0], found.scores[0]])
            arrays[f"{folder}/{kind}"] = rows[found.valid[0].numpy()]
    return arrays


def _before_nms(done: _Forward, boxes: tf.Tensor, thresh: float) -> np.ndarray:
    """cx, cy, w, h, objectness, and the probabilities above the threshold, of what has objectness above it."""
    objectness = np.concatenate([level.objectness.numpy().ravel() for level in done.decoded])
    classes = done.decoded[0].class_probabilities.shape[-1]
    probabilities = np.concatenate([np.reshape(level.class_probabilities, [-1, classes]) for level in done.decoded])
    probabilities = objectness[:, np.newaxis] * probabilities
    probabilities[probabilities <= thresh] = 0
    return np.column_stack([yxyx_to_cxcywh(boxes), objectness, probabilities])[objectness > thresh]


def only(assets: Path, pattern: str) -> Path:
    found = sorted(assets.rglob(pattern))
    if len(found) != 1:
        raise UserError(f"expected one file {pattern} below {assets}, found {len(found)}")
    return found[0]


def _weights(case: Case) -> Path:
    """The file below the assets that the trace was recorded with."""
    wanted = case.trace.text("meta/weights_sha256")
    for path in sorted(case.assets.rglob("*.weights")):
        if _sha256(path) == wanted:
            return path
    raise TraceError(f"{case.path}: no *.weights file below {case.assets} has the SHA-256 {wanted}")


@functools.cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
