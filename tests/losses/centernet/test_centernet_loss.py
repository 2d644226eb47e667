import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetHead, CenterNetLoss
from losses.centernet.gaussian import BOXES_AT_ONCE, gaussian_radius
from losses.centernet.loss import LARGEST_LOGIT, centernet_loss, focal_loss
from losses.centernet.targets import assign, assign_dense_size, place
from losses.truth import Truth
from official.core.task import Moment
from reproduction.centernet.restated import centernet

GRID, CLASSES = (9, 14), 3
MOMENT = Moment(tf.constant(1, tf.int64), (36, 56))
# name -> one image's boxes (xyxy in output pixels) and classes; the other image of the batch has none.
CASES = {
    "none": ([], []),
    "one": ([[2.25, 1.5, 9.75, 6.0]], [1]),
    "on the border": ([[11.0, 6.0, 13.0, 8.0], [0.0, 0.0, 2.0, 0.5]], [0, 2]),
    "whole map": ([[0.0, 0.0, 13.0, 8.0]], [2]),
    "cut by the border": ([[-30.0, 3.0, 4.0, 40.0], [12.0, -5.0, 500.0, 3.0]], [0, 1]),
    "outside": ([[14.0, 3.0, 20.0, 6.0], [3.0, -9.0, 5.0, -1.0]], [0, 1]),
    "without area": ([[3.0, 3.0, 3.0, 6.0], [5.0, 5.0, 4.0, 7.0], [4.0, 4.0, 6.0, 6.0]], [0, 1, 2]),
    "one centre, one class": ([[2.0, 2.0, 6.0, 6.0], [3.0, 3.0, 5.5, 5.5]], [1, 1]),
    "one centre, two classes": ([[2.0, 2.0, 6.0, 6.0], [3.0, 3.0, 5.5, 5.5]], [1, 0]),
    "as many as there are rows": ([[k, k / 2, k + 4.5, k / 2 + 3] for k in range(6)], [0, 1, 2, 0, 1, 2]),
}
OPTIONS = {"default": ({}, {}), "cat_spec_wh": ({"cat_spec_wh": True}, {}), "dense_wh": ({}, {"dense_wh": True})}
OPTIONS |= {"sl1": ({}, {"reg_loss": "sl1"}), "no offset": ({"reg_offset": False}, {})}


def truth_of(boxes, classes, rows: int = 6) -> Truth:
    """Two images; padding rows hold what must not be looked at."""
    all_boxes = np.full((2, rows, 4), np.nan, np.float32)
    all_classes = np.full((2, rows), -(10**6), np.int32)
    valid = np.zeros((2, rows), bool)
    if len(boxes):
        all_boxes[0, : len(boxes)], all_classes[0, : len(boxes)], valid[0, : len(boxes)] = boxes, classes, True
    return Truth(*(tf.constant(part) for part in (all_boxes, all_classes, valid)))


def random_outputs(head: CenterNetHead, seed: int = 0, stacks: int = 1) -> list[tf.Tensor]:
    rng = np.random.default_rng(seed)
    channels = [CLASSES, 2 * CLASSES if head.cat_spec_wh else 2, 2][: 3 if head.reg_offset else 2]
    return [tf.constant(rng.normal(0, 3, [2, *GRID, n]), tf.float32) for _ in range(stacks) for n in channels]


def loss_and_gradients(outputs, truth, head, loss):
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total, parts = centernet_loss(outputs, truth, head, loss, MOMENT)
    return total, parts, tape.gradient(total, outputs, unconnected_gradients="zero")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_restated_rules(case, option):
    """Targets, loss, parts and gradients, of two stacks; in NumPy, one box at a time."""
    head, loss = CenterNetHead(**OPTIONS[option][0]), CenterNetLoss(**OPTIONS[option][1])
    outputs, truth = random_outputs(head, stacks=2), truth_of(*CASES[case])
    total, parts, gradients = loss_and_gradients(outputs, truth, head, loss)
    targets = centernet.targets(*(part.numpy() for part in truth), GRID, CLASSES)
    placed = place(truth, GRID, CLASSES)
    for name, ours in assign(placed, GRID, CLASSES)._asdict().items():
        np.testing.assert_allclose(ours, getattr(targets, name), atol=1e-6 if name == "hm" else 0, err_msg=name)
    np.testing.assert_array_equal(assign_dense_size(placed, GRID).wh, targets.dense_wh)
    plain = [output.numpy() for output in outputs]
    expected, expected_parts, expected_gradients = centernet.loss(plain, targets, head, loss)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert parts.keys() == expected_parts.keys()
    for name, value in parts.items():
        np.testing.assert_allclose(value, expected_parts[name], rtol=1e-5, err_msg=name)
    has_objects = case not in ("none", "outside")
    assert (float(parts["objects"]) > 0) == has_objects
    for number, (gradient, other) in enumerate(zip(gradients, expected_gradients, strict=True)):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-6 * np.abs(other).max())
        of_heat = number % (len(outputs) // 2) == 0
        assert np.any(gradient) if of_heat else has_objects or not np.any(gradient)


@pytest.mark.parametrize("option", OPTIONS)
def test_compiles_with_static_shapes_and_equals_eager(option):
    head, loss = CenterNetHead(**OPTIONS[option][0]), CenterNetLoss(**OPTIONS[option][1])
    outputs, truth = random_outputs(head, stacks=2), truth_of(*CASES["cut by the border"])
    compiled = tf.function(loss_and_gradients, autograph=False, jit_compile=True)
    total, parts, gradients = compiled(outputs, truth, head, loss)
    expected, expected_parts, expected_gradients = loss_and_gradients(outputs, truth, head, loss)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for name, value in expected_parts.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_a_cut_box_has_the_centre_and_size_of_what_is_left():
    objects = place(truth_of([[-30.0, 3.0, 4.0, 40.0]], [0]), GRID, CLASSES)
    np.testing.assert_array_equal(objects.wh[0, 0], [4, 5])
    np.testing.assert_array_equal(objects.ct_int[0, 0], [2, 5])
    np.testing.assert_array_equal(objects.reg[0, 0], [0, 0.5])


def test_a_box_without_area_leaves_its_row_empty_and_the_next_in_place():
    targets = assign(place(truth_of(*CASES["without area"]), GRID, CLASSES), GRID, CLASSES)
    np.testing.assert_array_equal(targets.reg_mask[0], [False, False, True, False, False, False])
    assert not np.any(targets.wh[0, :2]) and not np.any(targets.ind[0, :2])
    np.testing.assert_array_equal(targets.wh[0, 2], [2, 2])


def test_two_objects_in_one_cell_are_one_peak_of_a_class():
    for case, peaks in (("one centre, one class", 1), ("one centre, two classes", 2)):
        targets = assign(place(truth_of(*CASES[case]), GRID, CLASSES), GRID, CLASSES)
        assert np.count_nonzero(targets.hm == 1) == peaks
        assert np.count_nonzero(targets.reg_mask) == 2


def many_boxes(seed: int, count: int):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-3, 12, [count, 2])
    return np.concatenate([corner, corner + rng.uniform(0, 8, [count, 2])], axis=1), rng.integers(0, CLASSES, count)


def test_more_boxes_than_are_drawn_at_once():
    """All in one image: order does not matter to the heatmap, and each part of the boxes is in it."""
    count = 2 * BOXES_AT_ONCE + 5
    boxes, classes = many_boxes(0, count)
    whole = assign(place(truth_of(boxes, classes, count), GRID, CLASSES), GRID, CLASSES).hm
    turned = assign(place(truth_of(boxes[::-1], classes[::-1], count), GRID, CLASSES), GRID, CLASSES).hm
    np.testing.assert_array_equal(whole, turned)
    one_by_one = [
        assign(place(truth_of(boxes[k : k + 1], classes[k : k + 1]), GRID, CLASSES), GRID, CLASSES).hm
        for k in range(count)
    ]
    np.testing.assert_array_equal(whole, np.max(one_by_one, axis=0))


def test_images_of_a_batch_do_not_mix():
    parts = [many_boxes(seed, 7) for seed in (1, 2)]
    truth = Truth(
        tf.constant(np.stack([boxes for boxes, _ in parts]), tf.float32),
        tf.constant(np.stack([classes for _, classes in parts]), tf.int32),
        tf.constant(np.ones((2, 7), bool)),
    )
    together = assign(place(truth, GRID, CLASSES), GRID, CLASSES)
    dense = assign_dense_size(place(truth, GRID, CLASSES), GRID)
    for image in (0, 1):
        alone = Truth(*(part[image : image + 1] for part in truth))
        for one, other in zip(together, assign(place(alone, GRID, CLASSES), GRID, CLASSES), strict=True):
            np.testing.assert_array_equal(one[image], other[0])
        for one, other in zip(dense, assign_dense_size(place(alone, GRID, CLASSES), GRID), strict=True):
            np.testing.assert_array_equal(one[image], other[0])


def test_dense_weight_is_the_maximum_over_classes():
    boxes, classes = many_boxes(3, 6)
    objects = place(truth_of(boxes, classes), GRID, CLASSES)
    hm = assign(objects, GRID, CLASSES).hm
    np.testing.assert_allclose(assign_dense_size(objects, GRID).mask, np.max(hm, axis=-1), atol=1e-6)


@pytest.mark.parametrize("option", ["default", "cat_spec_wh", "sl1"])
def test_nan_in_a_valid_truth_is_not_hidden(option):
    head, loss = CenterNetHead(**OPTIONS[option][0]), CenterNetLoss(**OPTIONS[option][1])
    truth = truth_of([[2.0, np.nan, 6.0, 5.0]], [1])
    total, _, _ = loss_and_gradients(random_outputs(head), truth, head, loss)
    assert np.isnan(total)
    targets = assign(place(truth, GRID, CLASSES), GRID, CLASSES)
    assert np.all((targets.ind >= 0) & (targets.ind < GRID[0] * GRID[1]))


def test_nan_predicted_is_not_hidden():
    head = CenterNetHead()
    hm, wh, reg = random_outputs(head)
    broken = tf.tensor_scatter_nd_update(hm, [[1, 0, 0, 0]], [np.nan])
    total, _, _ = loss_and_gradients([broken, wh, reg], truth_of(*CASES["one"]), head, CenterNetLoss())
    assert np.isnan(total)


def test_wild_predictions_where_there_is_no_object_do_not_matter():
    """Padding rows point at cell 0: an infinite size there is asked for by nobody."""
    head, loss = CenterNetHead(), CenterNetLoss()
    hm, wh, reg = random_outputs(head)
    expected, _, _ = loss_and_gradients([hm, wh, reg], truth_of(*CASES["one"]), head, loss)
    wild = tf.tensor_scatter_nd_update(wh, [[0, 0, 0], [1, 0, 0]], [[np.inf, np.nan], [1e30, -np.inf]])
    total, _, gradients = loss_and_gradients([hm, wild, reg], truth_of(*CASES["one"]), head, loss)
    np.testing.assert_array_equal(total, expected)
    assert np.isfinite(gradients[1]).all()


def test_confident_logits_are_finite_and_without_gradient():
    head = CenterNetHead()
    _, wh, reg = random_outputs(head)
    for logit in (LARGEST_LOGIT * 1.01, 100.0, 1e30, np.inf):
        hm = tf.constant(np.where(np.arange(CLASSES) == 1, -logit, logit) * np.ones([2, *GRID, 1]), tf.float32)
        total, _, gradients = loss_and_gradients([hm, wh, reg], truth_of(*CASES["one"]), head, CenterNetLoss())
        assert np.isfinite(total) and not np.any(gradients[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_value_keeps_its_digits_over_millions_of_cells(compiled):
    """One long sum in float32, as XLA makes it on a CPU, is wrong in the fourth digit at COCO's size."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-4, 2, [4, 128, 128, 80]).astype(np.float32)
    hm = np.where(rng.random(logits.shape) < 1e-5, np.float32(1), rng.random(logits.shape).astype(np.float32) ** 4)
    p = 1 / (1 + np.exp(-np.where(hm == 1, -logits, logits).astype(np.float64)))
    p = np.clip(p, 1e-4, 1 - 1e-4)
    cells = np.where(hm == 1, 1.0, (1 - hm.astype(np.float64)) ** 4) * p**2 * -np.log(1 - p)
    value = tf.function(focal_loss, autograph=False, jit_compile=compiled)(tf.constant(logits), tf.constant(hm))
    np.testing.assert_allclose(value, cells.sum() / (hm == 1).sum(), rtol=5e-6)


def test_stacks_are_averaged():
    head, loss, truth = CenterNetHead(), CenterNetLoss(), truth_of(*CASES["on the border"])
    outputs = random_outputs(head, stacks=2)
    both, _, _ = loss_and_gradients(outputs, truth, head, loss)
    each = [loss_and_gradients(part, truth, head, loss)[0] for part in (outputs[:3], outputs[3:])]
    np.testing.assert_allclose(both, np.mean(each), rtol=1e-6)


def test_dense_and_class_specific_sizes_exclude_each_other():
    head = CenterNetHead(cat_spec_wh=True)
    with pytest.raises(ValueError, match="dense_wh asks for one size map"):
        centernet_loss(random_outputs(head), truth_of([], []), head, CenterNetLoss(dense_wh=True), MOMENT)


def test_radius_equals_the_original_s_float64_at_every_size_of_a_512_input():
    """Also where the root is a whole number, which float32 would miss."""
    height, width = np.mgrid[1:129, 1:129].astype(np.float64)
    b = -2 * 0.7 * (height + width)
    root = (b + np.sqrt(b**2 - 4 * (4 * 0.7) * ((0.7 - 1) * width * height))) / 2
    assert np.any(root == np.round(root))
    radius = gaussian_radius(tf.constant(height.astype(np.int32)), tf.constant(width.astype(np.int32)))
    np.testing.assert_array_equal(radius, root.astype(int))
