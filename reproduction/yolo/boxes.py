"""What a [yolo] head's numbers mean, on a grid that is not square (`loss/`).

Real detectors are recorded at square inputs, which hide exchanged sides, and these traces have no boxes: what is
recorded before each head is decoded beside Darknet's formula as restated.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.yolo.losses import YoloLoss
from losses.yolo.from_cfg import head_of
from modeling.darknet.sections import Yolo
from modeling.yolo.heads import BOX_DECODERS
from official.vision.boxes import yxyx_to_cxcywh
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute
from reproduction.yolo.case import heads_of, network_of
from reproduction.yolo.loss import of_slots
from reproduction.yolo.mistakes.heads import Level, decoding_alternatives

BOXES = Absolute(bound=1e-5)  # of the input's side, where boxes are no larger than it
_LARGEST = 4.0  # the logit of a side; beyond it rounding grows with the box


def decoding(case: Case) -> Iterator[Row]:
    """All boxes of each level, cxcywh relative to the input."""
    if not all(isinstance(layer, Yolo) for layer in heads_of(case)):
        yield case.skip("boxes", "the formula of other heads than [yolo] is not written down here")
        return
    net, head = network_of(case).net, head_of(network_of(case))
    size = (net.height, net.width)
    raw = [of_slots(case, layer, f"train/L{layer.index - 1:03d}_output") for layer in heads_of(case)]
    raw = [np.clip(array, -_LARGEST, _LARGEST) for array in raw]
    boxes, _ = BOX_DECODERS[head.type]([tf.constant(array, tf.float32) for array in raw], head, size)
    boxes, first = yxyx_to_cxcywh(boxes).numpy(), 0
    for number, (layer, array) in enumerate(zip(heads_of(case), raw, strict=True)):
        count = int(np.prod(array.shape[1:4]))
        ours = boxes[:, first : first + count].reshape(*array.shape[:4], 4)
        first += count
        level = Level.of(head, number, YoloLoss(), array, size)
        clue = Clue("boxes", "", decoding_alternatives(level))
        yield case.compare(f"L{layer.index:03d}_boxes", ours, BOXES, level.boxes(), clue)
