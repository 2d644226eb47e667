"""Darknet's gradient where truths crowd, in every combination of options, against the restated one."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.yolo.heads import GaussianYoloHead, YoloHead
from configs.yolo.losses import GaussianYoloLoss, YoloLoss
from losses.yolo import HEAD_LOSS_PARTS
from reproduction.yolo.restated.heads import LOSS
from tests.losses.yolo.cases import CLASSES, MOMENT, SIZE, as_truth

ROWS, COLUMNS = 3, 4
ANCHORS = ((10, 14), (22, 18), (40, 30), (60, 70))
MASK = (3, 1, 2)

COMMON = {
    "iou_loss": st.sampled_from(["mse", "iou", "giou", "diou", "ciou"]),
    "ignore_thresh": st.sampled_from([0.2, 0.5]),
    "truth_thresh": st.sampled_from([1.0, 1.0, 0.4]),
    "iou_thresh": st.sampled_from([1.0, 0.213, 0.5]),
    "iou_thresh_kind": st.sampled_from(["iou", "giou", "diou", "ciou"]),
    "max_delta": st.sampled_from([None, 0.3, 2.0]),
    "counters_per_class": st.sampled_from([None, (10, 40, 7)]),
    "label_smoothing": st.sampled_from([0.0, 0.1]),
    "cls_normalizer": st.sampled_from([1.0, 0.5]),
    "obj_normalizer": st.sampled_from([1.0, 0.4]),
}
YOLO = st.fixed_dictionaries(
    {"gradient": st.just("darknet"), "objectness_smooth": st.booleans(), "focal_loss": st.booleans(), **COMMON}
)
GAUSSIAN = st.fixed_dictionaries({"uc_normalizer": st.sampled_from([1.0, 0.3]), **COMMON})


def crowd(generator, count: int):
    """Two images, whose truths have a few cells between them, and many the same shape."""
    boxes = np.zeros((2, count, 4), np.float32)
    boxes[..., :2] = generator.choice([0.3, 0.6], (2, count, 1)) + generator.uniform(0, 0.02, (2, count, 2))
    boxes[..., 2:] = generator.choice([0.15, 0.3, 0.5], (2, count, 1)) * generator.uniform(0.9, 1.3, (2, count, 2))
    classes = generator.integers(0, CLASSES, (2, count), dtype=np.int32)
    valid = generator.uniform(size=(2, count)) < 0.8
    return boxes, classes, valid


def raw_of(generator, entries: int, new_coords: bool) -> np.ndarray:
    """Some class and objectness numbers are exactly 0 or 1, where it matters who came first."""
    shape = (2, ROWS, COLUMNS, len(MASK), entries + CLASSES)
    raw = generator.normal(0, 0.7, shape).astype(np.float32)
    if new_coords:
        raw = (1 / (1 + np.exp(-raw))).astype(np.float32)
    saturated = generator.uniform(size=(*shape[:4], 1 + CLASSES))
    extremes = (0, 1) if new_coords else (-200, 200)
    raw[..., entries - 1 :][saturated < 0.2] = extremes[0]
    raw[..., entries - 1 :][saturated > 0.8] = extremes[1]
    return raw


def compare(raw, truth, head, rules):
    (got,) = HEAD_LOSS_PARTS[head.type]([tf.constant(raw)], as_truth(truth), head, rules, MOMENT)
    (expected,) = LOSS[head.type, "darknet"]([raw], as_truth(truth), head, rules, SIZE, 1).deltas
    np.testing.assert_allclose(got.delta, expected, rtol=2e-4, atol=2e-5)
    return got


@settings(max_examples=40, deadline=None, derandomize=True)
@given(options=YOLO, new_coords=st.booleans(), seed=st.integers(0, 10**6))
def test_yolo_equals_the_restated_gradient(options, new_coords, seed):
    generator = np.random.default_rng(seed)
    level = {"mask": MASK, "scale_x_y": 1.2, "new_coords": new_coords}
    head = YoloHead(anchors=ANCHORS, levels=[level])
    compare(raw_of(generator, 5, new_coords), crowd(generator, 12), head, YoloLoss(**options))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(options=GAUSSIAN, seed=st.integers(0, 10**6))
def test_gaussian_yolo_equals_the_restated_gradient(options, seed):
    generator = np.random.default_rng(seed)
    head = GaussianYoloHead(anchors=ANCHORS, levels=[{"mask": MASK, "scale_x_y": 1.1}])
    rules = GaussianYoloLoss(**options)
    compare(raw_of(generator, 9, False), crowd(generator, 12), head, rules)


def test_the_crowd_is_one():
    """Guards the comparisons above: slots with four truths, and classes that are set twice, exist."""
    generator = np.random.default_rng(0)
    head = YoloHead(anchors=ANCHORS, levels=[{"mask": MASK}])
    got = compare(raw_of(generator, 5, False), crowd(generator, 12), head, YoloLoss(gradient="darknet"))
    claims = got.targets.claims
    slots, counts = np.unique(claims.slot.numpy()[claims.claimed.numpy()], return_counts=True)
    assert counts.max() >= 4
    slot = slots[counts.argmax()]
    labels = claims.truth.classes.numpy()[..., None].repeat(len(MASK), -1)[
        claims.claimed.numpy() & (claims.slot.numpy() == slot)
    ]
    assert len(set(labels)) < len(labels)


@pytest.mark.parametrize("count", [1, 60])
def test_truths_are_taken_in_chunks_and_in_order(count):
    generator = np.random.default_rng(count)
    head = YoloHead(anchors=ANCHORS, levels=[{"mask": MASK}])
    rules = YoloLoss(gradient="darknet", iou_loss="ciou", iou_thresh=0.3, truth_thresh=0.6)
    compare(raw_of(generator, 5, False), crowd(generator, count), head, rules)
