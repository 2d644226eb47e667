"""DarknetAugmentation that ends before the run: what the last steps see, from whichever step the stream is read."""

import numpy as np
import pydantic
import pytest
import tensorflow as tf

from configs.centernet.augmentation import CenterNetAugmentation
from configs.data import AffineAugmentation, DarknetAugmentation, ReuseWindow, TrainSplit
from dataloaders.centernet.input import Centred
from dataloaders.compose.composer import Composer
from dataloaders.pipeline import train_dataset
from dataloaders.reading.sources import open_source
from dataloaders.schedule.phases import phases_of
from official.core.config import Duration
from official.vision.protocol import EvaluationProtocol

STRETCH = EvaluationProtocol(resize="stretch")
WINDOW = DarknetAugmentation(jitter=0.3, mosaic=1.0, window=ReuseWindow(examples=4, reuse=4))
EFFECTS = DarknetAugmentation(jitter=0.3, colour={"type": "darknet_opencv", "blur": 5})


def _stream(folder, augmentation, first, centernet=False, **more):
    split = TrainSplit(
        source=folder.source, augmentation=augmentation, batch_size=2, max_boxes=8, threads=2, on_bad="skip", **more
    )
    data = open_source(folder.source, ("cell", "dot"), "skip", 8)
    phases = phases_of(split, Duration(steps=5), len(data))

    def make(split, steps):
        if centernet:
            examples = data.examples("xyxy_pixels")
            return train_dataset(Centred(examples, split, (64, 96), STRETCH, 3), split, steps)
        make = Composer(data.examples("cxcywh"), split, (64, 96), STRETCH, "cxcywh", 3)
        return train_dataset(make, split, steps)

    steps = tf.data.Dataset.range(first, 5)
    return [tf.nest.map_structure(np.asarray, batch) for batch in phases.batches(make, steps)]


def _differ(ours, others):
    pairs = zip(tf.nest.flatten(ours), tf.nest.flatten(others), strict=True)
    return [number for number, (one, other) in enumerate(pairs) if not np.array_equal(one, other)]


@pytest.mark.parametrize(
    "augmentation",
    [
        CenterNetAugmentation(),
        *(pytest.param(a, marks=pytest.mark.slow) for a in (EFFECTS, WINDOW, AffineAugmentation())),
    ],
    ids=lambda a: a.type,
)
def test_the_last_steps_are_plain(seven, augmentation):
    family = isinstance(augmentation, CenterNetAugmentation)
    with_end = _stream(seven, augmentation, 0, family, plain_last={"steps": 2})
    always, never = _stream(seven, augmentation, 0, family), _stream(seven, None, 0, family)
    for step, batch in enumerate(with_end[:3]):
        assert not _differ(batch, always[step])
    for step, batch in enumerate(with_end[3:], 3):
        assert not _differ(batch[:5], never[step][:5])
        assert not batch.draws.flip.any()
        if augmentation is EFFECTS:
            assert not batch.draws.effects.blur.any() and not batch.draws.effects.noise.any()
    for first in (2, 3, 4):  # resumed
        for step, batch in enumerate(_stream(seven, augmentation, first, family, plain_last={"steps": 2}), first):
            assert not _differ(batch, with_end[step])


@pytest.mark.slow
def test_an_end_longer_than_the_run_is_all_of_it(seven):
    plain = _stream(seven, DarknetAugmentation(jitter=0.3), 0, plain_last={"epochs": 100})
    for batch, other in zip(plain, _stream(seven, None, 0), strict=True):
        assert not _differ(batch, other)


def test_an_end_of_nothing_is_refused(seven):
    with pytest.raises(pydantic.ValidationError, match="there is no augmentation to leave out"):
        TrainSplit(source=seven.source, batch_size=2, plain_last={"epochs": 1})
