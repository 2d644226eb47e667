"""How the raw outputs of a network become boxes and scores, by the head's `type`.

A decoder takes (outputs, head, input_size (height, width) in pixels) and returns (yxyx boxes relative to the network
input [batch, boxes, 4], scores [batch, boxes, classes]).
"""

from collections.abc import Callable

from modeling.yolo.heads import gaussian_yolo, region, yolo, yolov1

BOX_DECODERS: dict[str, Callable] = {
    "yolo": yolo.decode,
    "gaussian_yolo": gaussian_yolo.decode,
    "region": region.decode,
    "detection": yolov1.decode,
}
