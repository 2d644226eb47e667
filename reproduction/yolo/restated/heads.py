"""What a decoder and a loss of the YOLO family give, by the head's type, away from the product."""

from collections.abc import Callable, Mapping

from reproduction.yolo.restated import gaussian_yolo, region, yolo, yolov1
from reproduction.yolo.restated.common import DarknetResult, Result

# (outputs, head, input_size) -> (yxyx boxes relative to the network input [batch, boxes, 4], scores [batch, boxes,
# classes]), ordered by level, row, column, anchor. input_size: (height, width) in pixels.
DECODE: Mapping[str, Callable] = {
    "yolo": yolo.decode_all,
    "gaussian_yolo": gaussian_yolo.decode_all,
    "region": lambda outputs, head, input_size: region.decode_all(outputs, head),
    "detection": lambda outputs, head, input_size: yolov1.decode_all(outputs, head),
}

# By head type and gradient: (outputs, truth, head, loss, input_size, step) -> what it comes to. outputs: raw, a list of
# arrays; truth: anything with boxes (cxcywh relative to the network input), classes and valid.
LOSS: Mapping[tuple[str, str], Callable[..., Result | DarknetResult]] = {
    ("yolo", "autodiff"): lambda outputs, truth, head, loss, size, step: yolo.loss(outputs, truth, head, loss, size),
    ("yolo", "darknet"): lambda outputs, truth, head, loss, size, step: yolo.darknet_deltas(
        outputs, truth, head, loss, size
    ),
    ("gaussian_yolo", "darknet"): lambda outputs, truth, head, loss, size, step: gaussian_yolo.darknet_deltas(
        outputs, truth, head, loss, size
    ),
    ("region", "darknet"): lambda outputs, truth, head, loss, size, step: region.darknet_deltas(
        outputs, truth, head, loss, step
    ),
    ("detection", "darknet"): lambda outputs, truth, head, loss, size, step: yolov1.darknet_deltas(
        outputs, truth, head, loss
    ),
}
