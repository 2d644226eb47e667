"""Targets, losses and gradients against what CenterNet itself computed (recorded traces; see their README)."""

import pytest


def test_radius_and_drawing(as_recorded):
    quantities = {row.quantity for row in as_recorded("centernet_gaussian", "gaussian") if row.outcome == "pass"}
    assert {"radius/int_overlap0.7", "gaussian2D/20", "draw3/umich", "draw3/umich == 1"} <= quantities


@pytest.mark.parametrize("name", ["small_val", "small_val_keep_res", "coco80_val", "small_val_options"])
def test_targets(as_recorded, name):
    as_recorded("centernet_targets", f"targets_{name}")


@pytest.mark.parametrize("name", ["random_crop", "shift_scale"])
def test_targets_in_training(as_recorded, name):
    as_recorded("centernet_train_targets", f"augment_train_{name}")


@pytest.mark.parametrize(
    "name",
    [
        *("coco80", "small_default", "small_no_boxes_at_all", "small_stacks2"),
        *("small_reg_sl1", "small_norm_wh", "small_cat_spec_wh", "small_dense_wh"),
    ],
)
def test_loss_and_gradient(as_recorded, name):
    as_recorded("centernet_loss", f"loss_{name}")
