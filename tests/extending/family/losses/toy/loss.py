"""The toy's loss: squared errors of boxes in the cells of truths, cross-entropy of all scores."""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float, Float32

from configs.toy.task import ToyLoss
from losses.truth import Truth
from official.core.task import Scalar, Scalars


class Targets(NamedTuple):
    """What each cell is asked for."""

    boxes: Float32[tf.Tensor, "batch rows columns box=4"]  # x, y of the centre in the cell; w, h relative to the input
    scores: Float32[tf.Tensor, "batch rows columns classes"]
    positive: Bool[tf.Tensor, "batch rows columns"]  # whether a box is asked for


def assign(truth: Truth, grid: tuple[int, int], num_classes: int) -> Targets:
    """Targets of truths cxcywh relative to the input: the cell of the centre; of several truths there the first."""
    rows, columns = grid
    room = truth.boxes.shape[1]
    at = tf.minimum(tf.cast(truth.boxes[..., :2] * [columns, rows], tf.int32), [columns - 1, rows - 1])
    cell = at[..., 1] * columns + at[..., 0]  # [batch, truths]
    hits = tf.one_hot(cell, rows * columns, on_value=True, off_value=False) & truth.valid[..., tf.newaxis]
    rank = tf.range(room, 0, -1)[:, tf.newaxis]  # the first truth has the highest
    first = tf.argmax(tf.where(hits, rank, 0), axis=1)  # [batch, cells]
    x, y = tf.meshgrid(tf.range(columns, dtype=tf.float32), tf.range(rows, dtype=tf.float32))
    corner = tf.stack([x, y, tf.zeros_like(x), tf.zeros_like(x)], axis=-1)  # [rows, columns, 4]
    boxes = tf.reshape(tf.gather(truth.boxes, first, batch_dims=1), [-1, rows, columns, 4])
    positive = tf.reshape(tf.reduce_any(hits, axis=1), [-1, rows, columns])
    classes = tf.reshape(tf.gather(truth.classes, first, batch_dims=1), [-1, rows, columns])
    scores = tf.where(positive[..., tf.newaxis], tf.one_hot(classes, num_classes), 0.0)
    return Targets(boxes * [columns, rows, 1.0, 1.0] - corner, scores, positive)


def toy_loss(
    raw: Float[tf.Tensor, "batch rows columns entries"], truth: Truth, rules: ToyLoss
) -> tuple[Scalar, Scalars]:
    """The mean over the examples; parts: box (weighted), score."""
    raw = tf.cast(raw, tf.float32)
    targets = assign(truth, tuple(raw.shape[1:3]), raw.shape[3] - 4)
    off = tf.where(targets.positive[..., tf.newaxis], tf.sigmoid(raw[..., :4]) - targets.boxes, 0.0)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(targets.scores, raw[..., 4:])
    box, score = (
        tf.reduce_mean(tf.reduce_sum(part, axis=[1, 2, 3])) for part in (rules.box_weight * tf.square(off), entropy)
    )
    return box + score, {"box": box, "score": score}
