"""Darknet's cfg and weights as OpenCV's `dnn` computes them: an independent implementation of most sections.

Two habits of OpenCV are undone: its batch-norm has the epsilon 1e-6 where Darknet has 1e-5, so that the difference is
added to the variances; and its heads set scores below 0.2 to 0, so that the cfg it gets says `thresh=0`. Sizes of the
network are the cfg's.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from modeling.darknet.cfg import Network, read_cfg
from modeling.darknet.weights import WeightsFile, network_records, read_weights, write_weights
from official.core.errors import UserError, first_line
from reproduction.restated.layers import EPSILON
from reproduction.traces.record.keras_model import checked
from reproduction.traces.record.names import maps_in
from reproduction.traces.trace import Layout, Source, write_trace

OPENCV_EPSILON = 1e-6  # darknet_io.cpp setBatchNorm
# OpenCV counts an activation's number from the section after its own (darknet_io.cpp setActivation).
_ACTIVATIONS = ("relu", "leaky", "swish", "mish", "logistic", "sigmoid", "tanh", "hardswish", "elu")
_HEADS = ("yolo", "region", "detection")


class OpencvError(UserError):
    """OpenCV is not there, or cannot compute this network."""


def record_opencv(
    cfg: str, weights: str, image: Float32[np.ndarray, "batch channels height width"], path: str | os.PathLike
) -> None:
    """`X`, `meta/cfg`, `meta/weights_sha256`, `L004_output` of every section, `L030_boxes` of every head.

    That is a trace of the kind `infer`, but for the heads: OpenCV's rows (cx, cy, w, h of the image's sides,
    objectness, class scores) are not what Darknet gives out there.

    image: RGB, 0..1, of the cfg's size.

    Raises:
        OpencvError: OpenCV is not installed or refuses the network, or gives no output for a section.
        CfgError, WeightsError, TraceError: the files or the image do not fit.
    """
    try:
        import cv2
    except ImportError:
        raise OpencvError("OpenCV is not installed: pip install 'opencv-python-headless<5'") from None
    network = read_cfg(cfg)
    net = network.net
    image = checked("X", (None, net.channels, net.height, net.width), {"X": image}, cfg)
    text = Path(cfg).read_text()
    try:
        files = _without_floor(text).encode(), _with_epsilon(network, weights)
        dnn = cv2.dnn.readNetFromDarknet(*(np.frombuffer(file, np.uint8) for file in files))  # bytes would be a path
        dnn.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        dnn.enableFusion(False)  # else what is inside a fused layer is that of the whole
        dnn.enableWinograd(False)
        names = _outputs(dnn.getLayerNames())
        dnn.setInput(image)
        outputs = dict(zip(names, dnn.forward(list(names.values())), strict=True))
    except cv2.error as error:
        raise OpencvError(f"{cfg}: OpenCV {cv2.__version__} cannot compute it: {first_line(error)}") from None
    arrays = {
        "meta/cfg": np.array(text.encode()),
        "meta/weights_sha256": np.array(hashlib.sha256(Path(weights).read_bytes()).hexdigest()),
        "X": image,
    }
    heads = {head.index for head in network.heads}
    missing = [layer.index for layer in network.layers if layer.index not in outputs]
    if missing:
        raise OpencvError(f"{cfg}: OpenCV has no layer of its own for section {missing[0]}")
    arrays |= {f"L{index:03d}_{'boxes' if index in heads else 'output'}": outputs[index] for index in sorted(outputs)}
    layouts = maps_in("NCHW", arrays)
    layouts |= {f"L{index:03d}_boxes": Layout() for index in heads}
    note = f"batch-norm epsilon {EPSILON:g} and score floor 0 by changed files"
    write_trace(path, arrays, Source(program=f"OpenCV {cv2.__version__} dnn", note=note), layouts)


def _outputs(names: Sequence[str]) -> dict[int, str]:
    """Index of each section -> the last of OpenCV's layers that are made for it."""
    found: dict[int, str] = {}
    for name in names:
        kind, _, number = name.rpartition("_")
        found[int(number) - (kind in _ACTIVATIONS)] = name
    return found


def _with_epsilon(network: Network, path: str) -> bytes:
    """The weights file for a batch-norm with OpenCV's epsilon."""
    records = network_records(network)
    read = read_weights(path, records)
    values = {
        name: {
            key: (array + np.float32(EPSILON - OPENCV_EPSILON)) if key == "rolling_variance" else array
            for key, array in of_layer.items()
        }
        for name, of_layer in read.values.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, "changed.weights")
        write_weights(str(changed), WeightsFile(read.header, values), records)
        return changed.read_bytes()


def _without_floor(text: str) -> str:
    """The cfg with `thresh=0` in each head."""
    return "\n".join(_lines(text)) + "\n"


def _lines(text: str) -> Iterator[str]:
    is_head = False
    for line in text.splitlines():
        section = re.match(r"\s*\[(.+)\]", line)
        if section:
            is_head = section[1].lower() in _HEADS
        if not (is_head and re.match(r"\s*thresh\s*=", line)):
            yield line
        if section and is_head:
            yield "thresh=0"
