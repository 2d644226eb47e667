"""What a [yolo] head's numbers mean, on a grid that is not square (`loss/`).

Real detectors are recorded at square inputs, which hide exchanged sides, and these traces have no boxes: what is
recorded before each head is decoded beside Darknet's formula, written anew in hints/decoding.py.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from losses.from_cfg import head_of
from modeling.darknet.sections import Yolo
from modeling.heads import DECODERS
from official.vision.boxes import yxyx_to_cxcywh
from reproduction.compare import Absolute
from reproduction.golden.case import Case, Row
from reproduction.hints import Clue
from reproduction.hints.decoding import YoloHead, decoding_alternatives
from reproduction.hints.residual import Array
from reproduction.trace import relayout

BOXES = Absolute(bound=1e-5)  # of the input's side, where boxes are no larger than it
_LARGEST = 4.0  # the logit of a side; beyond it rounding grows with the box


def decoding(case: Case) -> Iterator[Row]:
    """All boxes of each level, cxcywh relative to the input."""
    if not all(isinstance(layer, Yolo) for layer in case.heads):
        yield case.skip("boxes", "the formula of other heads than [yolo] is not written down here")
        return
    net, head = case.network.net, head_of(case.network)
    size = (net.height, net.width)
    raw = [np.clip(_before(case, layer), -_LARGEST, _LARGEST) for layer in case.heads]
    outputs = [_in_kerass_form(array) for array in raw]
    ours, _ = DECODERS[head.type](outputs, head, size)
    first = 0
    for layer, array in zip(case.heads, raw, strict=True):
        images, anchors, _, rows, columns = array.shape
        count = anchors * rows * columns
        boxes = yxyx_to_cxcywh(ours[:, first : first + count]).numpy().reshape(images, rows, columns, anchors, 4)
        first += count
        formula = YoloHead(layer.anchors, layer.mask, size, layer.scale_x_y, bool(layer.new_coords))
        others = decoding_alternatives(formula, array)
        clue = Clue("boxes", "", {cause: lambda one=one: _boxes_last(one()) for cause, one in others.items()})
        boxes, expected = boxes.transpose(0, 3, 1, 2, 4), _boxes_last(formula.boxes(array))
        yield case.compare(f"L{layer.index:03d}_boxes", boxes, BOXES, expected, clue)


def _boxes_last(array: Array) -> Array:
    """[image, anchor, 4, row, column] -> [image, anchor, row, column, 4]."""
    return np.moveaxis(array, 2, -1)


def _before(case: Case, layer: Yolo) -> Array:
    """What the layer before a head gave it, [image, anchor, entry, row, column]."""
    array = case.trace.array(f"train/L{layer.index - 1:03d}_output", ("b", "channels", "rows", "columns"), np.floating)
    return array.reshape(array.shape[0], len(layer.mask), -1, *array.shape[2:])


def _in_kerass_form(array: Array) -> tf.Tensor:
    return tf.constant(relayout(array, "NAEHW", "NHWAE"), tf.float32)
