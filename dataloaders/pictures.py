"""Pictures of batches as the network sees them, for TensorBoard and for files."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, UInt8

from dataloaders.batch import PADDING_ID, EvalBatch
from official.vision.draw import draw_boxes, grid
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_input, whole_image, whole_levels

MOST_PICTURES = 16
SHOWN_SCORE = 0.25


def picture_of(
    images: Float32[tf.Tensor, "b H W 3"],
    boxes: Float32[tf.Tensor, "b n yxyx=4"],
    classes: Int32[tf.Tensor, "b n"],
    valid: Bool[tf.Tensor, "b n"],
    class_names: Sequence[str],
) -> UInt8[np.ndarray, "height width 3"]:
    """One picture of the first images of a batch (16 at most), truth boxes drawn in.

    Args:
        images: network input, RGB 0..1, after colour and flip.
        boxes: yxyx relative to the input; padding rows are not valid.
    """
    pixels = tf.cast(tf.round(images[:MOST_PICTURES] * 255.0), tf.uint8).numpy()
    rows = zip(pixels, boxes.numpy(), classes.numpy(), valid.numpy(), strict=False)
    return grid(
        [
            draw_boxes(image, corners[real], [class_names[number] for number in ids[real]], None, ids[real])
            for image, corners, ids, real in rows
        ]
    )


def picture_of_detections(
    batch: EvalBatch, detections: Detections, class_names: Sequence[str], protocol: EvaluationProtocol
) -> UInt8[np.ndarray, "height width 3"]:
    """One picture of the first images of a batch (16 at most), their detections of at least 0.25 drawn in.

    Args:
        batch: its padding rows are left out; at least one row is none.
        detections: boxes yxyx relative to the original images, as `detect` makes them with this `protocol`.
    """
    boxes = detections.boxes
    if not protocol.sees_whole_images:
        size = tuple(batch.image.shape[1:3])
        boxes = boxes_to_input(boxes, batch.image_size, whole_image(batch.image_size), size, protocol)
    shown = (detections.valid & (detections.scores >= SHOWN_SCORE)).numpy()
    parts = (part.numpy() for part in (whole_levels(batch.image), boxes, detections.scores, detections.classes))
    rows = zip(batch.example_id.numpy(), shown, *parts, strict=True)
    pictures = [
        draw_boxes(image, corners[seen], [class_names[number] for number in ids[seen]], scores[seen], ids[seen])
        for example_id, seen, image, corners, scores, ids in rows
        if example_id != PADDING_ID
    ]
    return grid(pictures[:MOST_PICTURES])
