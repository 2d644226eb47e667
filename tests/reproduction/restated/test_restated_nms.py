"""Restated suppression against what Darknet and CenterNet kept, and against the product's."""

import numpy as np
import pytest
import tensorflow as tf

from official.vision.boxes import cxcywh_to_yxyx
from official.vision.nms import select
from official.vision.protocol import EvaluationProtocol
from reproduction.restated import nms
from reproduction.restated.nms import Kept

KINDS = [{"nms": "per_class_iou"}, {"nms": "greedynms"}, {"nms": "diounms", "beta_nms": 1.3}, {"nms": "none"}]
RECORDED = {"default": "per_class_iou", "cornersnms": "per_class_iou", "greedynms": "greedynms", "diounms": "diounms"}


@pytest.mark.parametrize("kind", RECORDED)
@pytest.mark.parametrize("threshold", [0.45, 0.6])
@pytest.mark.parametrize("case", ["case0", "case1"])
def test_keeps_what_darknet_keeps(golden, case, threshold, kind):
    """It zeroes the probabilities of what it suppresses; the rest stays. Its cornersnms comes to the default."""
    recorded = np.load(golden("misc/nms.npz"))
    rows, after = recorded[f"{case}/in"], recorded[f"{case}/{kind}_{threshold}"][:, 1:]
    x, y, width, height = rows[:, :4].astype(float).T
    boxes = np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1)
    protocol = EvaluationProtocol(nms=RECORDED[kind], nms_threshold=threshold, score_floor=0, detections_per_image=1000)
    found = nms.detections(boxes, rows[:, 5:], protocol)
    expected = sorted((int(number), after[row, number], *boxes[row]) for row, number in np.argwhere(after > 0))
    assert len(expected) >= 38
    ours = zip(found.classes, found.scores, found.boxes, strict=True)
    assert sorted((number, score, *box) for number, score, box in ours) == expected
    assert np.all(np.diff(found.scores) <= 0)


def random_boxes(generator, count, side):
    centre, size = generator.random((count, 2)), side * np.exp(generator.normal(0, 0.3, (count, 2)))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def assert_as_the_product(boxes, scores, protocol) -> Kept:
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    theirs = [part[0].numpy() for part in select(tf.constant([boxes] * 2), tf.constant([scores] * 2), protocol)]
    ours = nms.detections(boxes, scores, protocol)
    assert theirs[3].sum() == len(ours.scores)
    for mine, other in zip(ours, theirs[:3], strict=True):
        np.testing.assert_array_equal(mine, other[theirs[3]])
    return ours


@pytest.mark.parametrize(
    ("count", "classes", "candidates", "wanted"),
    [(300, 5, 1000, 100), (300, 5, 200, 100), (400, 3, 500, 20), (1, 1, 1000, 100), (5, 1, 3, 2)],
)
@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_random_boxes_as_the_product(kind, count, classes, candidates, wanted):
    generator = np.random.default_rng(count + candidates)
    scores = 0.002 + 0.99 * generator.random((count, classes)) ** 4
    protocol = EvaluationProtocol(candidates=candidates, detections_per_image=wanted, **kind)
    assert len(assert_as_the_product(random_boxes(generator, count, 0.3), scores, protocol).scores)


@pytest.mark.parametrize("candidates", [150, 450])
@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_ties_floor_and_what_is_not_finite_as_the_product(kind, candidates):
    generator = np.random.default_rng(0)
    boxes, scores = random_boxes(generator, 300, 0.05), generator.integers(0, 4, (300, 4)) / 4
    boxes[7, 2], boxes[9, 0], scores[11] = np.nan, np.inf, np.nan
    protocol = EvaluationProtocol(candidates=candidates, detections_per_image=400, score_floor=0.25, **kind)
    found = assert_as_the_product(boxes, scores, protocol)
    assert found.scores.min() == (0.75 if candidates == 150 and kind["nms"] != "none" else 0.5)
    assert not np.any(np.isnan(found.boxes))


@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_nothing_and_degenerate_boxes_as_the_product(kind):
    boxes = [[0.2, 0.2, 0.2, 0.2]] * 2 + [[0.8, 0.8, 0.1, 0.1]] * 2 + [[0.1, 0.1, 0.8, 0.8], [0, 0, 1, 1]]
    found = assert_as_the_product(boxes, [[0.9], [0.8], [0.7], [0.6], [0.5], [0]], EvaluationProtocol(**kind))
    assert len(found.scores) == 5
    assert len(assert_as_the_product(boxes, np.zeros((6, 3)), EvaluationProtocol(**kind)).scores) == 0


def test_distance_spares_what_overlap_alone_suppresses():
    """IoU 0.5, centres a quarter of the hull's width apart: 0.0625 / (1 + 0.64) of its squared diagonal."""
    one, other = np.array([0, 0, 0.8, 0.75]), np.array([0, 0.25, 0.8, 1])
    beyond = 0.5 - (0.0625 / 1.64) ** 0.6
    judged = lambda **options: nms.suppresses(one, other, EvaluationProtocol(**options))  # noqa: E731
    assert judged(nms="per_class_iou", nms_threshold=0.4999)
    for kind in ("greedynms", "diounms"):
        assert judged(nms=kind, nms_threshold=beyond - 1e-9) and not judged(nms=kind, nms_threshold=beyond + 1e-9)
    assert judged(nms="diounms", beta_nms=2, nms_threshold=beyond + 1e-9)
    assert not judged(nms="greedynms", beta_nms=2, nms_threshold=beyond + 1e-9)


def test_soft_nms_is_refused_by_the_wrong_door():
    with pytest.raises(ValueError, match="see merge_scales"):
        nms.detections(np.zeros((1, 4)), np.zeros((1, 1)), EvaluationProtocol(nms="soft_nms"))


def test_soft_nms_and_merge_as_centernet_recorded(golden_centernet):
    recorded = np.load(golden_centernet("decode_multiscale_softnms.npz"))
    for number in range(4):
        given, expected = recorded[f"soft{number}/in"].astype(float), recorded[f"soft{number}/out_inplace"]
        boxes, scores, running = nms.soft_nms(given[:, :4], given[:, 4])
        assert running == recorded[f"soft{number}/n_keep"]
        np.testing.assert_allclose(np.column_stack([boxes, scores]), expected, rtol=1e-6)
    names = [name for name in recorded.files if name.startswith("merge/in_scale")]
    classes = sorted({int(name.rpartition("class")[2]) for name in names})
    scales = []
    for scale in sorted({name[: name.index("_class")] for name in names}):
        parts = [recorded[f"{scale}_class{number}"].astype(float) for number in classes]
        kinds = np.repeat(np.array(classes) - 1, [len(part) for part in parts])
        scales.append(Kept(np.concatenate(parts)[:, :4], np.concatenate(parts)[:, 4], kinds))
    assert len(scales) == 3
    merged = nms.merge_scales(scales, classes[-1], 100)
    for number in classes:
        own, expected = merged.classes == number - 1, recorded[f"merge/out_class{number}"]
        ours = np.column_stack([merged.boxes[own], merged.scores[own]])
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_merge_keeps_equals_of_the_last_and_nothing_gives_nothing():
    boxes = np.array([[20 * k, 0, 20 * k + 9, 9] for k in range(6)], float)
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.2, 0.1])
    merged = nms.merge_scales([Kept(boxes, scores, np.array([1, 0, 1, 0, 1, 0]))], 2, 3)
    np.testing.assert_array_equal(merged.classes, [0, 0, 1, 1])
    np.testing.assert_array_equal(merged.scores, scores[[1, 3, 0, 2]])
    empty = Kept(boxes[:0], scores[:0], np.zeros(0, np.int64))
    assert len(nms.merge_scales([empty, empty], 3, 100).scores) == 0


def test_boxes_of_the_product_are_yxyx():
    """What a record's cxcywh comes to there, so that both are handed the same corners."""
    ours = nms.detections(np.array([[0.1, 0.2, 0.3, 0.6]]), np.array([[0.5]]), EvaluationProtocol()).boxes
    np.testing.assert_allclose(ours, cxcywh_to_yxyx(tf.constant([[0.4, 0.2, 0.4, 0.2]])), atol=1e-7)
