"""YOLOv4-tiny with its published weights gives the original's head outputs on a real image."""

import numpy as np
import pytest

from modeling.darknet.loading import load_weights, model_records
from modeling.yolo.network import build_detector, fold_batch_norm


@pytest.fixture(scope="module")
def original(shared, yolo_model):
    config = yolo_model("yolov4_tiny", size=(416, 416))
    model = build_detector(config, num_classes=80, seed=0)
    load_weights(model, str(shared / "assets/darknet/yolov4-tiny/yolov4-tiny.weights"), model_records(model))
    return config, model, np.load(shared / "golden/infer/yolov4-tiny__000000006040.npz")


@pytest.mark.parametrize("fold", [False, True])
def test_head_outputs_are_the_originals(original, fold):
    config, model, trace = original
    model = fold_batch_norm(config, 80, model) if fold else model
    image = np.transpose(trace["letterbox/X"], (1, 2, 0))
    images = np.stack([image, image[:, ::-1]])  # the batch's second image is another one
    for raw, layer in zip(model(images, training=False), ("L029", "L036"), strict=True):
        expected = np.transpose(trace[f"letterbox/{layer}_output"][0], (1, 2, 0))
        actual = np.asarray(raw[0]).reshape(expected.shape)  # [height, width, anchors * (5 + classes)]
        assert np.abs(actual - expected).max() < 1e-4
