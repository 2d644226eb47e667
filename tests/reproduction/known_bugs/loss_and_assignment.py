"""Bugs of loss and assignment: entries 15 to 23."""

from collections.abc import Callable

import tensorflow as tf
from pytest import MonkeyPatch

from losses.yolo import assignment, autodiff, from_cfg
from losses.yolo.darknet import iou
from losses.yolo.darknet import yolo as yolo_darknet
from official.vision import boxes as paper
from tests.reproduction.known_bugs.bug import Bug


def _ignored_without_class(patch: MonkeyPatch) -> None:
    patch.setattr(assignment, "CLASS_PROBABILITY_TO_IGNORE", -1.0)


def _ignores_by_first_truths(patch: MonkeyPatch) -> None:
    """The search leaves out the last part of the truths, as one that goes by whole tiles."""
    right = assignment.best_overlap
    patch.setattr(assignment, "best_overlap", lambda predicted, boxes: right(predicted, boxes[:, :2]))


def _classes_of_last_truth(patch: MonkeyPatch) -> None:
    patch.setattr(yolo_darknet, "_is_set", lambda delta, own: tf.zeros_like(delta[..., :1], tf.bool))


def _second_truth_ignored(patch: MonkeyPatch) -> None:
    right = assignment.claim

    def claim(*args):
        found = right(*args)
        none = tf.fill(found.following.shape, found.first.shape[1])
        return found._replace(claimed=found.first, best=found.best & found.first, following=none)

    patch.setattr(assignment, "claim", claim)


def _true_derivative(boxes: tf.Tensor, true: tf.Tensor, kind: str) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        value = getattr(paper, kind)(boxes, true)
    return tape.gradient(value, boxes)


def _differentiated_iou(patch: MonkeyPatch) -> None:
    patch.setattr(yolo_darknet, "iou_slopes", _true_derivative)


def _differentiated_values(patch: MonkeyPatch) -> None:
    """Wherever the gradient of an overlap is asked for."""
    patch.setattr(iou, "iou_gradient", _true_derivative)


def _anchors_in_gradient(patch: MonkeyPatch) -> None:
    """d w / d raw is w itself: the factor that the original lacks."""
    level, sizes = yolo_darknet.yolo_level, yolo_darknet.size_factors
    now: list[tf.Tensor] = []

    def remembering(raw, truth, head, one, rules, input_size):
        now[:] = [yolo_darknet.relative_anchors(head.anchors_of(one), input_size)]
        return level(raw, truth, head, one, rules, input_size)

    patch.setattr(yolo_darknet, "yolo_level", remembering)
    patch.setattr(yolo_darknet, "size_factors", lambda logits: sizes(logits) * now[0])


def _without_exponential(patch: MonkeyPatch) -> None:
    patch.setattr(yolo_darknet, "size_factors", lambda logits: tf.ones_like(logits))


def _falls_back_to_iou(patch: MonkeyPatch) -> None:
    right = iou.iou_gradient
    known = {"giou": "giou"}
    patch.setattr(iou, "iou_gradient", lambda predicted, true, kind: right(predicted, true, known.get(kind, "iou")))


def _normaliser(**values: float) -> Callable[[MonkeyPatch], None]:
    def plant(patch: MonkeyPatch) -> None:
        right = from_cfg._anchor_loss
        patch.setattr(from_cfg, "_anchor_loss", lambda layer: right(layer) | values)

    return plant


def _classes_normalised(patch: MonkeyPatch) -> None:
    """cls_normalizer counts although the original asks for counters_per_class, too."""
    right = yolo_darknet._second_pass

    def second(first, predicted, targets, rules, section):
        delta = right(first, predicted, targets, rules, section)
        return delta._replace(classes=delta.classes * rules.cls_normalizer)

    patch.setattr(yolo_darknet, "_second_pass", second)


def _padding_claims(patch: MonkeyPatch) -> None:
    """Padded rows are zeros, whose cell is the first."""
    patch.setattr(assignment, "usable", lambda rows: tf.ones_like(rows.valid))


def _padding_claims_last(patch: MonkeyPatch) -> None:
    """Their cell is -1, which is the last one."""
    right = assignment.cells_of

    def cells(boxes, rows, columns):
        empty = tf.reduce_all(boxes == 0, axis=-1, keepdims=True)
        return tf.where(empty, [rows - 1, columns - 1], right(boxes, rows, columns))

    _padding_claims(patch)
    patch.setattr(assignment, "cells_of", cells)


def _cells_by_swapped_sides(patch: MonkeyPatch) -> None:
    """x chooses the row."""

    def cells(boxes, rows, columns):
        found = tf.cast(boxes[..., :2] * tf.constant([rows, columns], tf.float32), tf.int32)
        return tf.clip_by_value(found, 0, [rows - 1, columns - 1])

    patch.setattr(assignment, "cells_of", cells)


def _mask_from_zero(patch: MonkeyPatch) -> None:
    right = assignment._shapes_alike

    def alike(boxes, table, mask, rules):
        return right(boxes, table, [max(0, index - 1) for index in mask], rules)

    patch.setattr(assignment, "_shapes_alike", alike)


def _sum_over_images(patch: MonkeyPatch) -> None:
    """The loss is a sum over images (or replicas), not their mean."""
    right = autodiff.darknet_loss

    def total(outputs, heads):
        value, parts = right(outputs, heads)
        return value * outputs[0].shape[0], parts

    patch.setattr(autodiff, "darknet_loss", total)


_BOTH = ("ciou_v4tiny", "ciou_plain")

BUGS = (
    Bug("ignored without a class probability", (15,), _ignored_without_class, 6, ("ciou_plain",),
        "*: train/L*_loss_delta of objectness*", "ignore_rule"),
    Bug("the ignore search drops part of the truths", (15,), _ignores_by_first_truths, 6, ("ciou_plain",),
        "*: train/L*_loss_delta", "ignore_rule"),
    Bug("a second truth's class replaces the first's", (16,), _classes_of_last_truth, 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "second_truth_overwrites"),
    Bug("a second truth of a slot is ignored", (16,), _second_truth_ignored, 5, ("ciou_plain",),
        "ciou_plain: train/L*_class_ids", "second_truth_ignored"),
    Bug("the true gradient of overlaps", (17,), _differentiated_values, 3, ("iou", "yolo-fastest-1.1__*"),
        "iou: dx_dy_dw_dh_iou", "ciou_gradient_wh"),
    Bug("CIoU's true gradient, without anchors", (17,), _differentiated_iou, 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "ciou_gradient_wh"),
    Bug("the anchor's factor in CIoU's gradient", (17,), _anchors_in_gradient, 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "ciou_gradient_wh"),
    Bug("no exponential in CIoU's gradient", (17,), _without_exponential, 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "ciou_gradient_wh"),
    Bug("iou_normalizer left at 1", (18,), _normaliser(iou_normalizer=1.0), 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "normaliser"),
    Bug("iou_normalizer's default 0.75 is forgotten", (18,), _normaliser(iou_normalizer=1.0), 6, ("mse_v3",),
        "mse_v3: train/L*_loss_delta", "normaliser"),
    Bug("cls_normalizer without counters", (18,), _classes_normalised, 6, ("ciou_csp_new_coords",),
        "ciou_csp_new_coords: train/L*_loss_delta", "normaliser"),
    Bug("diou trains plain IoU", (19,), _falls_back_to_iou, 6, ("diou_plain",),
        "diou_plain: train/L*_loss_delta", "iou_kind", before=("ciou_plain", "giou_plain", "nms/case0")),
    Bug("padded rows claim the first cell", (20,), _padding_claims, 5, _BOTH,
        "ciou_*: train/L*_positives", "padded_rows_scatter", before=("act_bn_leaky", "iou"), quick=True),
    Bug("padded rows claim the last cell", (20,), _padding_claims_last, 5, _BOTH,
        "ciou_*: train/L*_positives", "padded_rows_scatter"),
    Bug("a truth's cell by rows and columns exchanged", (1,), _cells_by_swapped_sides, 5, _BOTH,
        "ciou_*: train/L*_*", "height_width_swapped"),
    Bug("the mask of the assignment one off", (7,), _mask_from_zero, 5, _BOTH,
        "ciou_*: train/L*_positives", "anchor_mask"),
    Bug("the loss is a sum over images", (22,), _sum_over_images, 6, ("ciou_plain",),
        "ciou_plain: train/L*_loss_delta", "loss_scale"),
)  # fmt: skip
