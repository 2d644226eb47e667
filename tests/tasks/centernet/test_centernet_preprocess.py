"""What the network sees of a test image, and where its boxes go back to, against the original's records."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetModel, CenterNetProtocol
from modeling.centernet.decode import to_image
from modeling.centernet.inference import standardise
from official.vision.boxes import swap_xy
from official.vision.detect import detect
from official.vision.resize import boxes_to_original, network_size, normalise, resize_image
from tasks.centernet.scales import detect_at_scales

MODEL = CenterNetModel(input_size=(64, 96), backbone={"type": "resnet"}, decoder={"type": "deconv"})


class Recorded:
    """One image, the input that the original made of it, and its c and s."""

    def __init__(self, path, number: int):
        trace = np.load(path)
        self.c, self.s, self.scale = (trace[f"preprocess{number}/{name}"] for name in ("c", "s", "scale"))
        self.inputs = trace[f"preprocess{number}/images"].transpose(0, 2, 3, 1)
        self.image = tf.constant(np.ascontiguousarray(trace[f"preprocess{number}/image_u8"][..., ::-1]))  # RGB
        options = str(trace[f"preprocess{number}/options"])
        self.flip = "--flip_test" in options
        self.protocol = CenterNetProtocol(
            resize="keep" if "--keep_res" in options else "affine",
            keep_multiple=128 if "pad 127" in options else 32,
            nms="soft_nms",
            scales=(float(self.scale),),
        )

    def levels_apart(self, shown: tf.Tensor) -> float:
        """Largest difference of an input RGB 0..1 from the recorded one, in levels."""
        ours = standardise(shown[..., ::-1], MODEL).numpy()
        return np.abs((ours - self.inputs[0]) * MODEL.std * 255).max()


def decode_corners(boxes):
    """A decoder that finds two boxes, yxyx relative to the input, whatever it sees."""
    return lambda outputs: (tf.constant([boxes], tf.float32), tf.constant([[[0.9, 0.0], [0.0, 0.8]]]))


@pytest.mark.parametrize("number", range(5))
def test_input_and_way_back_at_any_scale(golden_centernet, number):
    """Pixels equal the recorded input, boxes equal the original's inverse map of the same cells."""
    recorded = Recorded(golden_centernet("augment_units.npz"), number)
    shown = []

    def network(images, training):
        shown.append(images[0])
        return images

    boxes = [[0.1, 0.2, 0.4, 0.7], [0.3, -0.1, 1.2, 0.5]]
    found = detect_at_scales(network, decode_corners(boxes), recorded.image[tf.newaxis], recorded.protocol, (64, 96))
    assert recorded.levels_apart(shown[0]) < 2e-3
    rows, columns = (side // 4 for side in recorded.inputs.shape[1:3])
    cells = swap_xy(tf.constant([boxes], tf.float32)) * tf.constant([columns, rows] * 2, tf.float32)
    scale = tf.constant(np.ravel(recorded.s)[:1], tf.float32)
    expected = to_image(cells, tf.constant(recorded.c[np.newaxis]), scale, (rows, columns)) / recorded.scale
    height, width = recorded.image.shape[:2]
    ours = swap_xy(found.boxes[0]) * tf.constant([width, height] * 2, tf.float32)
    np.testing.assert_allclose(ours, expected[0], atol=1e-3)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_input_and_way_back_as_evaluated(golden_centernet, number):
    """The same by the functions that all families share, for those recorded at the image's own scale."""
    recorded = Recorded(golden_centernet("augment_units.npz"), number)
    protocol = recorded.protocol.model_copy(update={"nms": "none"})
    image_size = tf.constant([recorded.image.shape[:2]])
    pixels = resize_image(recorded.image, (64, 96), protocol)
    assert recorded.levels_apart(normalise(pixels)) < 2e-3
    assert tuple(network_size(image_size, (64, 96), protocol)[0].numpy()) == recorded.inputs.shape[1:3]
    boxes = [[0.1, 0.2, 0.4, 0.7], [0.3, -0.1, 1.2, 0.5]]
    found = detect(
        lambda images, training: images, decode_corners(boxes), pixels[tf.newaxis], image_size, protocol, (64, 96)
    )
    expected = boxes_to_original(tf.constant([boxes], tf.float32), image_size, (64, 96), protocol)
    np.testing.assert_array_equal(found.boxes[0, :2], expected[0])
    np.testing.assert_allclose(found.scores[0, :3], [0.9, 0.8, 0.0])
    np.testing.assert_array_equal(found.classes[0, :2], [0, 1])
    rows, columns = (side // 4 for side in recorded.inputs.shape[1:3])
    cells = swap_xy(tf.constant([boxes], tf.float32)) * tf.constant([columns, rows] * 2, tf.float32)
    scale = tf.constant(np.ravel(recorded.s)[:1], tf.float32)
    pixel_boxes = to_image(cells, tf.constant(recorded.c[np.newaxis]), scale, (rows, columns))
    height, width = recorded.image.shape[:2]
    np.testing.assert_allclose(
        swap_xy(found.boxes[:, :2]) * tf.constant([width, height] * 2, tf.float32), pixel_boxes, atol=1e-3
    )


def test_flip_test_shows_the_mirrored_image(golden_centernet):
    recorded = Recorded(golden_centernet("augment_units.npz"), 4)
    assert recorded.flip
    np.testing.assert_array_equal(recorded.inputs[1], recorded.inputs[0][:, ::-1])  # as tf.reverse makes it
