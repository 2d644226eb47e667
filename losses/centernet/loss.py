"""The CenterNet loss: focal loss of the heatmaps, L1 of size and offset (CenterNet lib/trains/ctdet.py CtdetLoss).

What is summed over the batch is divided by a count over the batch, as in the original, where "the batch" is what one
GPU holds: here, what this function is given, one replica's micro-batch. The trainer then takes the plain mean over
replicas and micro-batches, as the original does over its GPUs: one with few objects weighs as much as one with many.
- Heatmaps: by the number of cells that are 1 (objects of one class in one cell count once), or by 1 if there is none.
- Size and offset with l1: by the number of numbers, two for each object; with sl1, by the number of objects.
- norm_wh of the original has no effect there (its loss calls the plain one), and is left out.

The maps are float32 in every run, and so are truth, targets and counts. Maps of float64, from a network that computes
so for a comparison, give a float64 loss.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from configs.centernet.task import CenterNetHead, CenterNetLoss
from losses.centernet.targets import DenseSize, Targets, assign, assign_dense_size, check_truth, place
from losses.truth import Truth
from modeling.centernet.decode import Stack, stacks_of
from official.core.task import Moment

Scalar = Float[tf.Tensor, ""]
LARGEST_LOGIT = 9.21024036697585  # the sigmoid is kept within 1e-4 .. 1 - 1e-4; beyond there is no gradient
EPSILON = 1e-4


def centernet_loss(
    outputs: Sequence[Float[tf.Tensor, "batch rows columns _"]],
    truth: Truth,
    head: CenterNetHead,
    loss: CenterNetLoss,
    moment: Moment,
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the three losses, each the mean over stacks, and each of them before its weight.

    outputs: raw maps of each stack, hm, wh and reg (see Stack). The truth is in pixels of these maps; `moment`
    is not read. Beside the losses, `objects`: how many an image has. All shapes are static.
    """
    check_truth(truth, outputs[0].shape[0])
    stacks = stacks_of(outputs, head)
    *grid, num_classes = stacks[0].hm.shape[1:]
    objects = place(truth, tuple(grid), num_classes)
    dense = assign_dense_size(objects, tuple(grid)) if loss.dense_wh else None
    return loss_against(stacks, assign(objects, tuple(grid), num_classes), dense, head, loss)


def loss_against(
    stacks: Sequence[Stack], targets: Targets, dense: DenseSize | None, head: CenterNetHead, loss: CenterNetLoss
) -> tuple[Scalar, dict[str, Scalar]]:
    """The same against given targets; `dense` is what the size head is for with `dense_wh`."""
    if loss.dense_wh and head.cat_spec_wh:
        raise ValueError("centernet_loss: dense_wh asks for one size map, but cat_spec_wh makes one for each class")
    per_stack = [_losses(stack, targets, dense, head, loss) for stack in stacks]
    parts = {name: tf.add_n([part[name] for part in per_stack]) / len(stacks) for name in per_stack[0]}
    total = loss.hm_weight * parts["hm_loss"] + loss.wh_weight * parts["wh_loss"]
    if head.reg_offset:
        total += loss.off_weight * parts["off_loss"]
    objects = tf.reduce_sum(tf.cast(targets.reg_mask, tf.float32))
    return total, parts | {"objects": objects / targets.reg_mask.shape[0]}


def focal_loss(
    logits: Float[tf.Tensor, "batch rows columns classes"], hm: Float32[tf.Tensor, "batch rows columns classes"]
) -> Scalar:
    """Penalty-reduced focal loss of raw heatmaps (CenterNet lib/models/losses.py _neg_loss; paper eq. 1).

    A cell's loss is q^2 * -log(1 - q), where q is the probability of being wrong, times (1 - hm)^4 unless hm is 1.
    """
    hm = tf.cast(hm, logits.dtype)
    positive = hm == 1
    wrong = tf.where(positive, -logits, logits)
    wrong = tf.clip_by_value(wrong, -LARGEST_LOGIT, LARGEST_LOGIT)
    weight = tf.where(positive, tf.ones([], hm.dtype), tf.square(tf.square(1 - hm)))
    # softplus, as 1 - q loses its digits where q is near 1.
    cells = weight * tf.square(tf.sigmoid(wrong)) * tf.nn.softplus(wrong)
    positives = tf.maximum(tf.reduce_sum(tf.cast(positive, hm.dtype)), 1.0)
    # By rows first, with the division between, which keeps a compiler from making one long sum of millions of cells,
    # whose fourth digit is wrong.
    return tf.reduce_sum(tf.reduce_sum(cells, axis=[2, 3]) / positives)


def l1(
    predicted: Float[tf.Tensor, "batch truths 2"],
    true: Float32[tf.Tensor, "batch truths 2"],
    mask: Bool[tf.Tensor, "batch truths"],
) -> Scalar:
    """Mean absolute error of each number (CenterNet RegL1Loss, and RegWeightedL1Loss for cat_spec_wh)."""
    errors = tf.abs(_errors(predicted, true, mask))
    count = 2 * tf.reduce_sum(tf.cast(mask, tf.float32))
    return tf.reduce_sum(errors) / tf.cast(count + EPSILON, errors.dtype)


def smooth_l1(
    predicted: Float[tf.Tensor, "batch truths 2"],
    true: Float32[tf.Tensor, "batch truths 2"],
    mask: Bool[tf.Tensor, "batch truths"],
) -> Scalar:
    """Huber loss with its knee at 1, summed over x and y, the mean over objects (CenterNet RegLoss)."""
    errors = tf.abs(_errors(predicted, true, mask))
    huber = tf.where(errors < 1, tf.square(errors) / 2, errors - 0.5)
    count = tf.reduce_sum(tf.cast(mask, tf.float32))
    return tf.reduce_sum(huber) / tf.cast(count + EPSILON, huber.dtype)


REGRESSION: dict[str, Callable[..., Scalar]] = {"l1": l1, "sl1": smooth_l1}


def _losses(
    stack: Stack, targets: Targets, dense: DenseSize | None, head: CenterNetHead, loss: CenterNetLoss
) -> dict[str, Scalar]:
    regression = REGRESSION[loss.reg_loss]
    parts = {"hm_loss": focal_loss(stack.hm, targets.hm)}
    if dense is not None:
        weight = tf.cast(dense.mask, stack.wh.dtype)[..., tf.newaxis]  # [batch, rows, columns, 1]
        errors = tf.abs(stack.wh * weight - tf.cast(dense.wh, stack.wh.dtype) * weight)
        parts["wh_loss"] = tf.reduce_sum(errors) / (2 * tf.reduce_sum(weight) + EPSILON)
    elif head.cat_spec_wh:  # with either reg_loss, as the original
        parts["wh_loss"] = l1(at_centres_of_class(stack.wh, targets), targets.wh, targets.reg_mask)
    else:
        parts["wh_loss"] = regression(at_centres(stack.wh, targets), targets.wh, targets.reg_mask)
    if stack.reg is not None:
        parts["off_loss"] = regression(at_centres(stack.reg, targets), targets.reg, targets.reg_mask)
    return parts


def at_centres(maps: Float[tf.Tensor, "batch rows columns 2"], targets: Targets) -> Float[tf.Tensor, "batch truths 2"]:
    """What is predicted in the cell of each object's centre."""
    batch, rows, columns, channels = maps.shape
    return tf.gather(tf.reshape(maps, [batch, rows * columns, channels]), targets.ind, batch_dims=1)


def at_centres_of_class(
    maps: Float[tf.Tensor, "batch rows columns channels"], targets: Targets
) -> Float[tf.Tensor, "batch truths 2"]:
    """The same, from the two channels of each object's class: class c has channels 2c and 2c + 1."""
    batch, rows, columns, channels = maps.shape
    pairs = tf.reshape(maps, [batch, rows * columns * channels // 2, 2])  # [batch, cells * classes, 2]
    return tf.gather(pairs, targets.ind * (channels // 2) + targets.classes, batch_dims=1)


def _errors(predicted: tf.Tensor, true: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Differences, 0 where there is no object, whatever is predicted there."""
    errors = predicted - tf.cast(true, predicted.dtype)
    return tf.where(mask[..., tf.newaxis], errors, tf.zeros([], errors.dtype))
