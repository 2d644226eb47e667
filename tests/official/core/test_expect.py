import numpy as np
import pytest
import tensorflow as tf
from jaxtyping import Float, Float32, UInt8

from losses.truth import Truth
from losses.yolo.truth import check_truth
from official.core.expect import TensorError, expect, expect_relative
from official.vision import boxes
from official.vision.detect import detect
from official.vision.evaluator import CocoEvaluator
from official.vision.nms import Detections
from official.vision.protocol import EvaluationProtocol

CLASSES, VALID = tf.zeros([2, 5], tf.int32), tf.ones([2, 5], tf.bool)
BOXES = tf.fill([2, 5, 4], 0.25)


@pytest.mark.parametrize("shape", [[3, 4], [7, 3, 4], [4]])
def test_a_variadic_dimension_is_any(shape):
    expect("x", tf.zeros(shape), Float[tf.Tensor, "*batch 4"])
    expect("x", np.zeros(shape, np.float64), Float[tf.Tensor, "... 4"])


def test_a_union_and_unknown_sizes():
    kind = UInt8[tf.Tensor, "h w 3"] | Float32[tf.Tensor, "h w 3"]
    expect("x", tf.zeros([2, 3, 3]), kind)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, 3]), tf.TensorSpec(None)])
    def check(some, any_rank):
        expect("x", some, kind)
        expect("x", any_rank, kind)
        return some

    check.get_concrete_function()
    with pytest.raises(TensorError, match=r"x is int64 \[2, 3, 3\]; expected uint8 \[h, w, 3\] or float32 \[h, w, 3\]"):
        expect("x", tf.zeros([2, 3, 3], tf.int64), kind)


WRONG_TRUTH = {
    "dtype": (Truth(BOXES, tf.zeros([2, 5]), VALID), r"labels.classes is float32 \[2, 5\]; expected int32 .*cast it"),
    "axes": (
        Truth(tf.zeros([2, 4, 5]), CLASSES, VALID),
        r"\[2, 4, 5\]; expected .* \[batch, truths, 4\], cxcywh .*swapped",
    ),
    "no batch": (Truth(BOXES[0], CLASSES, VALID), "without its first axis, batch"),
    "a class beside": (Truth(tf.zeros([2, 5, 5]), CLASSES, VALID), "no box of four numbers"),
    "one-hot": (Truth(BOXES, tf.zeros([2, 5, 80], tf.int32), VALID), "one-hot"),
    "counts": (Truth(BOXES, CLASSES[:, :3], VALID), r"truths = 5.*truths is 3"),
    "pixels": (Truth(BOXES * 400, CLASSES, VALID), r"\[100, 100, 100, 100\].* 10 of 10 .*cxcywh .*in pixels"),
    "no Truth": ((BOXES, CLASSES, VALID), r"labels is a tuple; expected a Truth\(boxes, classes, valid\)"),
}


@pytest.mark.parametrize("name", WRONG_TRUTH)
def test_labels_of_a_loss(name):
    check_truth(Truth(BOXES, CLASSES, VALID), 2)
    truth, message = WRONG_TRUTH[name]
    with pytest.raises(TensorError, match=message):
        check_truth.__wrapped__(truth, 2) if name == "no Truth" else check_truth(truth, 2)


def test_labels_of_another_batch():
    with pytest.raises(TensorError, match=r"batch = 8.*batch is 2"):
        check_truth(Truth(BOXES, CLASSES, VALID), 8)


def test_padding_and_numbers_that_are_not_finite_say_nothing():
    far = tf.constant([[1e3] * 4, [np.nan] * 4, [0.5] * 4])
    expect_relative("x", far, tf.constant([False, True, True]), "yxyx")
    with pytest.raises(TensorError, match="2 of 3"):
        expect_relative("x", tf.gather(far, [0, 0, 1, 2]), tf.ones([4], tf.bool), "yxyx")


@pytest.mark.parametrize("convert", ["cxcywh_to_yxyx", "yxyx_to_cxcywh", "xywh_to_yxyx", "yxyx_to_xywh", "swap_xy"])
def test_conversions(convert):
    function = getattr(boxes, convert)
    plain = getattr(function, "__wrapped__", function)  # without the shape checks of the tests
    for wrong in (tf.zeros([3, 5]), tf.zeros([3, 4], tf.int32)):
        with pytest.raises(TensorError, match=r"boxes is .*; expected"):
            plain(wrong)


def test_images_to_detect_in():
    call = getattr(detect, "__wrapped__", detect)
    sizes = tf.constant([[64, 32]])
    for images, message in (
        (tf.zeros([1, 32, 64, 3], tf.uint8), "32 x 64 .*64 x 32.*swapped"),
        (tf.zeros([64, 32, 3], tf.int32), "RGB levels 0..255"),
    ):
        with pytest.raises(TensorError, match=message):
            call(None, None, images, sizes, EvaluationProtocol(), (64, 32))


def evaluator():
    truth = {
        "images": [{"id": 7, "width": 320, "height": 200}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [32, 20, 64, 40]}],
    }
    return truth, lambda **change: CocoEvaluator({**truth, **change}, (3, 90), EvaluationProtocol(), {})


CORNERS = tf.constant([[[0.1, 0.2, 0.3, 0.4]]])
GIVEN = Detections(
    tf.constant([[[0.1, 0.2, 0.3, 0.4]]]), tf.constant([[0.9]]), tf.constant([[1]]), tf.constant([[True]])
)
WRONG_DETECTIONS = {
    "pixels": (GIVEN._replace(boxes=GIVEN.boxes * 200), "yxyx relative to the image.*in pixels"),
    "ids": (
        GIVEN._replace(classes=tf.constant([[90]])),
        "classes has 90; expected .* 0 to 1.*own category",
    ),
    "logits": (GIVEN._replace(scores=tf.constant([[4.5]])), "scores has 4.5; expected probabilities.*logits"),
    "dtype": (GIVEN._replace(boxes=tf.cast(GIVEN.boxes, tf.float64)), r"float64 \[1, 1, 4\]; expected float32"),
    "batch": (Detections(*(part[0] for part in GIVEN)), "without its first axis"),
}


class Batch:
    example_id, image_size = tf.constant([7]), tf.constant([[200, 320]])


@pytest.mark.parametrize("name", WRONG_DETECTIONS)
def test_detections_to_score(name):
    _, make = evaluator()
    made = make()
    made.update(Batch, GIVEN)
    detections, message = WRONG_DETECTIONS[name]
    with pytest.raises(TensorError, match=message):
        made.update(Batch, detections)


def test_ground_truth_in_another_form():
    truth, make = evaluator()
    (annotation,) = truth["annotations"]
    for bbox, likely in (([0.1, 0.1, 0.2, 0.2], "relative"), ([200, 100, 310, 190], "xyxy")):
        with pytest.raises(TensorError, match=f"expected xywh in pixels.*Likely {likely}"):
            make(annotations=[{**annotation, "bbox": bbox}])
    make(annotations=[])
