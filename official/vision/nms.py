"""Exact greedy non-maximum suppression, per class, with static shapes: the same program for CPU, GPU and TPU.

What it computes is the plain loop: go through the candidates from the best score down and keep one unless a kept one
of the same class suppresses it (Darknet box.c do_nms_sort, diounms_sort; `_suppresses` says when). How: the candidates
come in blocks, best first; the survivors so far and the next block are resolved together, in parallel, until there are
enough survivors. What is then never looked at has lower scores than all of them, so the result is the loop's.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32

from official.vision.protocol import EvaluationProtocol

_BLOCK = 128  # candidates resolved at a time; measured best of 64 to 512 on a CPU


class Detections(NamedTuple):
    """Detections of a batch, best score first, padded with zeros to a fixed count."""

    boxes: Float32[tf.Tensor, "b n yxyx=4"]  # yxyx
    scores: Float32[tf.Tensor, "b n"]
    classes: Int32[tf.Tensor, "b n"]
    valid: Bool[tf.Tensor, "b n"]


def select(
    boxes: Float32[tf.Tensor, "b n yxyx=4"], scores: Float32[tf.Tensor, "b n c"], protocol: EvaluationProtocol
) -> Detections:
    """The detections among scored boxes, as `protocol.nms` says; boxes yxyx, all as of `per_class_nms`."""
    return NMS[protocol.nms](boxes, scores, protocol)


def best_alone(
    boxes: Float32[tf.Tensor, "b n yxyx=4"], scores: Float32[tf.Tensor, "b n c"], protocol: EvaluationProtocol
) -> Detections:
    """The `protocol.detections_per_image` best (box, class) pairs, none suppressed; boxes yxyx."""
    wanted = protocol.detections_per_image
    best = best_pairs(boxes, scores, protocol.model_copy(update={"candidates": wanted}))
    return _padded(best, wanted)


def per_class_nms(
    boxes: Float32[tf.Tensor, "b n yxyx=4"], scores: Float32[tf.Tensor, "b n c"], protocol: EvaluationProtocol
) -> Detections:
    """The `protocol.detections_per_image` best detections of each image.

    A (box, class) pair is a candidate when its score is above `protocol.score_floor`; the `protocol.candidates` best
    of them take part. Equal scores are ordered by the box's position, then by the class id, the lower first. A score
    that is NaN, or a box with a coordinate that is not finite, is never detected. An empty or inverted box has IoU 0
    with every box.

    Args:
        boxes: yxyx, one per row for all classes, in any unit for "per_class_iou"; relative to the original image for
            the other kinds, whose distances depend on its shape. n is static.
        scores: of each box as each class. c is static.
    """
    wanted = protocol.detections_per_image
    ranked = best_pairs(boxes, scores, protocol)
    blocks = -(-ranked.scores.shape[1] // _BLOCK)
    ranked = _padded(ranked, blocks * _BLOCK)  # [b, blocks * _BLOCK]

    def unfinished(number: tf.Tensor, kept: Detections) -> tf.Tensor:
        start = tf.minimum(number, blocks - 1) * _BLOCK
        return (number < blocks) & tf.reduce_any(~kept.valid[:, -1] & ranked.valid[:, start])

    def resolve_next(number: tf.Tensor, kept: Detections) -> tuple[tf.Tensor, Detections]:
        block = Detections(*(_slice(part, number * _BLOCK, _BLOCK) for part in ranked))  # [b, _BLOCK]
        # [b, wanted + _BLOCK], still in the order of rank
        pool = Detections(*(tf.concat(parts, axis=1) for parts in zip(kept, block, strict=True)))
        pool = pool._replace(valid=_greedy(pool, protocol))
        return number + 1, _first_valid(pool, wanted)

    nothing = _padded(Detections(*(part[:, :0] for part in ranked)), wanted)
    _, kept = tf.while_loop(unfinished, resolve_next, (tf.constant(0), nothing), maximum_iterations=blocks)
    return kept


# Of the last three: `_suppresses` says what too near is. `none` is for models that give each object one box.
NMS: dict[str, Callable[[tf.Tensor, tf.Tensor, EvaluationProtocol], Detections]] = {
    "none": best_alone,
    "per_class_iou": per_class_nms,
    "greedynms": per_class_nms,
    "diounms": per_class_nms,
}


def best_pairs(
    boxes: Float32[tf.Tensor, "b n yxyx=4"], scores: Float32[tf.Tensor, "b n c"], protocol: EvaluationProtocol
) -> Detections:
    """The `protocol.candidates` best (box, class) pairs above the score floor, none suppressed.

    Boxes are yxyx; order, ties and padding as in `per_class_nms`, whose first half this is.
    """
    finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1)  # [b, n]
    scores = tf.where((scores > protocol.score_floor) & finite[..., tf.newaxis], scores, 0.0)
    # The k best pairs lie in the k boxes with the best maximum: k pairs, one in each of them, beat any other box.
    box_count = min(protocol.candidates, scores.shape[1])
    chosen = tf.math.top_k(tf.reduce_max(scores, axis=-1), box_count).indices  # [b, boxes]
    chosen = tf.sort(chosen, axis=-1)  # back in the order of position, which decides ties
    scores = tf.gather(scores, chosen, batch_dims=1)  # [b, boxes, c]
    class_count = scores.shape[2]
    flat = tf.reshape(scores, [tf.shape(scores)[0], box_count * class_count])  # [b, boxes * c]
    top = tf.math.top_k(flat, min(protocol.candidates, box_count * class_count))
    of_box = tf.gather(chosen, top.indices // class_count, batch_dims=1)  # [b, candidates]
    valid = top.values > 0
    return Detections(
        boxes=tf.where(valid[..., tf.newaxis], tf.gather(boxes, of_box, batch_dims=1), 0.0),  # [b, candidates, 4]
        scores=top.values,
        classes=tf.where(valid, top.indices % class_count, 0),
        valid=valid,
    )


def _greedy(ranked: Detections, protocol: EvaluationProtocol) -> Bool[tf.Tensor, "b n"]:
    """Which rows the greedy loop keeps; rows are in the order of rank.

    keep[j] = valid[j] and no better i has keep[i] and suppresses j. That recursion has one solution, since i < j.
    Iterated from keep = valid, all rows that depend on chains of at most t suppressions are right after t rounds: a
    fixed point is the solution, and it is reached after as many rounds as the longest chain.
    """
    count = ranked.scores.shape[1]
    rank = tf.range(count)
    better = rank[:, tf.newaxis] < rank[tf.newaxis, :]  # [n, n]
    same_class = ranked.classes[:, :, tf.newaxis] == ranked.classes[:, tf.newaxis, :]  # [b, n, n]
    suppresses = tf.cast(better & same_class & _suppresses(ranked.boxes, protocol), tf.float32)  # [b, n, n]

    def again(keep: tf.Tensor) -> Bool[tf.Tensor, "b n"]:
        attacks = tf.linalg.matvec(suppresses, tf.cast(keep, tf.float32), transpose_a=True)  # [b, n]
        return ranked.valid & (attacks < 0.5)

    def unsettled(keep: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(keep != following)

    def advance(keep: tf.Tensor, following: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return following, again(following)

    _, keep = tf.while_loop(unsettled, advance, (ranked.valid, again(ranked.valid)), maximum_iterations=count)
    return keep


def _suppresses(boxes: Float32[tf.Tensor, "b n yxyx=4"], protocol: EvaluationProtocol) -> Bool[tf.Tensor, "b n n"]:
    """Whether each pair is too near to be two objects: symmetric.

    By the IoU, or (greedynms, diounms) by the IoU less the centres' squared distance over the squared diagonal of the
    hull, to the power of 0.6 or of beta_nms. From the corners themselves: boxes.iou, made for gradients, rounds through
    centres and sizes.
    """
    top, left, bottom, right = tf.unstack(boxes, axis=-1)  # [b, n] each
    area = tf.maximum(bottom - top, 0.0) * tf.maximum(right - left, 0.0)

    def pairs(operation, values: tf.Tensor) -> tf.Tensor:
        return operation(values[:, :, tf.newaxis], values[:, tf.newaxis, :])  # [b, n, n]

    height = pairs(tf.minimum, bottom) - pairs(tf.maximum, top)
    width = pairs(tf.minimum, right) - pairs(tf.maximum, left)
    intersection = tf.nn.relu(height) * tf.nn.relu(width)
    union = pairs(tf.add, area) - intersection
    if protocol.nms == "per_class_iou":
        return intersection > protocol.nms_threshold * union  # spares a division for each pair
    # Darknet box.c box_diou, box_diounms.
    hull_height = pairs(tf.maximum, bottom) - pairs(tf.minimum, top)
    hull_width = pairs(tf.maximum, right) - pairs(tf.minimum, left)
    off_y, off_x = (pairs(tf.subtract, (low + high) / 2) for low, high in ((top, bottom), (left, right)))
    distance = tf.square(off_y) + tf.square(off_x)
    distance = tf.math.divide_no_nan(distance, tf.square(hull_height) + tf.square(hull_width))
    exponent = 0.6 if protocol.nms == "greedynms" else protocol.beta_nms
    return tf.math.divide_no_nan(intersection, union) - distance**exponent > protocol.nms_threshold


def _first_valid(rows: Detections, count: int) -> Detections:
    """The first `count` valid rows (of at least `count` rows), in their order; zeros behind them."""
    total = rows.scores.shape[1]
    order = tf.where(rows.valid, tf.range(total, 0, -1), 0)  # [b, total], above 0 where valid and falling
    top = tf.math.top_k(order, count)
    valid = top.values > 0
    boxes, scores, classes = (tf.gather(part, top.indices, batch_dims=1) for part in rows[:3])
    return Detections(
        tf.where(valid[..., tf.newaxis], boxes, 0.0), tf.where(valid, scores, 0.0), tf.where(valid, classes, 0), valid
    )


def _padded(rows: Detections, count: int) -> Detections:
    """The rows, and zeros up to `count`."""
    missing = count - rows.scores.shape[1]
    return Detections(*(tf.pad(part, [[0, 0], [0, missing]] + [[0, 0]] * (part.shape.rank - 2)) for part in rows))


def _slice(part: tf.Tensor, start: tf.Tensor, count: int) -> tf.Tensor:
    """Rows start .. start + count of each image, with a static count."""
    rest = part.shape.rank - 2
    return tf.slice(part, [0, start] + [0] * rest, [-1, count] + [-1] * rest)
