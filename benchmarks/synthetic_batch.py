"""A training batch of noise with random boxes, for timing what does not depend on the pixels."""

import numpy as np
import tensorflow as tf

from dataloaders.batch import ColourDraws, TrainBatch


def random_batch(batch_size: int, input_size: tuple[int, int], max_boxes: int, boxes_per_image: int = 7) -> TrainBatch:
    """cxcywh boxes (relative) of up to 0.4 of the image's side, `boxes_per_image` of them valid."""
    rng = np.random.default_rng(0)
    boxes = np.zeros([batch_size, max_boxes, 4], np.float32)
    boxes[:, :boxes_per_image, :2] = rng.uniform(0.2, 0.8, [batch_size, boxes_per_image, 2])
    boxes[:, :boxes_per_image, 2:] = rng.uniform(0.02, 0.4, [batch_size, boxes_per_image, 2])
    ones = tf.ones([batch_size])
    return TrainBatch(
        image=tf.constant(rng.integers(0, 256, [batch_size, *input_size, 3], np.uint8)),
        boxes=tf.constant(boxes),
        classes=tf.zeros([batch_size, max_boxes], tf.int32),
        valid=tf.constant(np.broadcast_to(np.arange(max_boxes) < boxes_per_image, [batch_size, max_boxes])),
        example_id=tf.range(batch_size, dtype=tf.int64),
        draws=ColourDraws(tf.cast(ones, tf.bool), 0.05 * ones, 1.2 * ones, 1.1 * ones),
    )
