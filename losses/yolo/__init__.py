"""The losses of the YOLO family, by the `type` of the head and its loss.

A loss takes (outputs, truth, head, loss, moment) and returns (scalar, named parts); what it is made of, for a look and
for comparisons, HEAD_LOSS_PARTS returns from the same arguments: cost, delta and targets of each head, in Darknet's
semantics.
"""

from collections.abc import Callable

from losses.yolo.autodiff import yolo_loss
from losses.yolo.darknet.gaussian_yolo import gaussian_yolo_heads, gaussian_yolo_loss
from losses.yolo.darknet.region import region_heads, region_loss
from losses.yolo.darknet.yolo import yolo_heads
from losses.yolo.darknet.yolov1 import detection_heads, detection_loss

LOSSES: dict[str, Callable] = {
    "yolo": yolo_loss,
    "gaussian_yolo": gaussian_yolo_loss,
    "region": region_loss,
    "detection": detection_loss,
}
HEAD_LOSS_PARTS: dict[str, Callable] = {
    "yolo": yolo_heads,
    "gaussian_yolo": gaussian_yolo_heads,
    "region": region_heads,
    "detection": detection_heads,
}
