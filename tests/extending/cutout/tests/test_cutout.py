"""CutOut after any recipe, of any family: nothing else of an example changes."""

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from official.core.config_io import load_config
from tasks import build_task
from tests.coco_folder import folder, seven  # noqa: F401 (fixtures)
from tests.conftest import ROOT
from tools.replay.rebuild import rebuild

RECIPES = {
    "demo": ("{type: darknet, jitter: 0.2}", "{type: affine}"),
    "demo_centernet": ("{type: centernet}",),
}
SIZE = (64, 96)


def experiment(seven, name, augmentation, *more):  # noqa: F811
    source = f"{{type: coco, annotations: {seven.source.annotations}, images: {seven.source.images}}}"
    sets = [
        f"task.data.train.source={source}",
        f"task.data.validation.source={source}",
        "task.data.classes=[cell, dot]",
        "task.data.train.batch_size=4",
        f"task.data.train.augmentation={augmentation}",
        f"task.model.input_size={list(SIZE)}",
        "trainer.duration={steps: 4}",
        *more,
    ]
    return load_config(str(ROOT / "configs" / "experiments" / f"{name}.yaml"), Experiment, sets)


def batch_of(experiment, step):
    return next(iter(build_task(experiment).stream.batches(step, SIZE)))


@pytest.mark.parametrize(
    ("name", "augmentation"), [(name, recipe) for name, recipes in RECIPES.items() for recipe in recipes]
)
def test_a_square_is_black(seven, name, augmentation):  # noqa: F811
    plain, cut = (experiment(seven, name, augmentation, *more) for more in ((), ("task.data.train.cutout=0.5",)))
    whole, batch = batch_of(plain, 1), batch_of(cut, 1)
    for one, other in zip(tf.nest.flatten(whole[1:]), tf.nest.flatten(batch[1:]), strict=True):
        assert np.array_equal(one, other)
    differs = np.any(whole.image != batch.image, axis=-1)
    assert differs.any(axis=(1, 2)).all() and not np.any(batch.image.numpy()[differs])
    for image in differs:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        assert np.ptp(rows) < 32 and np.ptp(columns) < 32
    assert np.array_equal(rebuild(cut, 1, 2).batch.image[0], batch.image[2])


def test_steps_without_augmentation_keep_all(seven):  # noqa: F811
    more = ("task.data.train.plain_last={steps: 2}", "task.data.train.cutout=0.5")
    ends = experiment(seven, "demo", "{type: darknet}", *more)
    assert np.array_equal(batch_of(ends, 3).image, batch_of(experiment(seven, "demo", "null"), 3).image)
