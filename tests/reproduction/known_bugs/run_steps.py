"""Mistakes in what the network is given and in the run itself: gates 8 and 9."""

from collections.abc import Callable
from typing import Any

import keras
import pytest
import tensorflow as tf
from pytest import MonkeyPatch

import tasks.centernet.task
import tasks.yolo.task
from dataloaders.augment import colour
from official.core.checkpoint import CheckpointFolder
from official.core.step import Gradients, TrainStep
from tests.reproduction.known_bugs.run_experiments import CELLS, CENTERNET, DARKNET, DEMO, PARTS, of_run
from tests.reproduction.known_bugs.run_loss import by_name

Plant = Callable[[MonkeyPatch], None]


def _pixels(change: Callable[[tf.Tensor], tf.Tensor]) -> Plant:
    """What the YOLO family's `prepare` gives the network."""

    def plant(patch: MonkeyPatch) -> None:
        right = tasks.yolo.task.apply_colour

        def apply(batch: Any, config: Any) -> Any:
            images, boxes = right(batch, config)
            return change(images), boxes

        patch.setattr(tasks.yolo.task, "apply_colour", apply)

    return plant


def _boxes_unmirrored(patch: MonkeyPatch) -> None:
    patch.setattr(colour, "flip_cxcywh", lambda boxes, valid, flip: boxes)


def _prepared_classes(patch: MonkeyPatch) -> None:
    right = tasks.yolo.task.Yolo.prepare

    def prepare(self: Any, batch: Any) -> Any:
        images, labels = right(self, batch)
        return images, labels._replace(classes=by_name(labels.classes, self.config.data.classes))

    patch.setattr(tasks.yolo.task.Yolo, "prepare", prepare)


def _standardised_by_rgb(patch: MonkeyPatch) -> None:
    """Mean and deviation are those of R, G, B; the pixels are B, G, R. Training alone has it."""
    right = tasks.centernet.task.standardise

    def standardise(pixels: tf.Tensor, config: Any) -> tf.Tensor:
        return right(pixels, config.model_copy(update={"mean": config.mean[::-1], "std": config.std[::-1]}))

    patch.setattr(tasks.centernet.task, "standardise", standardise)


def _evaluation_mode(patch: MonkeyPatch) -> None:
    """The step runs the network without training=True."""
    right = TrainStep._differentiate

    def differentiate(self: TrainStep, state: Any, batch: Any) -> Gradients:
        with pytest.MonkeyPatch.context() as inside:
            call = keras.Model.stateless_call
            inside.setattr(
                keras.Model, "stateless_call", lambda model, *args, training=True: call(model, *args, training=False)
            )
            return right(self, state, batch)

    patch.setattr(TrainStep, "_differentiate", differentiate)


def _last_part_alone(patch: MonkeyPatch) -> None:
    """Of several micro-batches the statistics follow the last alone: each part starts from the step's own."""
    right = TrainStep._differentiate
    first: list[Any] = []

    def differentiate(self: TrainStep, state: Any, batch: Any) -> Gradients:
        first[:] = first or [state.statistics]
        return right(self, state._replace(statistics=first[0]), batch)

    def parts(self: TrainStep, state: Any, batch: Any) -> Gradients:
        first[:] = [state.statistics]
        return whole(self, state, batch)

    whole = TrainStep._micro_batches
    patch.setattr(TrainStep, "_differentiate", differentiate)
    patch.setattr(TrainStep, "_micro_batches", parts)


def _restored_without(*lost: str) -> Plant:
    """Groups of a checkpoint that a run does not read again."""

    def plant(patch: MonkeyPatch) -> None:
        right = CheckpointFolder.restore

        def restore(self: CheckpointFolder, path: str, groups: Any) -> Any:
            return right(self, path, {name: group for name, group in groups.items() if name not in lost})

        patch.setattr(CheckpointFolder, "restore", restore)

    return plant


BUGS = (
    of_run("run: pixels 0..255", _pixels(lambda images: 255.0 * images), 8, "own_pixels", "pixels", "image_range",
           DARKNET),
    of_run("run: BGR for RGB", _pixels(lambda images: images[..., ::-1]), 8, "own_pixels", "pixels",
           "channels_reversed", DEMO),
    of_run("run: boxes are not mirrored with their image", _boxes_unmirrored, 8, "own_pixels", "boxes",
           "image_mirrored", DEMO),
    of_run("run: classes by name in prepare", _prepared_classes, 8, "own_pixels", "classes", "class_ids_permuted",
           DARKNET),
    of_run("run: CenterNet standardises B, G, R as R, G, B", _standardised_by_rgb, 8, "own_pixels", "pixels",
           "channels_reversed", CENTERNET),
    of_run("run: the step in evaluation mode", _evaluation_mode, 9, "own_steps", "step 1 loss",
           "batch_norm_training_mode", DARKNET),
    of_run("run: statistics of the last micro-batch alone", _last_part_alone, 9, "own_steps", "step 1 statistics",
           "statistics_of_one_part", PARTS),
    of_run("run: a resumed run has no momentum", _restored_without("momentum"), 9, "own_steps",
           "resumed momentum: differs", "resume_state", DARKNET),
    of_run("run: a resumed run has a fresh average", _restored_without("average"), 9, "own_steps",
           "resumed average: differs", "resume_state", CELLS),
    of_run("run: a resumed run counts from 0", _restored_without("progress"), 9, "own_steps", "resumed step: differs",
           "resume_state", CELLS),
)  # fmt: skip
