import numpy as np
import pytest
import tensorflow as tf

from official.vision.boxes import cxcywh_to_yxyx, iou, yxyx_to_cxcywh
from official.vision.nms import Detections, best_pairs, per_class_nms
from official.vision.protocol import EvaluationProtocol
from reproduction.restated.nms import detections, suppresses

KINDS = [{"nms": "per_class_iou"}, {"nms": "greedynms"}, {"nms": "diounms", "beta_nms": 1.3}]


def check(boxes, scores, protocol, nms=per_class_nms):
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    found = Detections(*(part.numpy() for part in nms(tf.constant(boxes), tf.constant(scores), protocol)))
    assert found.boxes.shape == (len(boxes), protocol.detections_per_image, 4)
    for image in range(len(boxes)):
        kept = detections(boxes[image], scores[image], protocol)
        count = len(kept.scores)
        np.testing.assert_array_equal(found.valid[image], np.arange(protocol.detections_per_image) < count)
        for ours, theirs in zip(found[:3], kept, strict=True):
            np.testing.assert_array_equal(ours[image, :count], theirs)
        for part in found:
            assert not part[image, count:].any()  # zeros behind
    return found


def random_boxes(generator, batch, count, side):
    centre, size = generator.random((batch, count, 2)), side * np.exp(generator.normal(0, 0.3, (batch, count, 2)))
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


@pytest.mark.parametrize(
    ("count", "class_count", "candidates", "wanted"),
    [(300, 5, 1000, 100), (300, 5, 200, 100), (700, 3, 500, 20), (40, 2, 1000, 100), (1, 1, 1000, 100), (5, 1, 3, 2)],
)
@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_random_boxes(count, class_count, candidates, wanted, kind):
    generator = np.random.default_rng(count + candidates)
    scores = 0.002 + 0.99 * generator.random((3, count, class_count)) ** 4
    protocol = EvaluationProtocol(candidates=candidates, detections_per_image=wanted, **kind)
    found = check(random_boxes(generator, 3, count, 0.3), scores, protocol)
    assert found.valid.any(axis=1).all()


@pytest.mark.parametrize("candidates", [150, 450])
def test_ties_are_ordered_by_position_then_class(candidates):
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, (2, 300, 4)) / 4  # plateaus, which the limit of candidates cuts through
    protocol = EvaluationProtocol(candidates=candidates, detections_per_image=400)
    check(random_boxes(generator, 2, 300, 0.05), scores, protocol)
    apart = [[[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]] * 2
    found = check(apart, np.full((2, 2, 3), 0.5), EvaluationProtocol(candidates=4, detections_per_image=7))
    assert found.classes[0, :4].tolist() == [0, 1, 2, 0]


def chain(count):
    """Each box suppresses the next alone, so every second one stays."""
    left = np.arange(count) * 0.3
    boxes = np.stack([np.zeros(count), left, np.ones(count), left + 1], axis=-1)
    return boxes[None].repeat(2, axis=0), np.linspace(0.9, 0.1, count)[None, :, None].repeat(2, axis=0)


@pytest.mark.parametrize("wanted", [100, 400])
def test_chain_longer_than_a_block(wanted):
    boxes, scores = chain(500)
    found = check(boxes, scores, EvaluationProtocol(detections_per_image=wanted))
    assert found.valid.sum(axis=1).tolist() == [min(wanted, 250)] * 2
    assert np.allclose(np.diff(found.boxes[0, :50, 1]), 0.6)


def test_one_survivor_of_many_equal_boxes():
    boxes = np.tile([0.1, 0.2, 0.5, 0.9], (2, 400, 1))
    found = check(boxes, np.random.default_rng(0).random((2, 400, 1)) + 0.1, EvaluationProtocol())
    assert found.valid.sum(axis=1).tolist() == [1, 1]


def test_images_that_end_at_different_blocks():
    """One image has its detections early, one needs every block, one has none."""
    generator = np.random.default_rng(0)
    boxes = random_boxes(generator, 3, 900, 0.01)
    boxes[1] = [0.2, 0.2, 0.7, 0.7]
    scores = generator.random((3, 900, 1))
    scores[2] = 0
    found = check(boxes, scores, EvaluationProtocol(detections_per_image=50))
    assert found.valid.sum(axis=1).tolist() == [50, 1, 0]


def test_other_classes_do_not_suppress():
    boxes = np.tile([0.1, 0.2, 0.5, 0.9], (2, 3, 1))
    found = check(boxes, np.tile(np.eye(3) * 0.8, (2, 1, 1)), EvaluationProtocol())
    assert found.valid.sum(axis=1).tolist() == [3, 3]


def test_overlap_at_the_threshold_stays():
    boxes = [[[0, 0, 1, 1], [0, 0, 1, 0.5]]] * 2  # IoU 0.5
    scores = [[[0.9], [0.8]]] * 2
    assert check(boxes, scores, EvaluationProtocol(nms_threshold=0.5)).valid.sum() == 4
    assert check(boxes, scores, EvaluationProtocol(nms_threshold=0.499)).valid.sum() == 2


def test_score_at_the_floor_is_no_candidate():
    boxes = [[[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6]]] * 2
    found = check(boxes, [[[0.25], [0.26]]] * 2, EvaluationProtocol(score_floor=0.25))
    assert found.valid.sum(axis=1).tolist() == [1, 1]


def test_nothing_found():
    found = check(np.random.default_rng(0).random((2, 30, 4)), np.zeros((2, 30, 4)), EvaluationProtocol())
    assert not found.valid.any()


def test_not_finite_is_never_detected():
    generator = np.random.default_rng(0)
    boxes, scores = random_boxes(generator, 2, 200, 0.2), generator.random((2, 200, 3))
    scores[0, ::3] = np.nan
    scores[1] = np.nan
    boxes[0, 1, 2], boxes[0, 4, 0] = np.nan, np.inf
    found = check(boxes, scores, EvaluationProtocol())
    assert all(np.isfinite(part).all() for part in found)
    assert found.valid.any(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_degenerate_and_inverted_boxes_suppress_nothing(kind):
    boxes = [[[0.2, 0.2, 0.2, 0.2]] * 2 + [[0.8, 0.8, 0.1, 0.1]] * 2 + [[0.1, 0.1, 0.8, 0.8]]] * 2
    found = check(boxes, [[[0.9], [0.8], [0.7], [0.6], [0.5]]] * 2, EvaluationProtocol(**kind))
    assert found.valid.sum(axis=1).tolist() == [5, 5]


def test_overlap_is_the_iou_of_boxes():
    generator = np.random.default_rng(0)
    boxes = random_boxes(generator, 2, 60, 0.4)
    centred = yxyx_to_cxcywh(tf.constant(boxes, tf.float32))
    expected = iou(centred[:, :, tf.newaxis], centred[:, tf.newaxis]).numpy()  # [2, 60, 60]
    protocol = EvaluationProtocol()
    for image in range(2):
        for row in range(60):
            for column in range(60):
                a, b = boxes[image, [row, column]].astype(np.float32)
                overlap = expected[image, row, column]
                if abs(overlap - protocol.nms_threshold) > 1e-4:
                    assert suppresses(a, b, protocol) == (overlap > protocol.nms_threshold)


def test_distance_spares_what_overlap_alone_suppresses():
    """IoU 0.5, centres a quarter of the hull's width apart: 0.0625 / (1 + 0.64) of its squared diagonal."""
    boxes = [[[0, 0, 0.8, 0.75], [0, 0.25, 0.8, 1]]] * 2  # shared 0.5 x 0.8, together 1 x 0.8
    scores = [[[0.9], [0.8]]] * 2
    beyond = 0.5 - (0.0625 / 1.64) ** 0.6  # 0.359
    for nms, threshold, count in (
        ("per_class_iou", 0.499, 2),
        ("greedynms", 0.499, 4),
        ("greedynms", beyond + 1e-4, 4),
        ("greedynms", beyond - 1e-4, 2),
        ("diounms", beyond + 1e-4, 4),  # beta_nms 0.6 is greedynms
        ("diounms", beyond - 1e-4, 2),
    ):
        assert check(boxes, scores, EvaluationProtocol(nms=nms, nms_threshold=threshold)).valid.sum() == count
    mild = EvaluationProtocol(nms="diounms", beta_nms=2, nms_threshold=beyond + 1e-4)
    assert check(boxes, scores, mild).valid.sum() == 2
    ignored = EvaluationProtocol(nms="greedynms", beta_nms=2, nms_threshold=beyond + 1e-4)
    assert check(boxes, scores, ignored).valid.sum() == 4


@pytest.mark.parametrize("kind", KINDS, ids=[kind["nms"] for kind in KINDS])
def test_compiles_for_accelerators_and_computes_the_same(kind):
    generator = np.random.default_rng(0)
    compiled, protocol = (
        tf.function(per_class_nms, autograph=False, jit_compile=True),
        EvaluationProtocol(candidates=300, **kind),
    )
    check(random_boxes(generator, 2, 300, 0.3), generator.random((2, 300, 4)), protocol, compiled)


def test_traces_with_an_unknown_batch():
    signature = [tf.TensorSpec([None, 30, 4]), tf.TensorSpec([None, 30, 5])]
    traced = tf.function(
        lambda boxes, scores: per_class_nms(boxes, scores, EvaluationProtocol()), signature, autograph=False
    )
    shapes = [tuple(part.shape) for part in traced.get_concrete_function().structured_outputs]
    assert shapes == [(None, 100, 4), (None, 100), (None, 100), (None, 100)]


def test_best_pairs_beyond_the_pairs_there_are():
    pairs = best_pairs(tf.zeros([2, 3, 4]), tf.fill([2, 3, 2], 0.5), EvaluationProtocol(candidates=1000))
    assert pairs.scores.shape == (2, 6) and pairs.valid.numpy().all()


RECORDED = {"default": "per_class_iou", "cornersnms": "per_class_iou", "greedynms": "greedynms", "diounms": "diounms"}


@pytest.mark.parametrize("kind", RECORDED)
@pytest.mark.parametrize("threshold", [0.45, 0.6])
@pytest.mark.parametrize("case", ["case0", "case1"])
def test_keeps_what_darknet_keeps(golden, case, threshold, kind):
    """It zeroes the probabilities of what it suppresses; the rest stays. Its cornersnms comes to the default."""
    recorded = np.load(golden("misc/nms.npz"))
    rows, after = recorded[f"{case}/in"], recorded[f"{case}/{kind}_{threshold}"][:, 1:]
    boxes, probabilities = cxcywh_to_yxyx(tf.constant(rows[:, :4])), tf.constant(rows[:, 5:])
    protocol = EvaluationProtocol(nms=RECORDED[kind], nms_threshold=threshold, score_floor=0, detections_per_image=1000)
    found = per_class_nms(tf.stack([boxes] * 2), tf.stack([probabilities] * 2), protocol)
    kept = np.argwhere(after > 0)
    expected = sorted((int(column), after[row, column], *boxes[row].numpy()) for row, column in kept)
    assert len(expected) >= 38
    for image in range(2):
        valid = found.valid[image].numpy()
        parts = (part[image].numpy()[valid] for part in (found.classes, found.scores, found.boxes))
        assert sorted((class_id, score, *box) for class_id, score, box in zip(*parts, strict=True)) == expected
