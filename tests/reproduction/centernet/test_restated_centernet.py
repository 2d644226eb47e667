"""Restated CenterNet against what the original recorded, its own slopes, and the product's decoding."""

import time

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetHead, CenterNetLoss
from modeling.centernet import decode
from reproduction.centernet import losses
from reproduction.centernet.restated import centernet
from reproduction.centernet.targets import truth
from reproduction.traces.trace import read_trace

SLOPE = 1e-5


def last(array):
    """[..., channels, rows, columns] -> [..., rows, columns, channels]."""
    return np.moveaxis(array, -3, -1)


def test_radius_is_the_originals(golden_centernet):
    trace = np.load(golden_centernet("gaussian.npz"))
    sizes = trace["radius/height_width"]
    whole = [max(0, int(centernet.radius(*map(float, np.ceil(size))))) for size in sizes]
    np.testing.assert_array_equal(whole, trace["radius/int_overlap0.7"])
    if "radius/overlap0.7" not in trace:
        pytest.skip("the part of gaussian.npz in the repository has the whole radii alone")
    for overlap in (0.7, 0.5, 0.3, 0.9):
        ours = [centernet.radius(*map(float, size), overlap) for size in sizes]
        np.testing.assert_allclose(ours, trace[f"radius/overlap{overlap}"], rtol=1e-12)


@pytest.mark.parametrize("name", ["small_val", "small_val_keep_res", "coco80_val", "small_val_options"])
def test_targets_are_exactly_the_originals(golden_centernet, name):
    """Every number, and for dense sizes which of the boxes has the cell; more boxes than rows, and none, among them."""
    trace = read_trace(golden_centernet(f"targets_{name}.npz"))
    parts = sorted({key.split("/")[0] for key in trace if key.endswith("/hm")})
    assert parts
    for part in parts:
        get = lambda key, part=part: trace[f"{part}/{key}"]  # noqa: E731
        classes, *grid = get("hm").shape
        given = truth(trace, part, len(get("reg_mask")))
        ours = centernet.targets(*(field.numpy() for field in given), tuple(grid), classes)
        np.testing.assert_array_equal(ours.hm[0], last(get("hm")))
        for field in ("reg", "ind", "reg_mask"):
            np.testing.assert_array_equal(getattr(ours, field)[0], get(field))
        if f"{part}/dense_wh" in trace:
            np.testing.assert_array_equal(ours.dense_wh[0], last(get("dense_wh")))
        elif f"{part}/cat_spec_wh" in trace:
            pairs = get("cat_spec_wh").reshape(-1, classes, 2)
            np.testing.assert_array_equal(ours.wh[0], pairs[np.arange(len(pairs)), ours.classes[0]])
        else:
            np.testing.assert_array_equal(ours.wh[0], get("wh"))


LOSSES = [
    *("coco80", "small_default", "small_no_boxes_at_all", "small_stacks2"),
    *("small_reg_sl1", "small_norm_wh", "small_cat_spec_wh", "small_dense_wh"),
]


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_the_originals_in_float64(golden_centernet, name):
    """But for normalisers, which are float32 there: mask.sum() + 1e-4."""
    trace = read_trace(golden_centernet(f"loss_{name}.npz"))
    found = losses.recorded_targets(trace)
    arrays = {field: value.numpy() for field, value in found._asdict().items()}
    arrays |= {field: arrays[field].astype(np.int64) for field in ("ind", "classes")}
    dense = losses.dense_size(trace)
    sizes = np.zeros((*arrays["hm"].shape[:3], 2), np.float32) if dense is None else dense.wh.numpy()
    targets = centernet.Targets(**arrays, radius=np.zeros_like(arrays["ind"]), dense_wh=sizes)
    stacks = sorted({key.split("/")[0] for key in trace if key.startswith("stack")})
    names = [f"{stack}/raw/{part}" for stack in stacks for part in ("hm", "wh", "reg")]
    head, config = losses.recorded_head(trace), losses.loss_options(trace)
    total, parts, gradients = centernet.loss([last(trace[key]) for key in names], targets, head, config)
    for part, value in (parts | {"loss": total}).items():
        if part != "objects":
            np.testing.assert_allclose(value, trace[f"f64/{part}"], rtol=1e-6, err_msg=part)
    precision, relative = ("f64", 1e-6) if f"f64/{names[0]}".replace("raw", "grad") in trace else ("f32", 2e-5)
    for key, gradient in zip(names, gradients, strict=True):
        expected = last(trace[f"{precision}/{key}".replace("raw", "grad")])
        np.testing.assert_allclose(gradient, expected, rtol=relative, atol=1e-7 * np.abs(expected).max(), err_msg=key)


def random_case(head: CenterNetHead, boxes: int, seed: int = 0):
    """Two images, a map of 5 x 8, 3 classes; targets of boxes that meet each other, and of one on the border."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-1, 6, [2, boxes, 2])
    corners = np.concatenate([corner, corner + rng.uniform(0.3, 5, [2, boxes, 2])], axis=2).astype(np.float32)
    valid = np.arange(boxes) < np.array([[boxes], [max(boxes - 1, 0)]])
    targets = centernet.targets(corners, rng.integers(0, 3, [2, boxes]), valid, (5, 8), 3)
    channels = [3, 6 if head.cat_spec_wh else 2, 2][: 3 if head.reg_offset else 2]
    return targets, [rng.normal(0, 2, [2, 5, 8, count]) for count in channels * 2]


@pytest.mark.parametrize("boxes", [0, 1, 5])
@pytest.mark.parametrize(
    ("head", "loss"),
    [({}, {}), ({"cat_spec_wh": True}, {}), ({}, {"dense_wh": True}), ({"reg_offset": False}, {"reg_loss": "sl1"})],
)
def test_gradients_are_the_losss_slopes(head, loss, boxes):
    head, config = CenterNetHead(**head), CenterNetLoss(**loss)
    targets, outputs = random_case(head, boxes)
    _, _, gradients = centernet.loss(outputs, targets, head, config)
    rng = np.random.default_rng(1)
    for number, gradient in enumerate(gradients):
        for _ in range(12):
            place = tuple(rng.integers(0, side) for side in gradient.shape)
            totals = []
            for sign in (1, -1):
                moved = [output.copy() for output in outputs]
                moved[number][place] += sign * SLOPE
                totals.append(centernet.loss(moved, targets, head, config)[0])
            slope = (totals[0] - totals[1]) / (2 * SLOPE)
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-5, atol=1e-8)


def test_confident_logits_have_no_gradient():
    hm = np.zeros((1, 2, 3, 1), np.float32)
    hm[0, 1, 1, 0] = 1
    logits = np.full((1, 2, 3, 1), 9.3)
    value, gradient = centernet.focal_loss(logits, hm)
    assert np.isfinite(value) and not gradient.any()
    _, gradient = centernet.focal_loss(np.full((1, 2, 3, 1), 9.2), hm)
    assert gradient.all()
    assert np.isfinite(centernet.focal_loss(np.full((1, 2, 3, 1), -1e30), hm)[0])


@pytest.mark.parametrize("name", ["small_random", "small_k40", "coco80_peaky"])
@pytest.mark.parametrize("offset", [True, False])
def test_decoding_is_the_originals(golden_centernet, name, offset):
    trace = np.load(golden_centernet(f"decode_{name}.npz"))
    heat, wh, reg = (last(trace[key]) for key in ("hm_sigmoid", "wh", "reg"))
    boxes, scores = centernet.decode(heat, wh, reg if offset else None, int(trace["meta/K"]))
    expected = trace["detections" if offset else "detections_without_reg"]
    rows, columns = heat.shape[1:3]
    corners = boxes[..., [1, 0, 3, 2]] * [columns, rows, columns, rows]
    np.testing.assert_allclose(corners, expected[..., :4], atol=1e-5)
    np.testing.assert_array_equal(scores.max(axis=2), expected[..., 4])
    np.testing.assert_array_equal(scores.argmax(axis=2), expected[..., 5])


def test_equal_neighbours_are_peaks_both(golden_centernet):
    trace = np.load(golden_centernet("decode_nms_plateau.npz"))
    heat, expected = last(trace["hm"]), trace["nms"]
    boxes, scores = centernet.decode(heat, np.zeros((1, 6, 7, 2)), None, 42)
    found = np.zeros_like(expected[0, 0])
    for (y, x, *_), score in zip(boxes[0], scores[0, :, 0], strict=True):
        found[int(6 * y), int(7 * x)] = score
    np.testing.assert_array_equal(found, expected[0, 0])


@pytest.mark.parametrize("sizes", [2, 6])
@pytest.mark.parametrize("most", [1, 7, 40, 1000])
def test_decoding_is_the_products(sizes, most):
    """Plateaus of equal scores, on a map that is not square; more peaks than there are, too."""
    rng = np.random.default_rng(most)
    heat = (rng.integers(0, 5, [2, 4, 9, 3]) / 5).astype(np.float32)
    wh, reg = (rng.normal(size=[2, 4, 9, count]).astype(np.float32) for count in (sizes, 2))
    head = CenterNetHead(K=most, cat_spec_wh=sizes == 6)
    theirs = decode.decode([tf.constant(part) for part in (heat, wh, reg)], head)
    for mine, other in zip(centernet.decode(heat, wh, reg, most), theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_a_coco_batch_takes_no_more_than_two_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, [2, 128, 2])
    boxes = np.concatenate([corner, corner + rng.exponential(20, [2, 128, 2])], axis=2).astype(np.float32)
    outputs = [rng.normal(-3, 2, [2, 128, 128, channels]) for channels in (80, 2, 2)]
    start = time.process_time()
    targets = centernet.targets(boxes, rng.integers(0, 80, [2, 128]), np.ones([2, 128], bool), (128, 128), 80)
    centernet.loss(outputs, targets, CenterNetHead(), CenterNetLoss())
    assert time.process_time() - start < 2
