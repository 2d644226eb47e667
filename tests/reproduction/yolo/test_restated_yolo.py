"""The restated loss of [yolo] with the automatic gradient: its own derivative, and the same as the product's."""

import itertools
import time

import numpy as np
import pytest
import tensorflow as tf

from configs.yolo.heads import YoloHead
from configs.yolo.losses import YoloLoss
from losses.yolo.autodiff import yolo_loss
from reproduction.yolo.restated import boxes, yolo
from reproduction.yolo.restated.common import truths_of
from reproduction.yolo.restated.heads import LOSS
from tests.losses.yolo.cases import CASES, HEAD, MOMENT, SIZE, TRUTH, as_truth, random_outputs

KINDS = ["mse", "iou", "giou", "diou", "ciou"]
NEW_COORDS = HEAD.model_copy(
    update={"levels": tuple(level.model_copy(update={"new_coords": True}) for level in HEAD.levels)}
)
HEADS = {"logits": HEAD, "new_coords": NEW_COORDS}


def rules_of(kind: str, **changes) -> YoloLoss:
    weights = {"iou_normalizer": 0.6, "obj_normalizer": 0.8, "cls_normalizer": 0.5}
    return YoloLoss(iou_loss=kind, ignore_thresh=0.3, **(weights | changes))


def outputs_of(form: str, seed: int) -> list[np.ndarray]:
    outputs = random_outputs(seed)
    return [(1 / (1 + np.exp(-raw))).astype(np.float32) for raw in outputs] if form == "new_coords" else outputs


def decided(outputs, truth, head, rules) -> bool:
    levels = zip(outputs, head.levels, strict=True)
    return not any(yolo.assign(raw, truth, head, level, rules, SIZE).undecided.any() for raw, level in levels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", HEADS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_the_products(case, form, kind, iou_thresh, smoothing):
    head, rules = HEADS[form], rules_of(kind, iou_thresh=iou_thresh, label_smoothing=smoothing)
    outputs, truth = outputs_of(form, 4), as_truth(CASES[case])
    assert decided(outputs, truth, head, rules)
    found = LOSS["yolo", "autodiff"](outputs, truth, head, rules, SIZE, 1)
    raw = [tf.constant(one) for one in outputs]
    with tf.GradientTape() as tape:
        tape.watch(raw)
        value, parts = yolo_loss(raw, truth, head, rules, MOMENT)
    np.testing.assert_allclose(value, found.value, rtol=1e-6)
    for name, part in found.parts.items():
        np.testing.assert_allclose(parts[name], part, rtol=2e-6)
    for gradient, expected in zip(tape.gradient(value, raw), found.gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("iou_thresh", [1.0, 0.213])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", HEADS)
def test_gradient_equals_finite_differences_of_the_value(monkeypatch, form, kind, iou_thresh):
    """All slots moved at once, each its own random way, one of their numbers at a time. CIoU's alpha is held."""
    head, rules = HEADS[form], rules_of(kind, iou_thresh=iou_thresh, label_smoothing=0.1)
    outputs = [raw.astype(np.float64) for raw in outputs_of(form, 5)]
    truth, step = truths_of(as_truth(TRUTH)), 1e-6
    assert decided(outputs, truth, head, rules)
    held, trade_off = [], boxes.trade_off
    monkeypatch.setattr(boxes, "trade_off", lambda a, b: held.append(trade_off(a, b)) or held[-1])
    gradients = yolo.loss(outputs, truth, head, rules, SIZE).gradients
    alphas = held[::2]  # of each level: of the value, and again of its slopes
    assert len(held) == (2 * len(outputs) if kind == "ciou" else 0)
    generator = np.random.default_rng(0)

    def value(moved) -> float:
        remaining = iter([alpha for alpha in alphas for _ in range(2)])
        monkeypatch.setattr(boxes, "trade_off", lambda a, b: next(remaining))
        return yolo.loss(moved, truth, head, rules, SIZE).value

    for channel in range(outputs[0].shape[4]):
        ways = [np.zeros_like(raw) for raw in outputs]
        for way in ways:
            way[..., channel] = generator.uniform(-1, 1, way.shape[:4])
        ahead, back = (
            value([raw + sign * step * way for raw, way in zip(outputs, ways, strict=True)]) for sign in (1, -1)
        )
        expected = sum(np.sum(one * way) for one, way in zip(gradients, ways, strict=True))
        np.testing.assert_allclose((ahead - back) / (2 * step), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", boxes.KINDS)
def test_slopes_of_every_kind_are_the_values_derivatives(kind):
    """Also of pairs that are apart, inside each other and alike but for their place."""
    generator, step = np.random.default_rng(1), 1e-7
    a, b = generator.uniform(0.1, 0.9, (2, 2000, 4))
    a[:500, 2:] /= 10
    b[500:1000] = a[500:1000] + [0.01, -0.02, 0, 0]
    alpha = boxes.trade_off(a, b)

    def value(boxes_: np.ndarray) -> np.ndarray:
        if kind == "ciou":
            return boxes.diou(boxes_, b) - alpha * boxes.aspect(boxes_, b)
        return boxes.KINDS[kind](boxes_, b)

    np.testing.assert_allclose(value(a), boxes.KINDS[kind](a, b), rtol=1e-12)
    slopes = boxes.slopes(a, b, kind)
    for column in range(4):
        shift = step * np.eye(4)[column]
        expected = (value(a + shift) - value(a - shift)) / (2 * step)
        np.testing.assert_allclose(slopes[:, column], expected, rtol=1e-5, atol=1e-6)
    assert 100 < np.count_nonzero(boxes.iou(a, b) == 0) < 1900


@pytest.mark.parametrize("kind", boxes.KINDS)
def test_identical_boxes_have_no_slope(kind):
    same = np.array([[0.5, 0.4, 0.2, 0.3]])
    np.testing.assert_array_equal(boxes.slopes(same, same, kind), np.zeros((1, 4)))
    np.testing.assert_allclose(boxes.KINDS[kind](same, same), 1, rtol=1e-12)


def test_a_level_may_have_its_own_loss_and_anchors():
    """Each level alone, with what it has of its own as the head's and the task's, adds up to both together."""
    outputs, truth = random_outputs(10), as_truth(TRUTH)
    own, common = rules_of("ciou", iou_thresh=0.3, obj_normalizer=0.2), rules_of("mse")
    anchors = tuple((1.3 * width, height) for width, height in HEAD.anchors)
    levels = [HEAD.levels[0].model_copy(update={"loss": own, "anchors": anchors}), HEAD.levels[1]]
    for find in (yolo.loss, yolo.darknet_deltas):
        together = find(outputs, truth, YoloHead(anchors=HEAD.anchors, levels=levels), common, SIZE)
        first = find(outputs[:1], truth, YoloHead(anchors=anchors, levels=HEAD.levels[:1]), own, SIZE)
        second = find(outputs[1:], truth, YoloHead(anchors=HEAD.anchors, levels=HEAD.levels[1:]), common, SIZE)
        for gradient, alone in zip(together.gradients, (first, second), strict=True):
            np.testing.assert_array_equal(gradient, alone.gradients[0])


def test_what_float32_may_decide_otherwise_is_undecided():
    head = YoloHead(anchors=((32, 24), (32, 24.0001), (64, 96)), levels=[{"mask": (0, 1, 2)}])
    raw = np.zeros((1, 3, 4, 3, 6), np.float32)
    box = np.array([[[1.5 / 4, 1.5 / 3, 1 / 4, 1 / 4]]], np.float32)
    truth = as_truth((box, np.zeros((1, 1), np.int32), np.ones((1, 1), bool)))
    for shift, expected in ((0, True), (1e-4, False), (-1e-4, False)):
        raw[0, 2, 2, 2, 5] = np.log(0.25 / 0.75) + shift  # class probability at 1/4
        overlap = yolo.assign(raw, truth, head, head.levels[0], YoloLoss(), SIZE).overlap[0, 2, 2, 2]
        found = yolo.assign(raw, truth, head, head.levels[0], YoloLoss(ignore_thresh=overlap / 2), SIZE)
        assert found.undecided[0, 2, 2, 2] == expected
        assert found.ignored[0, 2, 2, 2] == (shift > 0) or expected
    for shift, expected in ((0, True), (1e-4, False), (-1e-4, False)):
        rules = YoloLoss(ignore_thresh=float(overlap) + shift)
        raw[0, 2, 2, 2, 5] = 3
        assert yolo.assign(raw, truth, head, head.levels[0], rules, SIZE).undecided[0, 2, 2, 2] == expected
    # Two anchors have the truth's shape but for 1e-5 of a side, the third has not.
    np.testing.assert_array_equal(found.undecided[0, 1, 1], [True, True, False])


@pytest.mark.slow
def test_real_shapes_take_a_second_or_two():
    generator = np.random.default_rng(2)
    anchors = [(10 + 30 * n, 13 + 25 * n) for n in range(9)]
    head = YoloHead(anchors=anchors, levels=[{"mask": range(n, n + 3)} for n in (6, 3, 0)])
    outputs = [generator.normal(0, 1, (2, side, side, 3, 85)).astype(np.float32) for side in (20, 40, 80)]
    box = generator.uniform(0.1, 0.6, (2, 100, 4)).astype(np.float32)
    truth = as_truth((box, generator.integers(0, 80, (2, 100), np.int32), np.ones((2, 100), bool)))
    for gradient, iou_loss in itertools.product(("autodiff", "darknet"), ("mse", "ciou")):
        start = time.process_time()
        LOSS["yolo", gradient](outputs, truth, head, YoloLoss(iou_loss=iou_loss, iou_thresh=0.213), (640, 640), 1)
        assert time.process_time() - start < 4
