"""Pictures of training batches and of detections: where the boxes lie, which are drawn, which rows."""

import numpy as np
import pytest
import tensorflow as tf

from dataloaders.batch import EvalBatch
from dataloaders.pictures import picture_of, picture_of_detections
from official.vision.draw import class_colour
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import resize_image

INPUT = (96, 64)
NAMES = ("cell", "dot")


def test_truth_is_drawn_where_it_is_and_padding_is_not():
    images = tf.zeros([2, 48, 96, 3])
    boxes = tf.constant([[[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], tf.float32)
    valid = tf.constant([[True, False], [False, False]])
    picture = picture_of(images, boxes, tf.constant([[1, 0], [0, 0]]), valid, ("cell", "dot"))
    assert picture.dtype == np.uint8
    first, second = picture[:48, :96], picture[:48, -96:]
    assert first[30, 24].any() and not first[30, 48].any() and not second.any()


def test_at_most_sixteen_pictures():
    images = tf.ones([20, 8, 16, 3])
    nothing = tf.zeros([20, 3, 4]), tf.zeros([20, 3], tf.int32), tf.zeros([20, 3], tf.bool)
    picture = picture_of(images, *nothing, ("cell",))
    assert picture.shape[0] < 5 * 8 + 20 and picture.shape[1] < 5 * 16 + 20


def _batch(protocol, sizes, ids):
    images = [resize_image(tf.zeros([*size, 3], tf.uint8), INPUT, protocol) for size in sizes]
    return EvalBatch(tf.stack(images), tf.constant(sizes), tf.constant(ids, tf.int64))


def _detections(count, boxes, scores, valid):
    rows = [tf.constant([part] * count) for part in (boxes, scores, [1] * len(boxes), valid)]
    return Detections(*rows)


PROTOCOLS = [
    EvaluationProtocol(resize="stretch"),
    EvaluationProtocol(resize="letterbox"),
    EvaluationProtocol(resize="letterbox", interpolation="align_corners"),  # float pixels
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: f"{p.resize}-{p.interpolation}")
def test_boxes_of_the_original_are_drawn_where_the_network_sees_them(protocol):
    sizes = [[40, 80], [200, 50]]
    boxes = [[0.5, 0.25, 1.0, 0.75], [0.0, 0.0, 0.3, 0.3], [0.0, 0.0, 0.4, 0.4]]
    found = _detections(2, boxes, [0.9, 0.24, 0.9], [True, True, False])
    picture = picture_of_detections(_batch(protocol, sizes, [7, 8]), found, NAMES, protocol)
    assert picture.shape[0] == 96 and picture.dtype == np.uint8
    # [height, width] of the image in the input, and where it begins: Darknet's integers.
    placed = [(96, 64, 0, 0)] * 2 if protocol.resize == "stretch" else [(32, 64, 32, 0), (96, 24, 0, 20)]
    for number, (height, width, top, left) in enumerate(placed):
        tile = picture[:, number * 68 : number * 68 + 64]
        rows, columns = np.nonzero((tile == class_colour(1)).all(axis=-1))
        # The label is as wide as it is, above the box: the box's own bottom row and right column tell.
        assert abs(rows.max() - (top + height - 1)) <= 1
        bottom = columns[rows == rows.max()]
        assert abs(bottom.min() - (left + width / 4)) <= 1 and abs(bottom.max() - (left + 3 * width / 4 - 1)) <= 1


def test_padding_rows_and_the_seventeenth_are_left_out():
    protocol = EvaluationProtocol()
    nothing = _detections(3, np.zeros([2, 4], np.float32).tolist(), [0.0, 0.0], [False, False])
    batch = _batch(protocol, [[40, 80], [1, 1], [1, 1]], [7, -1, -1])
    np.testing.assert_array_equal(picture_of_detections(batch, nothing, NAMES, protocol), batch.image[0])
    many = _detections(18, np.zeros([2, 4], np.float32).tolist(), [0.0, 0.0], [False, False])
    batch = _batch(protocol, [[40, 80]] * 18, list(range(18)))
    assert picture_of_detections(batch, many, NAMES, protocol).shape == (4 * 100 - 4, 4 * 68 - 4, 3)
