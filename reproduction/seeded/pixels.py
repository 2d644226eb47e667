"""Gate 8: what the step makes of a raw batch on the accelerator, the network's input and the labels."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, Exact

FLOAT = Absolute(bound=2e-5)
LEVELS = Absolute(bound=1.01 / 255)  # OpenCV's 8 bits: a whole number may come out one level lower, by the processor
BOXES = Absolute(bound=1e-6)


def prepare(case: Case, subject: Subject) -> Iterator[Row]:
    """Pixels, boxes, classes and the mask of seeded bytes and draws."""
    own = subject.own.small
    family = own.family
    rng = np.random.default_rng(own.experiment.runtime.seed)
    batch = family.batch(family.labels(rng), tuple(own.experiment.task.model.input_size), rng)
    images, labels = own.prepare(batch)
    stated, truth = family.prepare(batch)
    made: dict[str, Callable[[], np.ndarray]] = {
        **{cause: lambda one=one: one(stated) for cause, one in family.pixel_mistakes().items()},
        "image_mirrored": lambda: stated[:, :, ::-1],
        "image_mirrored never": lambda: family.prepare(_not_mirrored(batch))[0],
    }
    yield case.compare("pixels", images, LEVELS if family.in_levels else FLOAT, stated, Clue("image", "", made))
    names = own.experiment.task.data.classes
    classes, by_name = len(names), np.array([sorted(names).index(name) for name in names])
    boxes = {
        "image_mirrored never": lambda: family.prepare(_not_mirrored(batch))[1].boxes,
        "height_width_swapped": lambda: truth.boxes[..., [1, 0, 3, 2]],
        "box_format": lambda: np.concatenate([truth.boxes[..., :2], truth.boxes[..., 2:] * 2], axis=-1),
    }
    kept = labels.valid.numpy()[..., np.newaxis] & truth.valid[..., np.newaxis]
    boxes = {cause: lambda one=one: one() * kept for cause, one in boxes.items()}
    yield case.compare("boxes", labels.boxes.numpy() * kept, BOXES, truth.boxes * kept, Clue("boxes", "", boxes))
    ids = {
        "class_ids_shifted": lambda: (truth.classes + 1) % classes,
        "class_ids_shifted down": lambda: (truth.classes - 1) % classes,
        "class_ids_permuted": lambda: classes - 1 - truth.classes,
        "class_ids_permuted by name": lambda: by_name[np.clip(truth.classes, 0, classes - 1)],
    }
    ids = {cause: lambda one=one: one() * truth.valid for cause, one in ids.items()}
    yield case.compare(
        "classes", labels.classes.numpy() * truth.valid, Exact(), truth.classes * truth.valid, Clue("targets", "", ids)
    )
    rows = {"padded_rows_scatter": lambda: np.ones_like(truth.valid)}
    yield case.compare("valid", labels.valid, Exact(), truth.valid, Clue("targets", "", rows))


def _not_mirrored(batch):
    return batch._replace(draws=batch.draws._replace(flip=tf.zeros_like(batch.draws.flip)))
