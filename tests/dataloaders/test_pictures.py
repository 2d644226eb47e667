"""Pictures of training batches."""

import numpy as np
import tensorflow as tf

from dataloaders.pictures import picture_of


def test_truth_is_drawn_where_it_is_and_padding_is_not():
    images = tf.zeros([2, 48, 96, 3])
    boxes = tf.constant([[[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]], tf.float32)
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
