import functools

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo import YoloHead, YoloLevel
from modeling.heads.yolo import decode
from official.core.config import Protocol
from official.vision.boxes import cxcywh_to_yxyx
from official.vision.detect import detect

HEAD = YoloHead(
    anchors=((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)),
    levels=(YoloLevel(mask=(3, 4, 5), scale_x_y=1.05), YoloLevel(mask=(1, 2, 3), scale_x_y=1.05)),
)


def test_the_network_sees_pixels_and_the_caller_sees_its_image():
    """A "network" that answers with the mean of the rows it is shown."""

    def model(images, training):
        assert training is False
        return [tf.reduce_mean(images, axis=[2, 3])]

    def decode_rows(outputs):
        batch = tf.shape(outputs[0])[0]
        boxes = tf.tile(tf.constant([[[0.25, 0.0, 0.75, 0.5]]]), [batch, 1, 1])
        return boxes, outputs[0][:, :1, tf.newaxis]

    images = tf.constant(np.full((3, 64, 32, 3), 51, np.uint8))
    sizes = tf.constant([[40, 40], [64, 32], [1, 1]], tf.int32)  # the last is a padding row
    found = detect(model, decode_rows, images, sizes, Protocol(detections_per_image=2), (64, 32))
    np.testing.assert_allclose(found.scores[:, 0], [0.2] * 3, rtol=1e-6)
    # 40 x 40 fills rows 16 to 48 of 64, so the box covers it from top to bottom.
    np.testing.assert_allclose(found.boxes[0, 0], [0, 0, 1, 0.5])
    np.testing.assert_allclose(found.boxes[1, 0], [0.25, 0, 0.75, 0.5])
    assert not found.boxes[:, 1].numpy().any() and np.isfinite(found.boxes).all()


@pytest.mark.parametrize(("resize", "recorded_as"), [("stretch", "resize"), ("letterbox", "letterbox")])
def test_finds_what_darknet_finds(golden, resize, recorded_as):
    """From the raw logits of the original's YOLOv4-tiny to its detections, on a non-square image."""
    recorded = np.load(golden("infer/yolov4-tiny__000000006040.npz"))
    outputs = []
    for layer in ("L029", "L036"):
        raw = recorded[f"{recorded_as}/{layer}_output"]  # [1, 3 * 85, h, w]
        raw = raw.reshape(3, 85, *raw.shape[2:]).transpose(2, 3, 0, 1)  # [h, w, 3, 85]
        outputs.append(tf.constant(np.stack([raw, raw])))
    width, height = recorded["meta/image_wh"]
    found = detect(
        lambda images, training: outputs,
        functools.partial(decode, head=HEAD, input_size=(416, 416)),
        tf.zeros([2, 416, 416, 3], tf.uint8),
        tf.constant([[height, width]] * 2, tf.int32),
        Protocol(resize=resize, score_floor=0.005, nms_threshold=0.45),
        (416, 416),
    )
    expected = recorded[f"{recorded_as}/thresh0.005/default"]  # rows of cx, cy, w, h, objectness, class, probability
    boxes = np.clip(cxcywh_to_yxyx(tf.constant(expected[:, :4])).numpy(), 0, 1)
    order = np.argsort(-expected[:, 6])
    for image in range(2):
        valid = found.valid[image].numpy()
        assert valid.sum() == len(expected)
        np.testing.assert_allclose(found.scores[image].numpy()[valid], expected[order, 6], atol=2e-5)
        np.testing.assert_array_equal(found.classes[image].numpy()[valid], expected[order, 5])
        np.testing.assert_allclose(found.boxes[image].numpy()[valid], boxes[order], atol=2e-5)
