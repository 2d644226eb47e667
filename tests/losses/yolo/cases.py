"""Inputs shared by the tests of the YOLO assignment and loss."""

import numpy as np
import tensorflow as tf

from configs.yolo.heads import YoloHead, YoloLevel
from losses.truth import Truth
from official.core.task import Moment

SIZE = (96, 128)  # height, width
MOMENT = Moment(tf.constant(1, tf.int64), SIZE)
CLASSES = 3
GRIDS = [(3, 4), (6, 8)]
HEAD = YoloHead(
    anchors=((10, 14), (22, 18), (40, 30), (60, 70)),
    levels=(YoloLevel(mask=(2, 3), scale_x_y=1.05), YoloLevel(mask=(0, 1), scale_x_y=1.2)),
)

# Two images of eight rows. The second is full: no padding. NumPy float32 [2, 8, 4] cxcywh, int32 [2, 8], bool [2, 8].
BOXES = np.zeros((2, 8, 4), np.float32)
BOXES[0, 0] = 0.30, 0.40, 0.30, 0.33
BOXES[0, 1] = 0.32, 0.41, 0.31, 0.30  # the same cell and anchor, another class
BOXES[0, 2] = 0.31, 0.42, 0.29, 0.32  # the same again, the class of the first
BOXES[0, 3] = 1.00, 1.00, 0.12, 0.16  # centre on the far corner
BOXES[0, 4] = np.nan, 0.5, 0.2, np.nan  # not valid
BOXES[0, 5] = 0.70, 0.20, 0.00, 0.30  # valid, but without width
BOXES[1] = [
    [0.11, 0.23, 0.08, 0.15],
    [0.13, 0.21, 0.09, 0.14],
    [0.55, 0.52, 0.45, 0.70],
    [0.57, 0.51, 0.50, 0.80],
    [0.55, 0.55, 0.17, 0.19],
    [0.85, 0.95, 0.30, 0.10],
    [0.02, 0.03, 0.03, 0.05],
    [0.50, 0.50, 1.00, 1.00],
]
LABELS = np.array([[0, 2, 0, 1, 1, 0, 0, 0], [0, 0, 1, 2, 2, 1, 0, 2]], np.int32)
VALID = np.array([[1, 1, 1, 1, 0, 1, 0, 0], [1] * 8], bool)
TRUTH = (BOXES, LABELS, VALID)
NO_TRUTH = (np.zeros_like(BOXES), np.zeros_like(LABELS), np.zeros_like(VALID))
ONE_TRUTH = (BOXES, LABELS, VALID & (np.arange(8) == 0))
CASES = {"crowded": TRUTH, "none": NO_TRUTH, "one": ONE_TRUTH}


def as_truth(truth) -> Truth:
    boxes, labels, valid = truth
    return Truth(tf.constant(boxes, tf.float32), tf.constant(labels, tf.int32), tf.constant(valid))


def random_outputs(seed: int, scale: float = 0.7) -> list[np.ndarray]:
    """Raw outputs of both levels: float32 values, coarsest first."""
    generator = np.random.default_rng(seed)
    shapes = [(2, *grid, 2, 5 + CLASSES) for grid in GRIDS]
    return [generator.normal(0, scale, shape).astype(np.float32) for shape in shapes]
