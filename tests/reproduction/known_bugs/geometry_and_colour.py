"""Bugs of geometry and colour: entries 1 to 8."""

from collections.abc import Callable

import tensorflow as tf
from pytest import MonkeyPatch

from configs.yolo.heads import YoloHead
from losses.yolo.darknet import iou
from modeling.yolo.heads import yolo
from official.vision import interpolation, nms, resize
from official.vision.boxes import yxyx_to_cxcywh
from reproduction.yolo import functions
from tests.reproduction.known_bugs.bug import Bug


def _letterbox_by_swapped_sides(patch: MonkeyPatch) -> None:
    """The image's size is taken as (width, height)."""
    right = resize.placement
    patch.setattr(resize, "placement", lambda sizes, size, protocol: right(sizes[..., ::-1], size, protocol))


def _pixels_by_swapped_sides(patch: MonkeyPatch) -> None:
    """The same in the image alone: its boxes are right."""
    right = resize.placement

    def letterbox(image, *rest):
        with MonkeyPatch.context() as inner:
            inner.setattr(resize, "placement", lambda sizes, size, protocol: right(sizes[..., ::-1], size, protocol))
            return resize.resize_image(image, *rest)

    patch.setattr(functions, "resize_image", letterbox)


def _anchors_by_swapped_sides(patch: MonkeyPatch) -> None:
    right = yolo.relative_anchors
    patch.setattr(yolo, "relative_anchors", lambda anchors, size: right(anchors, size[::-1]))


def _anchors_of_grid(patch: MonkeyPatch) -> None:
    """Pixels divided by the number of cells of the head with stride 8."""
    right = yolo.relative_anchors
    patch.setattr(yolo, "relative_anchors", lambda anchors, size: right(anchors, (size[0] // 8, size[1] // 8)))


def _anchors_of_416(patch: MonkeyPatch) -> None:
    right = yolo.relative_anchors
    patch.setattr(yolo, "relative_anchors", lambda anchors, size: right(anchors, (416, 416)))


def _grid_by_swapped_sides(patch: MonkeyPatch) -> None:
    """x is divided by the rows, y by the columns."""
    right = yolo.centres_of

    def centres(offsets):
        rows, columns = offsets.shape[1:3]
        return right(offsets) * tf.constant([columns / rows, rows / columns], tf.float32)

    patch.setattr(yolo, "centres_of", centres)


def _mask_one_off(patch: MonkeyPatch) -> None:
    """0,1,2 for 1,2,3, and the like."""
    patch.setattr(YoloHead, "anchors_of", lambda self, level: [self.table(level)[max(0, i - 1)] for i in level.mask])


def _unscaled_centres(patch: MonkeyPatch) -> None:
    patch.setattr(yolo, "scaled", lambda near, scale_x_y: near)


def _bgr(patch: MonkeyPatch) -> None:
    right = functions.resize_image
    patch.setattr(functions, "resize_image", lambda image, *rest: right(image[..., ::-1], *rest))


def _always(way: str) -> Callable[[MonkeyPatch], None]:
    """`stretch` or `letterbox`, whatever the protocol asks for."""

    def plant(patch: MonkeyPatch) -> None:
        right = functions.resize_image
        change = {"resize": way}

        def wrong(image, size, protocol):
            return right(image, size, protocol.model_copy(update=change))

        patch.setattr(functions, "resize_image", wrong)

    return plant


def _resized_by(method: str, antialias: bool = False) -> Callable[[MonkeyPatch], None]:
    """TensorFlow's resize, whose pixels' centres are aligned."""

    def resized(image, size):
        return tf.cast(tf.image.resize(image, size, method, antialias=antialias), tf.float32)

    return lambda patch: patch.setitem(interpolation.INTERPOLATIONS, "align_corners", resized)


def _overlap_of_corners(patch: MonkeyPatch) -> None:
    """An IoU of xyxy boxes that is given cxcywh."""

    def as_corners(boxes):
        x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
        return tf.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)

    for kind, right in list(iou.KINDS.items()):
        patch.setitem(iou.KINDS, kind, lambda a, b, right=right: right(as_corners(a), as_corners(b)))


def _nms_of_centres(patch: MonkeyPatch) -> None:
    """NMS takes the numbers of cxcywh for corners."""
    right = nms._suppresses

    def wrong(boxes, protocol):
        x, y, width, height = tf.unstack(yxyx_to_cxcywh(boxes), axis=-1)
        return right(tf.stack([y, x, height, width], axis=-1), protocol)

    patch.setattr(nms, "_suppresses", wrong)


_LETTERBOX = ("image_ops/letterbox_20x60", "image_ops/letterbox_32x24")
_RESIZE = ("image_ops/resize_16x8", "image_ops/resize_100x30")
_DECODE = ("yolo-fastest-1.1__*", "ciou_v4", "mse_v3")

BUGS = (
    Bug("letterbox with height and width exchanged", (1,), _letterbox_by_swapped_sides, 3, ("yolov4-tiny__*",),
        "yolov4-tiny__000000006040: letterbox/thresh*/raw", "height_width_swapped"),
    Bug("letterboxed pixels with height and width exchanged", (1,), _pixels_by_swapped_sides, 8, _LETTERBOX,
        "image_ops/letterbox_32x24: *", "height_width_swapped"),
    Bug("anchors divided by height and width exchanged", (1, 6), _anchors_by_swapped_sides, 3, _DECODE,
        "ciou_v4: L*_boxes", "height_width_swapped", before=("act_bn_leaky",), quick=True),
    Bug("the grid's rows and columns exchanged", (1,), _grid_by_swapped_sides, 3, _DECODE,
        "ciou_v4: L*_boxes", "height_width_swapped"),
    Bug("BGR instead of RGB", (2,), _bgr, 8, _RESIZE, "image_ops/resize_16x8: *", "channels_reversed"),
    Bug("stretched instead of letterboxed", (3,), _always("stretch"), 8, _LETTERBOX,
        "image_ops/letterbox_32x24: *", "letterbox_or_stretch"),
    Bug("letterboxed instead of stretched", (3,), _always("letterbox"), 8, _RESIZE,
        "image_ops/resize_16x8: *", "letterbox_or_stretch"),
    Bug("resized with the pixels' centres aligned", (4,), _resized_by("bilinear"), 8, _RESIZE,
        "image_ops/resize_16x8: *", "resize_half_pixel"),
    Bug("resized by the nearest pixel", (4, 31), _resized_by("nearest"), 8, _RESIZE,
        "image_ops/resize_16x8: *", "resize_nearest"),
    Bug("resized by the mean of an area", (4,), _resized_by("area"), 8, ("image_ops/resize_16x8",),
        "image_ops/resize_16x8: *", "resize_area"),
    Bug("cxcywh given to an IoU of corners", (5,), _overlap_of_corners, 3, ("iou", "yolo-fastest-1.1__*"),
        "iou: iou_giou_diou_ciou", "box_format"),
    Bug("cxcywh given to NMS", (5,), _nms_of_centres, 3, ("nms/case0", "yolo-fastest-1.1__*"),
        "nms/case0: case0/default_0.45", "box_format"),
    Bug("anchors in pixels taken as grid cells", (6,), _anchors_of_grid, 3, _DECODE,
        "ciou_v4: L*_boxes", "anchor_units"),
    Bug("anchors of 416 not rescaled with the input", (6,), _anchors_of_416, 3, _DECODE,
        "ciou_v4: L*_boxes", "anchor_units"),
    Bug("the anchors' mask one off", (7,), _mask_one_off, 3, _DECODE,
        "ciou_v4: L*_boxes", "anchor_mask"),
    Bug("scale_x_y left out", (6,), _unscaled_centres, 3, _DECODE,
        "ciou_v4: L*_boxes", "scale_x_y"),
)  # fmt: skip
