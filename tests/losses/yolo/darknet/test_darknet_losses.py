"""What holds for every loss in `darknet` semantics, whatever the family."""

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import DetectionHead, GaussianYoloHead, RegionHead, YoloHead
from configs.yolo.losses import DetectionLoss, GaussianYoloLoss, RegionLoss, YoloLoss
from losses.truth import Truth
from losses.yolo import HEAD_LOSS_PARTS, LOSSES
from official.core.errors import UserError
from official.core.task import Moment
from tests.losses.yolo.cases import CASES, CLASSES, HEAD, SIZE, TRUTH, as_truth

GRIDS = [(3, 4), (6, 8)]
LEVELS = [{"mask": (2, 3), "scale_x_y": 1.05}, {"mask": (0, 1), "scale_x_y": 1.2}]
SMOOTH = {"new_coords": True, "loss": {"gradient": "darknet", "iou_loss": "ciou", "objectness_smooth": True}}
YOLO_V4 = {"gradient": "darknet", "iou_loss": "ciou", "iou_normalizer": 0.07, "iou_thresh": 0.213, "max_delta": 5}
FAMILIES = {
    "yolo mse": (HEAD, YoloLoss(gradient="darknet")),
    "yolo ciou": (HEAD, YoloLoss(**YOLO_V4)),
    "yolo smooth": (
        YoloHead(anchors=HEAD.anchors, levels=[{**LEVELS[0], **SMOOTH}, LEVELS[1]]),
        YoloLoss(gradient="darknet", truth_thresh=0.6, counters_per_class=(5, 10, 2), max_delta=3),
    ),
    "gaussian": (GaussianYoloHead(anchors=HEAD.anchors, levels=LEVELS), GaussianYoloLoss(max_delta=5)),
    "gaussian giou": (
        GaussianYoloHead(anchors=HEAD.anchors, levels=LEVELS),
        GaussianYoloLoss(iou_loss="giou", iou_thresh=0.213),
    ),
    "region": (
        RegionHead(anchors=((0.5, 0.8), (2, 1.5)), softmax=True),
        RegionLoss(rescore=True, bias_match=True, thresh=0.6, object_scale=5, prior_steps=2),
    ),
    "region raw": (RegionHead(anchors=((0.5, 0.8), (2, 1.5))), RegionLoss(coord_scale=2)),
    "detection": (
        DetectionHead(side=7, num=2, sqrt=True),
        DetectionLoss(coord_scale=5, noobject_scale=0.5, rescore=True),
    ),
    "detection raw": (DetectionHead(side=5, num=3, softmax=True), DetectionLoss()),
}
EVERY = pytest.mark.parametrize("family", FAMILIES)


def outputs_of(family: str, seed: int, scale: float = 0.7) -> list[np.ndarray]:
    head, _ = FAMILIES[family]
    generator = np.random.default_rng(seed)
    if head.type == "detection":
        shapes = [(2, head.side**2 * (CLASSES + 5 * head.num))]
    elif head.type == "region":
        shapes = [(2, 6, 8, 2, 5 + CLASSES)]
    else:
        shapes = [(2, *grid, 2, (9 if head.type == "gaussian_yolo" else 5) + CLASSES) for grid in GRIDS]
    return [generator.normal(0, scale, shape).astype(np.float32) for shape in shapes]


def moment_at(step: int) -> Moment:
    return Moment(tf.constant(step, tf.int64), SIZE)


def loss_and_gradients(family: str, outputs, truth: Truth, step: int = 3):
    head, loss = FAMILIES[family]
    outputs = [tf.convert_to_tensor(raw) for raw in outputs]
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total, parts = LOSSES[head.type](outputs, truth, head, loss, moment_at(step))
    return total, parts, tape.gradient(total, outputs)


def heads_of(family: str, outputs, truth: Truth, step: int = 3):
    head, loss = FAMILIES[family]
    return HEAD_LOSS_PARTS[head.type]([tf.constant(raw) for raw in outputs], truth, head, loss, moment_at(step))


@EVERY
@pytest.mark.parametrize("case", CASES)
def test_none_one_and_many_boxes(family, case):
    outputs, truth = outputs_of(family, 1), as_truth(CASES[case])
    total, parts, gradients = loss_and_gradients(family, outputs, truth)
    heads = heads_of(family, outputs, truth)
    assert np.isfinite(total) and all(np.isfinite(value) for value in parts.values())
    np.testing.assert_allclose(2 * len(heads) * total, sum(float(head.cost) for head in heads), rtol=1e-5)
    for gradient, head in zip(gradients, heads, strict=True):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient, head.delta / -2)
    assert (parts["positives"] > 0) == (parts["class"] > 0) == (case != "none")
    assert 0 <= parts["iou"] <= 1


@EVERY
def test_what_padding_holds_does_not_matter(family):
    outputs = outputs_of(family, 2)
    boxes, labels, valid = (part.copy() for part in TRUTH)
    boxes[~valid] = [np.nan, np.inf, -np.inf, 1e30]
    labels[~valid] = -7
    labels[0, -1] = 10**6
    expected = heads_of(family, outputs, as_truth(TRUTH))
    more = [np.concatenate([part, part[:, -1:]], axis=1) for part in (boxes, labels, np.zeros_like(valid))]
    more[2][:, :-1] = valid
    for truth in ((boxes, labels, valid), more):
        for one, other in zip(heads_of(family, outputs, as_truth(truth)), expected, strict=True):
            # Not to the bit: vectorised functions round the last elements of an array otherwise than the others.
            np.testing.assert_allclose(one.delta, other.delta, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(one.cost, other.cost, rtol=1e-6)


@EVERY
def test_boxes_on_the_border_and_without_area(family):
    """The far corner belongs to the last cell; what has no width or height takes no part."""
    outputs = outputs_of(family, 3)
    boxes = np.zeros((2, 4, 4), np.float32)
    boxes[:, 0] = 1, 1, 0.3, 0.4
    boxes[:, 1] = 0.5, 0.5, 0, 0.3
    boxes[:, 2] = 0.5, 0.5, 0.2, 0
    labels, valid = np.ones((2, 4), np.int32), np.ones((2, 4), bool)
    heads = heads_of(family, outputs, as_truth((boxes, labels, valid)))
    expected = heads_of(family, outputs, as_truth((boxes[:, :1], labels[:, :1], valid[:, :1])))
    for head, other in zip(heads, expected, strict=True):
        np.testing.assert_allclose(head.delta, other.delta, rtol=1e-5, atol=1e-7)
        assert np.isfinite(head.delta).all()
    assert sum(float(head.diagnostics["positives"]) for head in heads) >= 2


@EVERY
def test_examples_do_not_see_each_other(family):
    """Each example's gradient, but for the batch it is divided by, is what it is alone."""
    outputs, truth = outputs_of(family, 4), as_truth(TRUTH)
    whole = heads_of(family, outputs, truth)
    for image in (0, 1):
        one = slice(image, image + 1)
        alone = heads_of(family, [raw[one] for raw in outputs], Truth(*(part[one] for part in truth)))
        for some, all_ in zip(alone, whole, strict=True):
            np.testing.assert_allclose(some.delta, all_.delta[one], rtol=1e-6, atol=1e-7)


@EVERY
def test_nan_is_not_hidden(family):
    outputs = outputs_of(family, 5)
    for channel in (0, -1):
        broken = [raw.copy() for raw in outputs]
        for raw in broken:
            raw[... if raw.ndim == 2 else (..., channel)] = np.nan
        total, _, gradients = loss_and_gradients(family, broken, as_truth(TRUTH))
        assert np.isnan(total) or any(np.isnan(gradient).any() for gradient in gradients)
    boxes, labels, valid = (part.copy() for part in TRUTH)
    boxes[0, 0] = np.nan
    total, _, gradients = loss_and_gradients(family, outputs, as_truth((boxes, labels, valid)))
    assert np.isnan(total) or any(np.isnan(gradient).any() for gradient in gradients)


@EVERY
def test_wild_numbers_leave_the_gradient_finite(family):
    outputs = outputs_of(family, 6, scale=60)
    _, _, gradients = loss_and_gradients(family, outputs, as_truth(TRUTH))
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=[] if family in ("yolo smooth", "region", "detection") else pytest.mark.slow)
        for family in FAMILIES
    ],
)
def test_compiles_and_equals_eager(family):
    head, loss = FAMILIES[family]
    outputs, truth = [tf.constant(raw) for raw in outputs_of(family, 7)], as_truth(TRUTH)
    if hasattr(head, "levels"):  # one is enough, and compiles faster
        head, outputs = head.model_copy(update={"levels": head.levels[:1]}), outputs[:1]

    def step(outputs, truth, number):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            total, parts = LOSSES[head.type](outputs, truth, head, loss, Moment(number, SIZE))
        return total, parts, tape.gradient(total, outputs)

    number = tf.constant(1, tf.int64)
    total, parts, gradients = tf.function(step, autograph=False, jit_compile=True)(outputs, truth, number)
    expected, expected_parts, expected_gradients = step(outputs, truth, number)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for name, value in expected_parts.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@EVERY
def test_bfloat16_outputs_are_computed_with_in_float32(family):
    outputs = [tf.cast(raw, tf.bfloat16) for raw in outputs_of(family, 8)]
    total, parts, gradients = loss_and_gradients(family, outputs, as_truth(TRUTH))
    as_float = [tf.cast(raw, tf.float32) for raw in outputs]
    expected, _, expected_gradients = loss_and_gradients(family, as_float, as_truth(TRUTH))
    assert total.dtype == tf.float32 and all(value.dtype == tf.float32 for value in parts.values())
    np.testing.assert_array_equal(total, expected)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert one.dtype == tf.bfloat16
        np.testing.assert_array_equal(one, tf.cast(other, tf.bfloat16))


def test_rules_that_do_not_fit_are_one_clear_error():
    outputs, truth = [tf.constant(raw) for raw in outputs_of("yolo mse", 9)], as_truth(TRUTH)
    with pytest.raises(UserError, match="counters_per_class has 2 counts; the head has 3 classes"):
        LOSSES["yolo"](outputs, truth, HEAD, YoloLoss(gradient="darknet", counters_per_class=(1, 2)), moment_at(1))
    mixed = YoloHead(anchors=HEAD.anchors, levels=[{**LEVELS[0], "loss": {"gradient": "darknet"}}, LEVELS[1]])
    with pytest.raises(UserError, match="gradient: darknet in the loss of a level, autodiff in the task's"):
        LOSSES["yolo"](outputs, truth, mixed, YoloLoss(), moment_at(1))
