"""Mistakes in the assignment and the loss that a run minimises: gates 5 and 6."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pytest import MonkeyPatch

import losses.yolo.autodiff
import tasks.yolo.task
from configs.yolo.losses import YoloLoss
from losses.centernet import gaussian
from losses.centernet import targets as centernet_targets
from losses.yolo import assignment
from losses.yolo.assignment import Claims, Targets
from official.core.task import Moment
from tests.reproduction.known_bugs.run_experiments import AUTODIFF, CELLS, CENTERNET, DARKNET, DEMO, SIZES, of_run

Plant = Callable[[MonkeyPatch], None]


def _one_cell_off(patch: MonkeyPatch) -> None:
    """Further right."""
    right = assignment.cells_of

    def cells(boxes: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
        return tf.clip_by_value(right(boxes, rows, columns) + [0, 1], 0, [rows - 1, columns - 1])

    patch.setattr(assignment, "cells_of", cells)


def _ignored_without_class(patch: MonkeyPatch) -> None:
    patch.setattr(assignment, "CLASS_PROBABILITY_TO_IGNORE", -1.0)


def _never_ignored(patch: MonkeyPatch) -> None:
    right = losses.yolo.autodiff.assign

    def assign(*args: Any) -> Targets:
        found = right(*args)
        return found._replace(overlapping=tf.zeros_like(found.overlapping))

    patch.setattr(losses.yolo.autodiff, "assign", assign)


def _mask_from_zero(patch: MonkeyPatch) -> None:
    right = assignment._shapes_alike

    def alike(boxes: tf.Tensor, table: tf.Tensor, mask: Any, rules: Any) -> Any:
        return right(boxes, table, [max(0, index - 1) for index in mask], rules)

    patch.setattr(assignment, "_shapes_alike", alike)


def _claims(change: Callable[[Claims], Claims]) -> Plant:
    """What the truths ask for, changed."""

    def plant(patch: MonkeyPatch) -> None:
        right = assignment.claim
        patch.setattr(assignment, "claim", lambda *args: change(right(*args)))

    return plant


def _first_alone(claims: Claims) -> Claims:
    """A later truth in the same slot makes nothing."""
    return claims._replace(claimed=claims.first, best=claims.best & claims.first)


def _last_class_alone(patch: MonkeyPatch) -> None:
    """The class target is one-hot: a later truth in the same slot replaces the class."""
    right = losses.yolo.autodiff._probability_losses

    def last(raw: tf.Tensor, decoded: Any, targets: Targets, *rest: Any) -> Any:
        claims = targets.claims
        truths = claims.claimed.shape[1]
        return right(raw, decoded, targets._replace(claims=claims._replace(
            claimed=claims.claimed & (claims.following == truths))), *rest)  # fmt: skip

    patch.setattr(losses.yolo.autodiff, "_probability_losses", last)


def _task_loss(change: Callable[[Any, Any, Any, Moment], tuple[Any, Any, Any, Moment]]) -> Plant:
    """What the task hands on to its loss: labels, head, loss and moment."""

    def plant(patch: MonkeyPatch) -> None:
        def loss(self: Any, outputs: Any, labels: Any, moment: Moment) -> Any:
            rules, head = self.config.loss, self.config.model.head
            labels, head, rules, moment = change(labels, head, rules, moment)
            return tasks.yolo.task.LOSSES[rules.type](outputs, labels, head, rules, moment)

        patch.setattr(tasks.yolo.task.Yolo, "loss", loss)

    return plant


def _relabelled(change: Callable[[Any, int], Any]) -> Plant:
    """Classes changed between the pipeline and the loss, as a function of (ids, their number)."""

    def plant(patch: MonkeyPatch) -> None:
        right = tasks.yolo.task.Yolo.loss

        def loss(self: Any, outputs: Any, labels: Any, moment: Moment) -> Any:
            classes = change(labels.classes, self.config.data.classes)
            return right(self, outputs, labels._replace(classes=classes), moment)

        patch.setattr(tasks.yolo.task.Yolo, "loss", loss)

    return plant


def by_name(ids: tf.Tensor, names: tuple[str, ...]) -> tf.Tensor:
    """Places in the sorted list of names."""
    return tf.gather(tf.constant([sorted(names).index(name) for name in names]), ids)


def _from_one(ids: tf.Tensor, names: tuple[str, ...]) -> tf.Tensor:
    return (ids + 1) % len(names)


def _rules(**changed: Any) -> Plant:
    def change(labels: Any, head: Any, rules: YoloLoss, moment: Moment) -> Any:
        return labels, head, rules.model_copy(update=changed), moment

    return _task_loss(change)


def _size_of_model(patch: MonkeyPatch) -> None:
    """At every size of multi-scale training."""
    right = tasks.yolo.task.Yolo.loss

    def loss(self: Any, outputs: Any, labels: Any, moment: Moment) -> Any:
        return right(self, outputs, labels, moment._replace(input_size=self.config.model.input_size))

    patch.setattr(tasks.yolo.task.Yolo, "loss", loss)


def _without_negatives(patch: MonkeyPatch) -> None:
    """Objectness of the positives alone."""
    right = losses.yolo.autodiff._probability_losses

    def losses_of(raw: tf.Tensor, decoded: Any, targets: Targets, *rest: Any) -> Any:
        objectness, classes = right(raw, decoded, targets, *rest)
        return tf.where(targets.object, objectness, 0.0), classes

    patch.setattr(losses.yolo.autodiff, "_probability_losses", losses_of)


def _boxes_by_truths(patch: MonkeyPatch) -> None:
    """The box loss is a mean over the batch's truths, not over its examples."""
    right = losses.yolo.autodiff._box_loss

    def mean(raw: tf.Tensor, decoded: Any, claims: Claims, *rest: Any) -> tf.Tensor:
        claimed = tf.reduce_sum(tf.cast(claims.claimed, tf.float32))
        return right(raw, decoded, claims, *rest) * raw.shape[0] / tf.maximum(claimed, 1.0)

    patch.setattr(losses.yolo.autodiff, "_box_loss", mean)


def _boxes_added_up(patch: MonkeyPatch) -> None:
    """A slot of several truths has the sum of their losses, not the mean."""
    right = losses.yolo.autodiff.into_slots

    def into(values: tf.Tensor, claims: Claims, shape: Any) -> tf.Tensor:
        whole = right(values, claims, shape)
        is_count = tf.reduce_all(values == 1)  # of the truths in a slot
        return tf.where(is_count, tf.minimum(whole, 1.0), whole)

    patch.setattr(losses.yolo.autodiff, "into_slots", into)


def _over_heads_too(patch: MonkeyPatch) -> None:
    """The hand-written gradient is divided by the number of heads, as the cost is."""
    right = losses.yolo.autodiff.darknet_loss

    def divided(outputs: Any, heads: Any) -> Any:
        return right(outputs, [head._replace(delta=head.delta / len(heads)) for head in heads])

    patch.setattr(losses.yolo.autodiff, "darknet_loss", divided)


def _delta_as_gradient(patch: MonkeyPatch) -> None:
    """Darknet's delta is minus the gradient."""
    right = losses.yolo.autodiff.darknet_loss

    def turned(outputs: Any, heads: Any) -> Any:
        return right(outputs, [head._replace(delta=-head.delta) for head in heads])

    patch.setattr(losses.yolo.autodiff, "darknet_loss", turned)


def _radius(patch: MonkeyPatch) -> None:
    """Half of the original's."""
    right = gaussian.gaussian_radius
    patch.setattr(centernet_targets, "gaussian_radius", lambda height, width: right(height=height, width=width) // 2)


def _no_offset_loss(patch: MonkeyPatch) -> None:
    import tasks.centernet.task

    right = tasks.centernet.task.centernet_loss

    def loss(outputs: Any, labels: Any, head: Any, rules: Any, moment: Moment) -> Any:
        return right(outputs, labels, head, rules.model_copy(update={"off_weight": 0.0}), moment)

    patch.setattr(tasks.centernet.task, "centernet_loss", loss)


BUGS = (
    of_run("run: the assignment of autodiff one cell off", _one_cell_off, 5, "own_assignment", "output 0 positives",
           "cell_offset", AUTODIFF),
    of_run("run: ignored without a class probability", _ignored_without_class, 5, "own_assignment", "output ? ignored",
           "ignore_rule", AUTODIFF),
    of_run("run: autodiff ignores nothing", _never_ignored, 5, "own_assignment", "output ? ignored", "ignore_rule",
           DEMO),
    of_run("run: the mask of the assignment one off", _mask_from_zero, 5, "own_assignment", "output 0 positives",
           "anchor_mask", AUTODIFF),
    of_run("run: a second truth of a slot is ignored", _claims(_first_alone), 5, "own_assignment",
           "output ? classes", "second_truth_ignored", DEMO),
    of_run("run: a second truth's class replaces the first's", _last_class_alone, 5, "own_assignment",
           "output ? classes", "second_truth_overwrites", DEMO),
    of_run("run: classes by name on their way into the loss", _relabelled(by_name), 5, "own_assignment",
           "output 0 classes", "class_ids_permuted", DARKNET),
    of_run("run: classes from 1 in the loss", _relabelled(_from_one), 5, "own_assignment", "output 0 classes",
           "class_ids_shifted", CELLS),
    of_run("run: autodiff without negatives", _without_negatives, 6, "own_loss", "gradient of level 0 objectness",
           "negatives_missing", AUTODIFF),
    of_run("run: autodiff's boxes divided by truths", _boxes_by_truths, 6, "own_loss", "gradient of level 0 boxes",
           "box_count", AUTODIFF),
    of_run("run: autodiff adds up the boxes of a slot", _boxes_added_up, 6, "own_loss", "gradient of level ? boxes",
           "box_mean", DEMO),
    of_run("run: the task drops iou_normalizer", _rules(iou_normalizer=1.0), 6, "own_loss",
           "gradient of level 0 boxes", "normaliser", DARKNET),
    of_run("run: the task has autodiff for darknet", _rules(gradient="autodiff"), 6, "own_loss",
           "gradient of level 0 boxes", "ciou_gradient_wh", DARKNET),
    of_run("run: the task has another IoU", _rules(iou_loss="giou"), 6, "own_loss", "gradient of level 0 boxes",
           "iou_kind", AUTODIFF),
    of_run("run: Darknet's gradient over heads", _over_heads_too, 6, "own_loss", "gradient of level 0 boxes",
           "loss_scale", DARKNET),
    of_run("run: Darknet's delta for the gradient", _delta_as_gradient, 5, "own_assignment", "output 0 positives",
           "gradient_sign", DARKNET),
    of_run("run: the loss takes the model's size", _size_of_model, 6, "own_loss", "gradient of level 0 boxes at *",
           "input_size_fixed", SIZES),
    of_run("run: CenterNet's radius halved", _radius, 6, "own_loss", "gradient of stack 0 hm", "gaussian_radius",
           CENTERNET),
    of_run("run: CenterNet's offset loss left out", _no_offset_loss, 6, "own_loss", "gradient of stack 0 reg",
           "loss_part_missing", CENTERNET),
)  # fmt: skip
