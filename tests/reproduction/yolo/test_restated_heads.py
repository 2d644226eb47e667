"""Restated decoders and losses of the YOLO family against the product's, where truths are few, many and at edges."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import reproduction
from configs.yolo.heads import DetectionHead, GaussianYoloHead, RegionHead, YoloHead
from configs.yolo.losses import DetectionLoss, GaussianYoloLoss, RegionLoss, YoloLoss
from losses.yolo import LOSSES
from modeling.yolo.heads import BOX_DECODERS
from official.core.task import Moment
from reproduction.yolo.restated.common import Truths
from reproduction.yolo.restated.heads import DECODE, LOSS
from tests.losses.yolo.cases import CASES, CLASSES, HEAD, SIZE, as_truth

GRIDS = [(3, 4), (6, 8)]
LEVELS = [{"mask": (2, 3), "scale_x_y": 1.05}, {"mask": (0, 1), "scale_x_y": 1.2}]
YOLO_V4 = {"gradient": "darknet", "iou_loss": "ciou", "iou_normalizer": 0.07, "iou_thresh": 0.213, "max_delta": 5}
SMOOTH = {"gradient": "darknet", "iou_loss": "giou", "objectness_smooth": True, "ignore_thresh": 0.3}
FAMILIES = {
    "yolo autodiff": (HEAD, YoloLoss(iou_loss="ciou", iou_thresh=0.213, ignore_thresh=0.3)),
    "yolo mse": (HEAD, YoloLoss(gradient="darknet", ignore_thresh=0.3)),
    "yolo ciou": (HEAD, YoloLoss(**YOLO_V4)),
    "yolo smooth": (
        YoloHead(anchors=HEAD.anchors, levels=[level | {"new_coords": True} for level in LEVELS]),
        YoloLoss(**SMOOTH, truth_thresh=0.6, counters_per_class=(5, 10, 2), max_delta=3),
    ),
    "gaussian": (GaussianYoloHead(anchors=HEAD.anchors, levels=LEVELS), GaussianYoloLoss(max_delta=5)),
    "gaussian giou": (
        GaussianYoloHead(anchors=HEAD.anchors, levels=LEVELS),
        GaussianYoloLoss(iou_loss="giou", iou_thresh=0.213),
    ),
    "region": (
        RegionHead(anchors=((0.5, 0.8), (2, 1.5)), softmax=True),
        RegionLoss(rescore=True, bias_match=True, thresh=0.6, object_scale=5, prior_steps=3),
    ),
    "region raw": (RegionHead(anchors=((0.5, 0.8), (2, 1.5))), RegionLoss(coord_scale=2, prior_steps=2)),
    "detection": (
        DetectionHead(side=7, num=2, sqrt=True),
        DetectionLoss(coord_scale=5, noobject_scale=0.5, rescore=True),
    ),
    "detection raw": (DetectionHead(side=5, num=3, softmax=True), DetectionLoss()),
}
STEP = 3
BOXES = np.zeros((2, 8, 4), np.float32)
BOXES[:, 0] = 1, 1, 0.3, 0.4  # centre on the far corner
BOXES[:, 1] = 0, 0, 0.2, 0.1  # and on the near one
BOXES[:, 2] = 0.5, 0.5, 0, 0.3  # without width
BOXES[:, 3] = 0.5, 0.5, 0.2, 0  # without height
BOXES[:, 4] = 0.75, 0.5, 0.2, 0.3  # between cells
BORDER = (BOXES, np.ones((2, 8), np.int32), np.arange(8) < np.array([[5], [5]]))
NO_CLASS = (BOXES, np.array([[1, CLASSES, 0, 0, 1, 0, 0, 0]] * 2, np.int32), BORDER[2])
TRUTHS = CASES | {"border": BORDER, "no such class": NO_CLASS}


def outputs_of(family: str, seed: int = 1) -> list[np.ndarray]:
    head, _ = FAMILIES[family]
    generator = np.random.default_rng(seed)
    if head.type == "detection":
        shapes = [(2, head.side**2 * (CLASSES + 5 * head.num))]
    elif head.type == "region":
        shapes = [(2, 6, 8, 2, 5 + CLASSES)]
    else:
        shapes = [(2, *grid, 2, (9 if head.type == "gaussian_yolo" else 5) + CLASSES) for grid in GRIDS]
    outputs = [generator.normal(0, 0.7, shape).astype(np.float32) for shape in shapes]
    return [1 / (1 + np.exp(-raw)) for raw in outputs] if family == "yolo smooth" else outputs


@pytest.mark.parametrize("case", TRUTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_value_parts_and_gradient_are_the_products(family, case):
    if family == "yolo autodiff" and case == "no such class":
        pytest.skip("what a class that is not there means to the automatic gradient is nowhere stated")
    (head, rules), outputs, truth = FAMILIES[family], outputs_of(family), as_truth(TRUTHS[case])
    gradient_kind = "autodiff" if family == "yolo autodiff" else "darknet"
    found = LOSS[head.type, gradient_kind](outputs, truth, head, rules, SIZE, STEP)
    raw = [tf.constant(one) for one in outputs]
    with tf.GradientTape() as tape:
        tape.watch(raw)
        value, parts = LOSSES[head.type](raw, truth, head, rules, Moment(tf.constant(STEP, tf.int64), SIZE))
    np.testing.assert_allclose(value, found.value, rtol=2e-6)
    for name, part in found.parts.items():
        np.testing.assert_allclose(parts[name], part, rtol=5e-6)
    for gradient, expected in zip(tape.gradient(value, raw), found.gradients, strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=2e-6)
    assert (found.parts["class"] > 0) == (case != "none")


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_and_scores_are_the_products(family):
    head, _ = FAMILIES[family]
    outputs = outputs_of(family, seed=2)
    boxes, scores = DECODE[head.type](outputs, head, SIZE)
    expected_boxes, expected_scores = BOX_DECODERS[head.type]([tf.constant(raw) for raw in outputs], head, SIZE)
    np.testing.assert_allclose(expected_boxes, boxes, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(expected_scores, scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_padding_holds_does_not_matter(family):
    (head, rules), outputs = FAMILIES[family], outputs_of(family)
    boxes, labels, valid = (part.copy() for part in CASES["crowded"])
    gradient = "autodiff" if family == "yolo autodiff" else "darknet"
    expected = LOSS[head.type, gradient](outputs, Truths(boxes, labels, valid), head, rules, SIZE, STEP)
    boxes, labels = boxes.copy(), labels.copy()
    boxes[~valid] = [np.nan, np.inf, -np.inf, 1e30]
    labels[~valid] = -7
    found = LOSS[head.type, gradient](outputs, Truths(boxes, labels, valid), head, rules, SIZE, STEP)
    for one, other in zip(found.gradients, expected.gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.value == expected.value


def test_nothing_of_the_product_is_imported():
    allowed = {"numpy", "jaxtyping", "configs", *sys.stdlib_module_names}
    files = list(Path(reproduction.__file__).parent.glob("**/restated/*.py"))
    assert {path.parents[1].name for path in files} >= {"reproduction", "yolo", "centernet"}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                is_type = name in ("official.core.config", "official.vision.protocol") or "restated" in name.split(".")
                assert name.split(".")[0] in allowed or name == "official.core" or is_type, (path.name, name)
