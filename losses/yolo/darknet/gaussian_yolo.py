"""The [Gaussian_yolo] loss as Darknet computes it (gaussian_yolo_layer.c; Gaussian YOLOv3, Choi et al. 2019).

Each coordinate of a box is a normal distribution. The gradient of its mean and its sigma is, roughly, that of the
negative log likelihood of the truth, in which 0.3 was added to sigma in one place; with an iou_loss the means have the
gradient of [yolo] instead. All else is as in [yolo], but that a slot's box is always averaged over its classes, and
that whether a slot has any class yet is seen from its class 0.
"""

import math
from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Float

from configs.yolo.heads import GaussianYoloHead, GaussianYoloLevel
from configs.yolo.losses import GaussianYoloLoss
from losses.truth import Truth
from losses.yolo.assignment import assign, diagnostics_of
from losses.yolo.darknet.head_loss import HeadLoss, Scalar, added_in_turn, darknet_loss, squares
from losses.yolo.darknet.yolo import (
    Predictions,
    Section,
    averaged,
    bounded,
    delta_of,
    iou_slopes,
    small_counts_more,
    squared_error_aims,
)
from losses.yolo.truth import check_truth
from modeling.yolo.heads.gaussian_yolo import decode_level
from modeling.yolo.heads.yolo import check_levels, relative_anchors, size_factors
from official.core.task import Moment

SIGMA_CONST = 0.3
EPSILON = 1e-9


def gaussian_yolo_loss(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: GaussianYoloHead,
    loss: GaussianYoloLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Darknet's cost, a mean over examples, with Darknet's gradient. See `losses.yolo.darknet.head_loss.darknet_loss`.

    outputs: raw logits of each level, in the order of head.levels.
    """
    return darknet_loss(outputs, gaussian_yolo_heads(outputs, truth, head, loss, moment))


def gaussian_yolo_heads(
    outputs: Sequence[Float[tf.Tensor, "batch _ _ _ channels"]],
    truth: Truth,
    head: GaussianYoloHead,
    loss: GaussianYoloLoss,
    moment: Moment,
) -> list[HeadLoss]:
    """Cost, delta and targets of each level. The rest as in `gaussian_yolo_loss`."""
    check_levels(outputs, len(head.levels))
    check_truth(truth, outputs[0].shape[0])
    return [
        _level(tf.cast(raw, tf.float32), truth, head, level, level.loss or loss, moment.input_size)
        for raw, level in zip(outputs, head.levels, strict=True)
    ]


def _level(
    raw: tf.Tensor,
    truth: Truth,
    head: GaussianYoloHead,
    level: GaussianYoloLevel,
    rules: GaussianYoloLoss,
    input_size: tuple[int, int],
) -> HeadLoss:
    raw = tf.stop_gradient(raw)  # the gradient is what follows, not its derivative
    decoded = decode_level(raw, head.anchors_of(level), level, input_size)
    entries = tf.concat([decoded.offsets, raw[..., 4:8:2], decoded.sigmas], axis=-1)  # 4 means, 4 sigmas
    predicted = Predictions(entries, decoded.boxes, decoded.objectness[..., tf.newaxis], decoded.class_probabilities)
    grid = tuple(raw.shape[1:3])
    table = relative_anchors(head.table(level), input_size)
    targets = assign(decoded.boxes, decoded.class_probabilities, truth, table, level.mask, rules)
    anchors = tf.gather(table, level.mask)  # [anchors, 2]

    def of_box(predicted: Predictions, corner: tf.Tensor, true: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        means, sigmas = tf.split(predicted.entries, 2, axis=-1)
        errors = squared_error_aims(true, corner, anchors, grid, new_coords=False) - means
        of_means, of_sigmas = _likelihood_slopes(errors, sigmas, small_counts_more(true))
        if rules.iou_loss != "mse":
            sizes = size_factors(means[..., 2:])
            of_means = iou_slopes(predicted.boxes, true, rules.iou_loss)
            of_means *= tf.concat([tf.ones_like(sizes), sizes], axis=-1)
        delta = [of_means * (rules.iou_normalizer * weight), of_sigmas * rules.uc_normalizer]
        return bounded(tf.concat(delta, axis=-1), predicted.entries, true, rules)

    delta = delta_of(predicted, targets, rules, Section(of_box, _is_set))
    delta = averaged(delta, tf.constant(True))
    parts = {"box": squares(delta.entries), "objectness": squares(delta.objectness), "class": squares(delta.classes)}
    interleaved = tf.gather(delta.entries, [0, 4, 1, 5, 2, 6, 3, 7], axis=-1)
    whole = tf.concat([interleaved, delta.objectness, delta.classes], axis=-1)
    return HeadLoss(added_in_turn(whole), parts, whole, targets, diagnostics_of(targets, predicted.boxes))


def _is_set(delta: tf.Tensor, own: tf.Tensor) -> tf.Tensor:
    return delta[..., :1] != 0


def _likelihood_slopes(errors: tf.Tensor, sigmas: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Delta of the means and of the sigmas, [..., 4] each (delta_gaussian_yolo_box)."""
    deviations = errors / sigmas
    squared = deviations * deviations
    density = tf.exp(squared * -0.5) / (math.sqrt(2 * math.pi) * (sigmas + SIGMA_CONST))
    weight = 0.5 / (density + EPSILON) * density * scale  # half of `scale`, but for truths far out
    return weight * deviations / sigmas, weight * (squared / sigmas - 1 / (sigmas + SIGMA_CONST))
