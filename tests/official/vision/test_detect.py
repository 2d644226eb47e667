import numpy as np
import pytest
import tensorflow as tf

from official.vision.boxes import cxcywh_to_yxyx, yxyx_to_cxcywh
from official.vision.detect import detect
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import boxes_to_original


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
    found = detect(model, decode_rows, images, sizes, EvaluationProtocol(detections_per_image=2), (64, 32))
    np.testing.assert_allclose(found.scores[:, 0], [0.2] * 3, rtol=1e-6)
    # 40 x 40 fills rows 16 to 48 of 64, so the box covers it from top to bottom.
    np.testing.assert_allclose(found.boxes[0, 0], [0, 0, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.boxes[1, 0], [0.25, 0, 0.75, 0.5])
    assert not found.boxes[:, 1].numpy().any() and np.isfinite(found.boxes).all()


INFERRED = {  # name, (height, width) of the image, head layers
    "yolo-fastest-1.1__000000037666": ((424, 640), ("L121", "L130")),
    "yolo-fastest-1.1-xl__000000037666": ((424, 640), ("L121", "L130")),
    "yolov4-tiny__000000006040": ((351, 640), ("L030", "L037")),
}
MODES = {"resize": "stretch", "letterbox": "letterbox"}


class Recorded:
    """What one of Darknet's models put out for one image, decoded."""

    def __init__(self, golden, name, mode):
        self.image_size, layers = INFERRED[name]
        self._file, self._mode = np.load(golden(f"infer/{name}.npz")), mode
        self.side = 32 * self[f"{layers[0]}_output"].shape[-1]
        self.protocol = EvaluationProtocol(resize=MODES[mode], nms_threshold=0.45)
        levels = [self._decode(layer) for layer in layers]
        self.boxes, self.objectness, scores = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        self.scores = self.objectness[:, None] * scores

    def __getitem__(self, key):
        return self._file[f"{self._mode}/{key}"]

    def _decode(self, layer):
        """The cells' boxes cxcywh relative to the input, objectness, class scores; in the order of yolo_layer.c."""
        anchors = self._file[f"anchors/{layer}"].reshape(-1, 2)[self._file[f"mask/{layer}"]]  # [3, 2]
        output = self[f"{layer}_output"].reshape(len(anchors), 85, *self[f"{layer}_output"].shape[2:])
        x, y, width, height, objectness = output[:, :5].transpose(1, 2, 3, 0)  # [rows, columns, 3] each
        rows, columns = x.shape[:2]
        boxes = np.stack(
            [
                (x + np.arange(columns)[:, None]) / columns,
                (y + np.arange(rows)[:, None, None]) / rows,
                np.exp(width) * anchors[:, 0] / self.side,
                np.exp(height) * anchors[:, 1] / self.side,
            ],
            axis=-1,
        )
        scores = output[:, 5:].transpose(2, 3, 0, 1)
        return boxes.astype(np.float32).reshape(-1, 4), objectness.ravel(), scores.reshape(-1, 80)

    def detect(self, protocol):
        decoded = cxcywh_to_yxyx(tf.constant(self.boxes)), tf.constant(self.scores)
        found = detect(
            lambda images, training: images,
            lambda outputs: tuple(tf.stack([part, part]) for part in decoded),
            tf.zeros([2, self.side, self.side, 3], tf.uint8),
            tf.constant([self.image_size] * 2),
            protocol,
            (self.side, self.side),
        )
        return [[part[image].numpy()[found.valid[image].numpy()] for part in found[:3]] for image in range(2)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INFERRED)
def test_boxes_before_nms_are_darknets(golden, name, mode):
    """correct_yolo_boxes: relative to the original image, and beyond it where the letterbox's padding is."""
    recorded = Recorded(golden, name, mode)
    for threshold in ("0.25", "0.005"):
        expected = recorded[f"thresh{threshold}/raw"]
        chosen = recorded.objectness > np.float32(threshold)
        np.testing.assert_allclose(recorded.objectness[chosen], expected[:, 4], atol=1e-6)
        boxes = cxcywh_to_yxyx(tf.constant(recorded.boxes[chosen]))
        size = (recorded.side, recorded.side)
        ours = yxyx_to_cxcywh(boxes_to_original(boxes, tf.constant(recorded.image_size), size, recorded.protocol))
        np.testing.assert_allclose(ours, expected[:, :4], atol=2e-6)


@pytest.mark.parametrize("kind", ["default", "greedynms", "diounms"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INFERRED)
def test_finds_what_darknet_finds(golden, name, mode, kind):
    """The same set after NMS, from the original's own network outputs; on non-square images."""
    recorded = Recorded(golden, name, mode)
    nms = "per_class_iou" if kind == "default" else kind
    for threshold in ("0.25", "0.005"):
        expected = recorded[f"thresh{threshold}/{kind}"]  # rows of cx, cy, w, h, objectness, class, probability
        expected = expected[np.argsort(-expected[:, 6])]
        update = {"score_floor": float(threshold), "nms": nms}
        for boxes, scores, classes in recorded.detect(recorded.protocol.model_copy(update=update)):
            assert len(boxes) == len(expected) > 0
            np.testing.assert_allclose(scores, expected[:, 6], atol=1e-6)
            np.testing.assert_array_equal(classes, expected[:, 5])
            np.testing.assert_allclose(yxyx_to_cxcywh(tf.constant(boxes)), expected[:, :4], atol=2e-6)


def test_distances_are_measured_in_the_original_image():
    """Two boxes side by side in a letterboxed wide image: relative to that image, they lie nearer than in the input."""
    boxes = tf.constant([[[0.25, 0.2, 0.5, 0.6], [0.25, 0.3, 0.5, 0.7]]] * 2)  # IoU 0.6, centres 0.1 apart in x

    def found(image_size, threshold):
        protocol = EvaluationProtocol(nms="greedynms", nms_threshold=threshold)
        decode = lambda outputs: (boxes, tf.constant([[[0.9], [0.8]]] * 2))  # noqa: E731
        sizes, images = tf.constant([image_size] * 2), tf.zeros([2, 64, 64, 3], tf.uint8)
        return detect(lambda images, training: images, decode, images, sizes, protocol, (64, 64)).valid.numpy().sum()

    square, wide = (0.6 - (0.01 / (0.25 + height**2)) ** 0.6 for height in (0.25, 1.0))  # 0.49, 0.55
    middle = (square + wide) / 2
    assert (found((40, 40), middle), found((10, 40), middle)) == (4, 2)
