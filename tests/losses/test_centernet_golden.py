"""Targets, losses and gradients against what CenterNet itself computed (recorded traces; see their README)."""

import numpy as np
import pytest
import tensorflow as tf

from configs.centernet import CenterNetHead, CenterNetLoss
from losses.centernet import loss_against
from losses.centernet_gaussian import draw_heatmap, gaussian_radius
from losses.centernet_targets import DenseSize, Targets, Truth, assign, assign_dense_size, place
from modeling.heads.centernet import Stack

MAX_OBJECTS = 128
CASES = ["targets_small_val", "targets_small_val_keep_res", "targets_coco80_val", "augment_train_random_crop"]
CASES += ["augment_train_shift_scale"]


def truth_of(trace, prefix: str) -> Truth:
    """The recorded annotations as one padded example in output pixels, affine map in float64 as the original's."""
    boxes = trace[f"{prefix}/boxes_xywh"].reshape(-1, 4)[:MAX_OBJECTS]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)
    flipped = f"{prefix}/flipped" in trace and bool(trace[f"{prefix}/flipped"])
    if flipped:
        corners[:, [0, 2]] = trace[f"{prefix}/image_wh"][0] - corners[:, [2, 0]] - 1
    matrix = trace[f"{prefix}/trans_output"]
    mapped = (corners.reshape(-1, 2).astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]).reshape(-1, 4)
    rows = np.full((1, MAX_OBJECTS, 4), np.float32(-7e4))  # what is in padding rows must not matter
    rows[0, : len(mapped)] = mapped
    classes = np.full((1, MAX_OBJECTS), 10**6, np.int32)
    classes[0, : len(mapped)] = trace[f"{prefix}/class"][:MAX_OBJECTS]
    valid = np.arange(MAX_OBJECTS)[np.newaxis] < len(mapped)
    return Truth(tf.constant(rows), tf.constant(classes), tf.constant(valid))


def prefixes(trace) -> list[str]:
    return sorted({name.split("/")[0] for name in trace.files if name.endswith("/boxes_xywh")})


def targets_of(trace, prefix: str):
    shape = trace[f"{prefix}/hm"].shape  # classes, rows, columns
    objects = place(truth_of(trace, prefix), shape[1:], shape[0])
    return objects, assign(objects, shape[1:], shape[0])


def test_radius(golden_centernet):
    trace = np.load(golden_centernet("gaussian.npz"))
    height, width = np.ceil(trace["radius/height_width"]).astype(np.int32).T
    np.testing.assert_array_equal(
        gaussian_radius(tf.constant(height), tf.constant(width)), trace["radius/int_overlap0.7"]
    )


@pytest.mark.parametrize("number", range(4))
def test_drawing(golden_centernet, number):
    trace = np.load(golden_centernet("gaussian.npz"))
    x_y_radius = tf.constant(trace[f"draw{number}/x_y_radius"][np.newaxis], tf.int32)
    expected = trace[f"draw{number}/umich"]
    mask = tf.ones(x_y_radius.shape[:2], tf.bool)
    classes = tf.zeros(mask.shape, tf.int32)
    hm = draw_heatmap(x_y_radius[..., :2], x_y_radius[..., 2], classes, mask, expected.shape, 1)
    np.testing.assert_allclose(hm[0, ..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(hm[0, ..., 0] == 0, expected == 0)
    np.testing.assert_array_equal(hm[0, ..., 0] == 1, expected == 1)


@pytest.mark.parametrize("name", CASES)
def test_targets(golden_centernet, name):
    trace = np.load(golden_centernet(f"{name}.npz"))
    for prefix in prefixes(trace):
        _, targets = targets_of(trace, prefix)
        expected_hm = trace[f"{prefix}/hm"].transpose(1, 2, 0)
        np.testing.assert_allclose(targets.hm[0], expected_hm, atol=1e-6)
        np.testing.assert_array_equal(targets.hm[0] == 0, expected_hm == 0)
        np.testing.assert_array_equal(targets.hm[0] == 1, expected_hm == 1)
        for field in ("wh", "reg", "ind", "reg_mask"):
            np.testing.assert_array_equal(getattr(targets, field)[0], trace[f"{prefix}/{field}"], err_msg=field)
        detections = trace[f"{prefix}/gt_det"]  # one row of zeros where there is no object
        classes = np.asarray(targets.classes)[np.asarray(targets.reg_mask)]
        np.testing.assert_array_equal(classes, detections[detections[:, 4] == 1, 5])


def test_options(golden_centernet):
    trace = np.load(golden_centernet("targets_small_val_options.npz"))
    _, targets = targets_of(trace, "cat_spec_wh")
    one_hot = (
        tf.one_hot(targets.classes, 4)[0, :, :, tf.newaxis] * tf.cast(targets.reg_mask, tf.float32)[0, :, None, None]
    )
    own = tf.repeat(one_hot, 2, axis=2)  # [truths, classes, 2]
    np.testing.assert_array_equal(tf.reshape(own, [-1, 8]), trace["cat_spec_wh/cat_spec_mask"])
    by_class = tf.reshape(own * targets.wh[0, :, tf.newaxis], [-1, 8])
    np.testing.assert_array_equal(by_class, trace["cat_spec_wh/cat_spec_wh"])

    objects, targets = targets_of(trace, "dense_wh")
    dense = assign_dense_size(objects, (24, 32))
    np.testing.assert_array_equal(dense.wh[0], trace["dense_wh/dense_wh"].transpose(1, 2, 0))
    np.testing.assert_allclose(dense.mask[0], trace["dense_wh/dense_wh_mask"][0], atol=1e-6)
    np.testing.assert_allclose(targets.hm[0], trace["dense_wh/hm"].transpose(1, 2, 0), atol=1e-6)


LOSSES = {
    "loss_small_default": {},
    "loss_small_no_boxes_at_all": {},
    "loss_small_stacks2": {},
    "loss_small_reg_sl1": {"reg_loss": "sl1"},
    "loss_small_norm_wh": {},  # the option has no effect in the original
    "loss_small_cat_spec_wh": {},
    "loss_small_dense_wh": {"dense_wh": True},
    "loss_coco80": {},
}


def recorded_loss(trace):
    """(stacks, targets, dense size) of a recorded loss."""
    number = sum(name.endswith("/raw/hm") for name in trace.files)
    stacks = [
        Stack(*(tf.constant(trace[f"stack{k}/raw/{head}"].transpose(0, 2, 3, 1)) for head in ("hm", "wh", "reg")))
        for k in range(number)
    ]
    mask = trace["target/reg_mask"].astype(bool)
    classes, wh, dense = np.zeros(mask.shape, np.int32), np.zeros([*mask.shape, 2], np.float32), None
    if "target/cat_spec_wh" in trace:
        classes = trace["target/cat_spec_mask"].argmax(axis=2) // 2
        pairs = trace["target/cat_spec_wh"].reshape(*mask.shape, -1, 2)
        wh = np.take_along_axis(pairs, classes[..., None, None], axis=2)[:, :, 0]
    elif "target/dense_wh" in trace:
        maps = trace["target/dense_wh"], trace["target/dense_wh_mask"][:, :1]
        wh_map, weight = (tf.constant(part.transpose(0, 2, 3, 1)) for part in maps)
        dense = DenseSize(wh_map, weight[..., 0])
    else:
        wh = trace["target/wh"]
    targets = Targets(
        hm=tf.constant(trace["target/hm"].transpose(0, 2, 3, 1)),
        wh=tf.constant(wh),
        reg=tf.constant(trace["target/reg"]),
        ind=tf.constant(trace["target/ind"], tf.int32),
        reg_mask=tf.constant(mask),
        classes=tf.constant(classes, tf.int32),
    )
    return stacks, targets, dense


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient(golden_centernet, name):
    trace = np.load(golden_centernet(f"{name}.npz"))
    stacks, targets, dense = recorded_loss(trace)
    head = CenterNetHead(cat_spec_wh="cat_spec" in name)
    with tf.GradientTape() as tape:
        tape.watch(stacks)
        total, parts = loss_against(stacks, targets, dense, head, CenterNetLoss(**LOSSES[name]))
    for precision in ("f32", "f64"):
        np.testing.assert_allclose(total, trace[f"{precision}/loss"], rtol=1e-5)
        for part in ("hm_loss", "wh_loss", "off_loss"):
            np.testing.assert_allclose(parts[part], trace[f"{precision}/{part}"], rtol=1e-5, err_msg=part)
    for number, gradients in enumerate(tape.gradient(total, stacks)):
        for part, gradient in zip(Stack._fields, gradients, strict=True):
            recorded = trace[f"f32/stack{number}/grad/{part}"].transpose(0, 2, 3, 1)
            np.testing.assert_allclose(gradient, recorded, atol=1e-5 * np.abs(recorded).max(), err_msg=part)
            if name != "loss_coco80":  # whose gradients are not recorded in float64
                recorded = trace[f"f64/stack{number}/grad/{part}"].transpose(0, 2, 3, 1)
                np.testing.assert_allclose(gradient, recorded, rtol=1e-5, err_msg=part)  # each number, the zeros too
